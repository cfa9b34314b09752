"""Rooms import only rooms above them, and heavy packages stay where they belong (docs/decisions.md, "The house")."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# The ground may be imported everywhere; it imports nothing of ours but itself.
GROUND = {"sightline.types", "sightline.options", "sightline.run", "sightline.statistics"}
# Room -> the rooms that it may import besides itself and the ground (DESIGN: "The house"). A room is the longest of
# these names that a module begins with.
ALLOWED: dict[str, set[str]] = {
    **{room: set() for room in GROUND},
    "sightline.video": set(),
    "sightline.backbones": set(),
    "sightline.checkpoints": {"sightline.backbones"},
    "sightline.relevance": {"sightline.backbones"},
    "sightline.tokens": {"sightline.backbones"},
    "sightline.explain": {"sightline.backbones"},
    "sightline.pruning": {"sightline.backbones", "sightline.relevance", "sightline.tokens"},
}
ALLOWED["sightline.export"] = {
    *ALLOWED["sightline.pruning"],
    "sightline.pruning",
    "sightline.checkpoints",
    "sightline.video",
}
ALLOWED["sightline.planning"] = {*ALLOWED["sightline.export"], "sightline.export"}
ALLOWED["sightline.report"] = {*ALLOWED["sightline.planning"], "sightline.planning", "sightline.explain"}
# What the package offers on clips in memory: the public names that need several rooms.
ALLOWED["sightline.library"] = {*ALLOWED["sightline.export"], "sightline.export", "sightline.explain"}
ALLOWED["sightline.commands"] = {"sightline"}  # the command line is the last room: it joins all others
ALLOWED["datamodules"] = {"sightline.video"}
ALLOWED["lightning_modules"] = {"sightline"}
ALLOWED["callbacks"] = {"sightline", "lightning_modules", "datamodules"}
ALLOWED["train"] = {"sightline", "lightning_modules", "datamodules", "callbacks"}
LIGHTNING_ROOMS = {"datamodules", "lightning_modules", "callbacks", "train"}
WANDB_ROOMS = {"callbacks", "train"}
OWN = ("sightline", "datamodules", "lightning_modules", "callbacks", "train")

# Module -> what it may import besides what its room may, and why.
EXCEPTIONS = {
    # `python -m sightline.pruning.cost` is an earlier name of a command and only hands over to it.
    "sightline.pruning.cost": {"sightline.commands"},
}

TOPS = ("sightline", "datamodules", "lightning_modules", "callbacks")
FILES = [*sorted(path for top in TOPS for path in (ROOT / top).rglob("*.py")), ROOT / "train.py"]


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def room_of(module: str) -> str | None:
    rooms = [room for room in ALLOWED if module == room or module.startswith(f"{room}.")]
    return max(rooms, key=len, default=None)


def imported_modules(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports name the whole module"
            found.add(node.module or "")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: module_name(path))
def test_imports_run_one_way(path: Path):
    module = module_name(path)
    if module == "sightline":
        return  # for type checkers alone; tests/sightline/test_library.py sees to it that importing it imports nothing
    room = room_of(module)
    assert room is not None, f"{module} belongs to no room of the house"
    for name in imported_modules(path):
        top = name.split(".")[0]
        if top == "lightning":
            assert room in LIGHTNING_ROOMS, f"{module} imports lightning"
        if top == "wandb":
            assert room in WANDB_ROOMS, f"{module} imports wandb"
        if top in OWN:
            target = room_of(name) or top
            allowed = ALLOWED[room] | GROUND | {room} | EXCEPTIONS.get(module, set())
            assert any(target == a or target.startswith(f"{a}.") for a in allowed), f"{module} imports {name}"


def test_there_is_something_to_check():
    assert len(FILES) > 30
    assert imported_modules(ROOT / "callbacks" / "commands" / "training.py") >= {"lightning.pytorch.cli", "callbacks"}
    assert imported_modules(ROOT / "train.py") == {"sightline.commands.main"}
