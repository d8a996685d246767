"""A notebook as the text of a page: its cells, what they printed, and their images."""

from __future__ import annotations

import json
from pathlib import Path


def page(path: str) -> str:
    """Markdown of a notebook below the repository's root, without its first heading.

    Images stand in the page itself, as in the notebook.
    """
    notebook = json.loads(Path(path).read_text(encoding="utf-8"))
    parts = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            heading, _, rest = source.partition("\n")
            parts.append(rest.strip() if heading.startswith("# ") else source)
            continue
        parts.append(f"```python\n{source}\n```")
        printed = "".join(
            "".join(output["text"]) for output in cell["outputs"] if output.get("name") == "stdout"
        )
        if printed.strip():
            parts.append(f"```text\n{printed.rstrip()}\n```")
        for output in cell["outputs"]:
            image = "".join(output.get("data", {}).get("image/png", "")).replace("\n", "")
            if image:
                parts.append(f'<img alt="" src="data:image/png;base64,{image}">')
    return "\n\n".join(parts)
