"""The tree in CONTRIBUTING.md, made from the folders and their docstrings: `python -m tests.tree` renews it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.test_import_order import ALLOWED, GROUND, ROOT

PAGE = ROOT / "CONTRIBUTING.md"
BEGIN, END = "<!-- The tree: renew it with `make tree`. -->\n```\n", "```\n<!-- End of the tree. -->"
# What is no package has its line here.
TOPS = {
    "train.py": "The command line in a checkout.",
    "sightline": "",
    "datamodules": "",
    "lightning_modules": "",
    "callbacks": "",
    "configs": "One YAML file per kind of run; each opens with the command that runs it.",
    "tests": "The same folders again, one test file per module; what holds for all files is at the top.",
    "benchmarks": "What is compared with other libraries, or takes hours: scripts to run by hand.",
    "docs": "The pages; docs/README.md lists them.",
}
ROOMS = [*sorted(GROUND), *(room for room in ALLOWED if room not in GROUND)]
WIDTH = 28


def summary(folder: Path) -> str:
    """The first line of a package's docstring."""
    docstring = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8")))
    if docstring is None:
        raise ValueError(f"{folder.relative_to(ROOT)}/__init__.py has no docstring, which would be its line in {PAGE}.")
    return docstring.splitlines()[0]


def order(folder: Path) -> tuple[int, str]:
    """Rooms as imports run, whatever else by name."""
    room = ".".join(folder.relative_to(ROOT).parts)
    return (ROOMS.index(room) if room in ROOMS else len(ROOMS), room)


def lines(folder: Path, depth: int) -> Iterator[str]:
    yield f"{'  ' * depth + folder.name + '/':{WIDTH}}{summary(folder)}"
    for inner in sorted((path.parent for path in folder.glob("*/__init__.py")), key=order):
        yield from lines(inner, depth + 1)


def tree() -> str:
    found: list[str] = []
    for name, told in TOPS.items():
        path = ROOT / name
        if told:
            found.append(f"{name + '/' * path.is_dir():{WIDTH}}{told}")
        else:
            found.extend(lines(path, 0))
    return "\n".join(found) + "\n"


def tree_in(text: str) -> str:
    """What stands between the marks; ValueError where they are missing."""
    begin = text.index(BEGIN) + len(BEGIN)
    return text[begin : text.index(END, begin)]


if __name__ == "__main__":
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(page.replace(BEGIN + tree_in(page) + END, BEGIN + tree() + END), encoding="utf-8")
