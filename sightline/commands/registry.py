"""The commands. A command registers here and nowhere else, and its code is imported only when it is chosen."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import sightline

# Called with the command's name and the arguments behind it; returns the exit code, or None where a process that called
# the command in Python goes on when it has finished.
Function = Callable[[str, list[str]], int | None]

# What fits and analyses models stands beside the package in the repository and is not part of an installed wheel.
CHECKOUT_ENTRIES = ("pyproject.toml", "train.py", "callbacks")
TRAINING = "callbacks.commands.training:run"
TRAINING_PACKAGES = ("lightning", "torchmetrics", "wandb")


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        summary: What it does, in one line.
        function: ``module:function``, see `Function`.
        error_code: The exit code where it cannot do what it was asked for.
    """

    summary: str
    function: str
    error_code: int = 1


COMMANDS: dict[str, Command] = {
    "check-data": Command(
        "Open and decode every clip of every split, and list what is wrong; exit code 1 if anything is.",
        "callbacks.commands.data:run_check_data",
        error_code=2,
    ),
    "preview": Command(
        "Draw clips of a training batch and of an evaluation batch as the model sees them, with their labels.",
        "callbacks.commands.data:run_preview",
    ),
    "fit": Command("Train a model, and run the callbacks of the configuration on its best weights.", TRAINING),
    "validate": Command("Measure a model on the validation clips.", TRAINING),
    "test": Command("Measure a model on the test clips.", TRAINING),
    "predict": Command(
        "Classify the test clips, or video files with an exported model (--exported).", "sightline.commands.predict:run"
    ),
    "ablate": Command("Score every head and layer of a trained model on a split, and draw the scores.", TRAINING),
    "prune": Command(
        "Export pruned models from a run's scores on the training clips, and test each of them.", TRAINING
    ),
    "tokens": Command(
        "Test a trained model with token reductions at equal shares of kept tokens, without training.", TRAINING
    ),
    "attribute": Command(
        "Measure how right attribution methods are on a trained model, by one yardstick and beside controls.", TRAINING
    ),
    "explain": Command("Show and measure what the heads of a trained model look at.", TRAINING),
    "report": Command(
        "Write one HTML file that shows all results of a run, and print the verdict that it opens with.",
        "sightline.commands.report:run",
    ),
    "compare": Command(
        "Compare the pruned models of several runs: averages and spread over seeds, one section per backbone.",
        "sightline.commands.compare:run",
    ),
    "cost": Command(
        "Count parameters and multiply-adds of a backbone, whole and with layers removed or fewer tokens.",
        "sightline.commands.cost:run",
        error_code=2,
    ),
}


def load_function(target: str, name: str) -> Function:
    """Import a command's function.

    Args:
        target: ``module:function``.
        name: The command's name.

    Raises:
        ValueError: If it needs the training code and that, or a package that it needs, is not there.
    """
    module, _, function = target.partition(":")
    if module.startswith("sightline."):
        return getattr(importlib.import_module(module), function)
    _find_training_code(name)
    try:
        return getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in ("sightline", "callbacks", "datamodules"):
            raise
        raise ValueError(
            f"{name} needs the package {error.name}, which is not installed. Install what training needs: "
            "pip install -e '.[train]' in the Sightline repository."
        ) from error


def what_is_lacking(command: Command) -> str:
    """Say what a command needs that is not here; empty where it can run."""
    if command.function.startswith("sightline."):
        return ""
    if not _is_checkout():
        return "not here: needs the Sightline repository"
    missing = [name for name in TRAINING_PACKAGES if importlib.util.find_spec(name) is None]
    return f"not here: needs {', '.join(missing)}, see CONTRIBUTING.md" if missing else ""


def _is_checkout() -> bool:
    return all((Path(sightline.__file__).resolve().parents[1] / entry).exists() for entry in CHECKOUT_ENTRIES)


def _find_training_code(name: str) -> None:
    """Let the training code beside this package be imported, before anything else of the same name."""
    root = Path(sightline.__file__).resolve().parents[1]
    if not _is_checkout():
        raise ValueError(
            f"{name} needs the training code, which the installed package does not contain. Run it in the Sightline "
            f"repository: python train.py {name} ..."
        )
    if sys.path[:1] != [str(root)]:
        sys.path.insert(0, str(root))
