"""Citation, version and forms for issues agree with the package."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import yaml

import vistok
from vistok.eval.results.rows import Row

ROOT = Path(__file__).parents[2]


def test_one_version_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert vistok.__version__ == project["version"] == citation["version"]
    assert citation["license"] == project["license"]


def test_the_form_for_numbers_asks_for_what_a_row_holds():
    form = yaml.safe_load((ROOT / ".github/ISSUE_TEMPLATE/number.yml").read_text("utf-8"))
    text = str(form).lower()
    asked = {"metric", "value", "features", "reference", "sampling", "precision"}
    assert asked <= set(Row.model_fields) and not {name for name in asked if name not in text}


def test_every_form_is_one_of_github():
    for path in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"):
        form = yaml.safe_load(path.read_text("utf-8"))
        if path.name == "config.yml":
            continue
        assert form["name"] and form["description"]
        fields = form["body"]
        assert {field["type"] for field in fields} <= {"input", "textarea", "dropdown", "markdown"}
        names = [field["id"] for field in fields]
        assert len(set(names)) == len(names)
        assert all(re.fullmatch(r"[a-z]+", name) and fields[i]["attributes"]["label"]
                   for i, name in enumerate(names))  # fmt: skip


def test_the_navigation_has_every_page():
    """`docs/` has no page that nobody finds; generated pages are added by the hook."""
    named = set(re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text("utf-8")))
    there = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    assert there == named
