"""The table of commands, how each is started, and what it imports."""

import ast
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

import train
from sightline.commands import main, registry
from sightline.commands.registry import COMMANDS, load_function
from tests.commands.calling import error_of, imported_by
from tests.sightline.report.comparison.example_runs import make_run
from tests.sightline.report.comparison.test_comparison import full, row, write_run

ROOT = Path(train.__file__).parent


def test_the_list_of_commands_starts_at_once():
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "train.py", "--help"], cwd=ROOT, capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert all(f" {name} " in done.stdout or f" {name}\n" in done.stdout for name in COMMANDS)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2
    assert imported_by("--help") == set()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str, capsys):
    with pytest.raises(SystemExit) as ended:
        train.main([name, "--help"])
    assert ended.value.code == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.startswith(f"usage: {Path(sys.argv[0]).name} {name} ")
    assert COMMANDS[name].summary.partition(" (")[0].partition(", or ")[0] in printed


@pytest.mark.parametrize("arguments", [["report"], ["compare"], ["cost"], ["predict", "--exported", "x"]])
def test_help_of_a_light_command_imports_nothing_heavy(arguments: list[str]):
    assert imported_by(*arguments, "--help") == set()


def test_light_commands_import_what_they_need(tmp_path: Path):
    assert imported_by("report", "--run", str(make_run(tmp_path / "run"))) == {"pandas", "matplotlib", "plotly"}
    models = [full([1, 1, 1, 1]), row("relevance", "r", "lowest", (1,), [1, 1, 0, 1])]
    tested = write_run(tmp_path / "tested", models)
    assert imported_by("compare", "--runs", str(tested), "--out", str(tmp_path / "out")) == {"pandas", "matplotlib"}
    used = imported_by("cost", "--backbone", "video_swin_demo", "--num_classes", "5")
    assert not used & {"lightning", "pandas", "matplotlib"}  # wandb comes with timm where both are installed


def test_threads_wait_quietly_before_pytorch_is_there():
    code = "import os, sys, train; assert 'torch' not in sys.modules; print(os.environ['OMP_WAIT_POLICY'])"
    environment = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout == "PASSIVE\n", done.stderr


def test_what_is_no_command_is_refused(capsys):
    assert "invalid choice: 'prne'" in error_of(capsys, "prne")
    assert "<command>" in error_of(capsys)


def test_an_installed_package_names_the_repository(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr(registry.sightline, "__file__", str(tmp_path / "site-packages" / "sightline" / "__init__.py"))
    for name in ("fit", "ablate", "check-data", "predict"):
        told = error_of(capsys, name, "--run", "runs/demo")
        assert "Run it in the Sightline repository: python train.py " + name in told
        assert "Traceback" not in told


def test_the_training_code_of_the_checkout_comes_first(tmp_path: Path):
    """Also where another folder of the same name is found before it."""
    (tmp_path / "callbacks").mkdir()
    (tmp_path / "callbacks" / "__init__.py").write_text("raise RuntimeError('not this one')")
    script = tmp_path / "sightline"  # as pip writes it
    script.write_text("import sys\nfrom sightline.commands.main import main\nsys.exit(main())\n")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(script), "preview", "--help"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.startswith("usage: sightline preview")


def test_a_package_that_training_needs_is_named(monkeypatch):
    def without_lightning(name: str):
        raise ModuleNotFoundError("No module named 'lightning'", name="lightning.pytorch")

    monkeypatch.setattr(registry.importlib, "import_module", without_lightning)
    with pytest.raises(ValueError, match=r"fit needs the package lightning.*pip install -e '\.\[train\]'"):
        load_function(registry.TRAINING, "fit")


def test_a_bug_in_our_own_imports_is_not_taken_for_a_missing_package(monkeypatch):
    def broken(name: str):
        raise ModuleNotFoundError("No module named 'callbacks.nothing'", name="callbacks.nothing")

    monkeypatch.setattr(registry.importlib, "import_module", broken)
    with pytest.raises(ModuleNotFoundError, match="nothing"):
        load_function(registry.TRAINING, "fit")


def test_errors_give_one_line_or_the_traceback(monkeypatch, capsys):
    def fail(name: str, arguments: list[str]) -> int:
        raise ValueError("Expected a, got b.")

    monkeypatch.setattr(main, "load_function", lambda *_: fail)
    assert "error: Expected a, got b.\n(SIGHTLINE_TRACEBACK=1" in error_of(capsys, "report")
    assert error_of(capsys, "cost").startswith("2error: Expected a, got b.")
    monkeypatch.setenv("SIGHTLINE_TRACEBACK", "1")
    with pytest.raises(ValueError, match="Expected a, got b"):
        train.main(["report"])


FILES = [
    ROOT / "train.py",
    *(ROOT / "sightline" / "commands").glob("*.py"),
    *(ROOT / "callbacks/commands").glob("*.py"),
]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_private_part_of_a_library_is_used(path: Path):
    """Names with an underscore are the module's own: methods on self, functions of the file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            assert isinstance(node.value, ast.Name), ast.unparse(node)
            assert node.value.id == "self", ast.unparse(node)
            assert f"def {node.attr}(" in path.read_text(), ast.unparse(node)
        if isinstance(node, ast.ImportFrom):
            assert not any(alias.name.startswith("_") for alias in node.names), ast.unparse(node)


def test_help_marks_what_cannot_run_here(monkeypatch, capsys):
    from sightline.commands import registry
    from sightline.commands.main import build_parser

    assert "[not here" not in build_parser().format_help()
    with monkeypatch.context() as patch:
        patch.setattr(registry.importlib.util, "find_spec", lambda name: None if name == "wandb" else object())
        told = " ".join(build_parser().format_help().split())
    assert "best weights. [not here: needs wandb, see CONTRIBUTING.md]" in told
    monkeypatch.setattr(registry, "CHECKOUT_ENTRIES", ("nothing",))
    told = " ".join(build_parser().format_help().split())
    marked = [name for name, command in registry.COMMANDS.items() if registry.what_is_lacking(command)]
    training = ["fit", "validate", "test", "ablate", "prune", "tokens", "attribute", "explain"]
    assert marked == ["check-data", "preview", *training]
    assert told.count("[not here: needs the Sightline repository]") == len(marked)


def test_what_nobody_can_act_on_is_not_printed(tiny_config, tmp_path):
    """A whole fit with W&B, in a process of its own: what is printed is ours alone."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("WANDB")}
    command = [sys.executable, "train.py", "fit", "--config", str(tiny_config), "--run", str(tmp_path / "r")]
    options = ["--trainer.callbacks", "null", "--trainer.max_epochs", "1", "--wandb.mode", "offline"]
    done = subprocess.run([*command, *options], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    table = ("Data: 2 classes", " split ", " ────", " train ", " val ", " test ", "Splits: every clip")
    known = ("W&B: offline, in", *table, "Model: video_swin_demo", "Epoch   1/1  loss")
    verdict = next(number for number, line in enumerate(lines) if line.startswith("Verdict: "))
    lines, ending = lines[:verdict], lines[verdict:]
    assert [line for line in lines if not line.startswith(known)] == []
    assert len(lines) <= len(known)
    assert len(ending) <= 15, ending
    assert (tmp_path / "r" / "wandb").is_dir()
