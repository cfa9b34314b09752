"""The shape of the house: short files, narrow folders, and names of families in their own rooms alone."""

import ast
import re
from pathlib import Path

import pytest

from tests.test_import_order import FILES, ROOT, module_name

TOPS = ("sightline", "datamodules", "lightning_modules", "callbacks", "configs", "docs", "benchmarks", "tests")
MOST_LINES = 350
MOST_FILES = 20
"""Of one folder, its ``__init__.py`` included and its folders not."""
RECORDED = ROOT / "tests" / "old_run"
"""A run's folder as an earlier version wrote it, which nobody may tidy."""

# Also within VideoSwin, MViTConfig, VIT_DEMO; not within swing or invited.
FAMILY = re.compile(r"Swin|ViT|SWIN|VIT|(?<![a-z])(swin|vit)(?![a-z])|(?i:timesformer|mvit|videomae)")
# Help texts may show how a name looks, as docstrings may.
EXAMPLE = re.compile(r"(e\.g\. |--backbone )\w+")
KNOW_FAMILIES = ("sightline.backbones.families", "sightline.backbones.registry", "sightline.checkpoints")

FOLDERS = [ROOT / top for top in TOPS]
FOLDERS += [path for top in TOPS for path in (ROOT / top).rglob("*") if path.is_dir()]
FOLDERS = sorted(path for path in FOLDERS if path.name != "__pycache__" and RECORDED not in path.parents)
PYTHON = [path for folder in FOLDERS for path in sorted(folder.glob("*.py"))] + [ROOT / "train.py"]


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", PYTHON, ids=relative)
def test_files_are_short(path: Path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MOST_LINES, f"{relative(path)} has {lines} lines; split it where it has two reasons to change"


@pytest.mark.parametrize("folder", FOLDERS, ids=relative)
def test_folders_are_narrow(folder: Path):
    files = [path for path in folder.iterdir() if path.is_file()]
    assert len(files) <= MOST_FILES, f"{relative(folder)} has {len(files)} files; give some a folder of their own"


def names_and_strings(tree: ast.AST) -> set[tuple[int, str]]:
    """Every identifier and every string of a module, with its line; docstrings, like comments, may name anything."""
    found, docstrings = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            docstrings.add(node.value)  # also those below an assignment
        line = getattr(node, "lineno", 0)
        for field in ("id", "attr", "arg", "name", "asname", "module"):
            if isinstance(value := getattr(node, field, None), str):
                found.add((line, value))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in docstrings:
            found.add((line, node.value))
    return found


def families_named(source: str) -> list[str]:
    return [
        f"line {line}: {text}"
        for line, text in sorted(names_and_strings(ast.parse(source)))
        if FAMILY.search(EXAMPLE.sub("", text))
    ]


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_only_the_rooms_of_families_name_them(path: Path):
    module = module_name(path)
    if any(module == room or module.startswith(f"{room}.") for room in KNOW_FAMILIES):
        return
    found = families_named(path.read_text(encoding="utf-8"))
    assert not found, (
        f"{module} names a family ({'; '.join(found)}). What differs between families is an attribute of the backbone, "
        "set in the family's file."
    )


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ('"""Video Swin."""\n# MViT\ndef ends():\n    """ViT."""\n    return 2', []),
        ('x = 1\n"""How many of a TimeSformer."""', []),
        ('if backbone.family == "timesformer":\n    pass', [1]),
        ('raise ValueError(f"Use {name} with Video Swin.")', [1]),
        ('help = "a backbone, e.g. video_swin_s"\nusage = "cost --backbone vit_demo"', []),
        ("from sightline.backbones.families.vit import ViT\nx = ViTConfig()", [1, 2]),
        ("swin_layers = 3\nmodule.mvit = VideoSwin\nSWIN, VIT_DEMO = 1, 2", [1, 2, 3]),
        ('activities = "invited, vital, twins, swinging"\ninviting = 1', []),
    ],
)
def test_names_of_families_are_found(source, lines):
    assert sorted({int(entry.split()[1].rstrip(":")) for entry in families_named(source)}) == lines
