"""The hook of MkDocs: generated pages, and what stands in pages as `<!-- generated: NAME ... -->`.

Nothing generated is committed: release tables, metrics, protocols and config keys are read from the
package when the site is built.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import command_pages
import config_pages
import metric_tables
import notebook_page
import release_tables
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

_MARK = re.compile(r"^<!-- generated: (\S+)((?: \S+)*) -->$", re.MULTILINE)

TABLES: dict[str, Callable[..., str]] = {
    "tokenizers": release_tables.tokenizers,
    "generators": release_tables.generators,
    "families": release_tables.families,
    "recipes": release_tables.recipes,
    "metrics": metric_tables.metrics,
    "protocols": metric_tables.protocols,
    "config-index": config_pages.index,
    "commands": command_pages.commands,
    "notebook": notebook_page.page,
}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the generated pages of config keys into the navigation, behind the commands."""
    reference = next(part["Reference"] for part in config.nav if "Reference" in part)
    pages = [{page.title: page.path} for page in config_pages.PAGES]
    reference.insert(1, {"Config keys": [config_pages.INDEX, *pages]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages, and the images of the gallery, which lie where evaluation does."""
    gallery = Path(config.docs_dir).parent / "eval/gallery"
    for image in sorted(gallery.glob("**/*.png")):
        name = f"assets/gallery/{image.relative_to(gallery).as_posix()}"
        files.append(File.generated(config, name, abs_src_path=str(image)))
    files.append(File.generated(config, config_pages.INDEX, content=config_pages.INDEX_TEXT))
    for page in config_pages.PAGES:
        files.append(File.generated(config, page.path, content=config_pages.text(page)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The page's text with its marks replaced; an unknown mark ends the build."""
    return _MARK.sub(lambda found: _table(found[1], found[2].split(), page), markdown)


def _table(name: str, words: list[str], page: Page) -> str:
    if name not in TABLES:
        raise PluginError(f"{page.file.src_uri}: '{name}' is not one of {', '.join(TABLES)}")
    return TABLES[name](*words)
