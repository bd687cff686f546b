"""docs/architecture.md lists every module with the first sentence of its docstring, and nothing else."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[3]


def first_sentences() -> list[str]:
    """`path` and what it is, as the document shows them."""
    lines = []
    for path in sorted((ROOT / "src").rglob("*.py")):
        if path.name == "__init__.py":
            continue
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        summary = docstring.split("\n\n")[0].replace("\n", " ")
        sentence = re.split(r"(?<=[.?!])\s", summary, maxsplit=1)[0]
        lines.append(f"- `{path.relative_to(ROOT / 'src')}`: {sentence}")
    return lines


def test_every_module_is_listed_with_what_it_says_of_itself() -> None:
    document = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    listed = [line for line in document.splitlines() if line.startswith("- `") and ".py`" in line]

    assert listed == first_sentences(), "replace the list by:\n" + "\n".join(first_sentences())
