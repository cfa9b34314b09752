"""The commands on data alone, for which no model and no trainer are built: ``check-data`` and ``preview``."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jsonargparse import SUPPRESS, ActionConfigFile
from lightning.pytorch.cli import LightningArgumentParser

from callbacks.preview import preview
from datamodules import ClipDataModule
from datamodules.data_check import check_data
from sightline.commands.options import explanation, usage_name
from sightline.run.folder import expand_run
from sightline.run.paths import RunFolder

# What a run's configuration says beyond the data does not matter to these commands.
OTHER_SECTIONS = ("seed_everything", "trainer", "model", "replace_run", "wandb", "checkpoint", "ckpt_path")
_GIVEN = {"data", "folder"}


def run_check_data(name: str, arguments: list[str]) -> int:
    """Run ``check-data``; return its exit code."""
    return _run(check_data, lambda run: run.tables, name, arguments)


def run_preview(name: str, arguments: list[str]) -> int:
    """Run ``preview``; return its exit code."""
    return _run(preview, lambda run: run.figures, name, arguments)


def _run(
    function: Callable[..., int | None], results: Callable[[RunFolder], Path], name: str, arguments: list[str]
) -> int:
    """Call a function of a data module and of a folder for its results: that of the run, where one is named."""
    parser = LightningArgumentParser(prog=usage_name(name), description=explanation(function))
    parser.add_argument("-c", "--config", action=ActionConfigFile, help="A configuration, whose data is taken.")
    parser.add_lightning_class_args(ClipDataModule, "data", subclass_mode=True)
    parser.add_argument("--run", type=str, default=None, help="A run's folder, whose data is taken.")
    parser.add_function_arguments(function, as_group=False, skip=set(_GIVEN))
    for section in OTHER_SECTIONS:
        parser.add_argument(f"--{section}", type=Any, default=None, help=SUPPRESS)
    config = parser.parse_args(expand_run([name, *arguments])[1:])
    data = parser.instantiate_classes(config).data
    folder = results(RunFolder(Path(config.run))) if config.run else Path()
    options = {key: config[key] for key in inspect.signature(function).parameters if key not in _GIVEN}
    try:
        return int(bool(function(data, folder=folder, **options)))
    except KeyboardInterrupt:
        print("Interrupted: nothing was written.", file=sys.stderr)
        return 130
