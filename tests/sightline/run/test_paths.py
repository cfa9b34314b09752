"""The layout of a run's folder, and that nothing outside of sightline/run spells it or renames files by itself."""

import ast
import inspect
from pathlib import Path

import pytest

from sightline.run.paths import RelevanceFolder, RunFolder

ROOT = Path(__file__).resolve().parents[3]
TOPS = ("sightline", "datamodules", "lightning_modules", "callbacks", "benchmarks")
FILES = [
    path
    for path in (*(path for top in TOPS for path in sorted((ROOT / top).rglob("*.py"))), ROOT / "train.py")
    if ROOT / "sightline" / "run" not in path.parents
]
# A template of the page that is called like the page; the folder of the tables of a comparison.
ALLOWED = {("sightline/report/page/html.py", "report.html"), ("benchmarks/reproduce_tables.py", "tables")}


def layout(folder) -> dict[str, Path]:
    """Every path that a folder's properties and methods give, relative to it; arguments are their own names."""
    found = {}
    for name, member in inspect.getmembers(type(folder)):
        if name.startswith("_"):
            continue
        if isinstance(member, property):
            found[name] = getattr(folder, name)
        elif inspect.isfunction(member):
            values = {key: [3, 7] if key == "layers" else key for key in list(inspect.signature(member).parameters)[1:]}
            found[name] = member(folder, **values)
    plain = {name: path.path if isinstance(path, RelevanceFolder) else path for name, path in found.items()}
    return {name: path.relative_to(folder.path) for name, path in plain.items() if isinstance(path, Path)}


RUN, RELEVANCE = layout(RunFolder(Path("run"))), layout(RelevanceFolder(Path("run")))
ARGUMENTS = {"name.csv", "model.csv", "unreadable-command.csv", "pointing_split.parquet", "attribution_split.parquet"}
ARGUMENTS |= {"split", "plan_id", "kind.parquet", "kind.parts", "without-3-7"}
NAMES = {part for path in (*RUN.values(), *RELEVANCE.values()) for part in path.parts} - ARGUMENTS


def test_the_layout_is_that_of_the_design():
    assert {name: path.as_posix() for name, path in RUN.items()} == {
        "config": "config.yaml",
        "kernels": "kernels.json",
        "splits": "splits.csv",
        "provenance": "provenance.json",
        "report": "report.html",
        "checkpoints": "checkpoints",
        "best_checkpoint": "checkpoints/best.ckpt",
        "last_checkpoint": "checkpoints/last.ckpt",
        "tables": "tables",
        "table": "tables/name.csv",
        "curves": "tables/curves.csv",
        "pruning_table": "tables/pruning.csv",
        "unreadable": "tables/unreadable-command.csv",
        "predictions_folder": "tables/predictions",
        "predictions": "tables/predictions/model.csv",
        "token_predictions": "tables/predictions/tokens",
        "token_record": "tables/predictions/tokens/tested.json",
        "figures": "figures",
        "attention": "attention",
        "captions": "attention/index.json",
        "attribution": "attention/attribution_split.parquet",
        "pointing": "attention/pointing_split.parquet",
        "relevance_folder": "relevance",
        "relevance": "relevance/split",
        "pruned_folder": "pruned",
        "wandb": "wandb",
        "pruned": "pruned/plan_id",
    }
    assert {name: path.as_posix() for name, path in RELEVANCE.items()} == {
        "manifest": "manifest.json",
        "baselines": "baselines.json",
        "scores": "kind.parquet",
        "parts": "kind.parts",
        "without": "greedy/without-3-7",
    }
    assert RunFolder(Path("run")).unreadable("fit") == Path("run/tables/unreadable.csv")


def test_splits_are_scored_where_a_manifest_says_so(tmp_path):
    run = RunFolder(tmp_path)
    assert run.scored_splits() == []
    for split in ("val", "test", "train"):
        run.relevance(split).path.mkdir(parents=True)
    for split in ("train", "test"):
        run.relevance(split).manifest.touch()
    assert run.scored_splits() == ["test", "train"]


# Nobody else spells paths --------------------------------------------------------------------------------------------


def spelled(tree: ast.AST) -> set[str]:
    """Names of the layout that stand in a program where a path is put together, or anywhere as a file's whole name."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "." in node.value:
            found |= {node.value} & NAMES
        for part in path_parts(node):
            for text in ast.walk(part):
                if isinstance(text, ast.Constant) and isinstance(text.value, str):
                    found |= set(text.value.split("/")) & NAMES
    return found


def path_parts(node: ast.AST) -> list[ast.expr]:
    """What a path is put together from here: the right side of ``/``, or arguments of what makes or lists paths."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        return [node.left, node.right] if isinstance(node.left, ast.Constant) else [node.right]
    if isinstance(node, ast.Call):
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if called in ("Path", "joinpath", "glob", "rglob", "with_name"):
            return list(node.args)
    return []


def renames(tree: ast.AST) -> set[str]:
    """Calls that give a file another name; those of strings and tables take other arguments."""
    found = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        owner = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
        one = len(node.args) == 1 and not node.keywords and not isinstance(node.args[0], (ast.Constant, ast.Dict))
        if (owner in ("os", "shutil") and node.func.attr in ("replace", "rename", "renames", "move")) or (
            node.func.attr in ("replace", "rename") and one
        ):
            found.add(ast.unparse(node))
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_paths_and_renames_are_the_business_of_the_ground_alone(path):
    tree, name = ast.parse(path.read_text()), path.relative_to(ROOT).as_posix()
    words = {text for text in spelled(tree) if (name, text) not in ALLOWED}
    assert not words, f"{name} spells {words}: take the path from sightline.run.paths"
    assert not renames(tree), f"{name}: write through sightline.run.atomic or sightline.run.whole_folder"


def test_the_checks_find_what_they_look_for():
    assert len(FILES) > 150
    assert {"config.yaml", "tables", "relevance", "pruned", "attention", "best.ckpt", "greedy"} <= NAMES
    assert not NAMES & {"split", "name.csv", "kind.parts"}
    ground = ast.parse((ROOT / "sightline/run/paths.py").read_text())
    assert spelled(ground) >= NAMES - {"unreadable.csv", "curves.csv", "pruning.csv", "tokens"}
    for line, words in {
        'a / "tables" / f"{x}.csv"': {"tables"},
        'Path("runs/x/checkpoints") / "best.ckpt"': {"checkpoints", "best.ckpt"},
        'a.glob("*/manifest.json")': {"manifest.json"},
        'a.joinpath("figures")': {"figures"},
        'FILES = ("splits.csv", "other.csv")': {"splits.csv"},
        'a / f"attention/{x}.png"': {"attention"},
        'heads["attention"], f"see tables/pruning.csv for more", method == "relevance"': set(),
    }.items():
        assert spelled(ast.parse(line)) == words, line
    for line, count in {
        "os.replace(a, b)": 1,
        "path.rename(other)": 1,
        "temporary.replace(path)": 1,
        "shutil.move(a, b)": 1,
        'text.replace("a", "b")': 0,
        'frame.rename(columns={"a": "b"})': 0,
        'series.rename("x")': 0,
        "dataclasses.replace(context, ranks=ranks)": 0,
    }.items():
        assert len(renames(ast.parse(line))) == count, line
    assert renames(ast.parse((ROOT / "sightline/run/atomic.py").read_text()))
