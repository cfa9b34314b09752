"""Sightline's command line: fine-tune, test, ablate and prune video transformers.

python train.py fit --config configs/demo.yaml
python train.py ablate --run runs/demo --split test
python train.py prune --run runs/demo
python train.py explain --run runs/demo
python train.py test --run runs/demo --ckpt_path runs/demo/pruned/relevance-r-lowest-k2/model.ckpt
python train.py predict --exported runs/demo/pruned/relevance-r-lowest-k2 --video a.mp4 b.mp4
python train.py check-data --config configs/demo.yaml
python train.py preview --config configs/demo.yaml
python train.py report --run runs/demo
python train.py compare --runs runs/seed0 runs/seed1 runs/seed2 --out runs/comparison
"""

from __future__ import annotations

import inspect
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# Threads that spin while they wait for each other slow everything down many times where other programs use the cores as
# well: an epoch of the demo took 145 s instead of 19. OpenMP reads this once, when PyTorch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import lightning as L
from jsonargparse import SUPPRESS
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger

from callbacks import RunCheckpoint, RunRecords, SegmentResults
from callbacks.preview import preview
from callbacks.report import report, report_command
from callbacks.run_trainer import DEFAULT_ANALYSES, RunTrainer
from callbacks.wandb_logger import WandbOptions, wandb_logger
from datamodules import ClipDataModule
from datamodules.bad_clips import TooManyBadClipsError
from datamodules.data_check import check_data
from lightning_modules import VideoClassifier
from lightning_modules.checkpoint_io import SafeCheckpointIO
from sightline.checkpoints.trained import trained_checkpoint
from sightline.commands.predict_files import predict_command
from sightline.report.comparison.compare import compare_runs
from sightline.run.atomic import write_text
from sightline.run.folder import (
    VARIABLE,
    claim_run_folder,
    default_run_folder,
    expand_run,
    is_run_folder,
    keep_curves,
    launched_rank,
)
from sightline.run.paths import RunFolder
from sightline.run.provenance import record_command

# Commands that need neither a model nor a trainer: functions of the data, and which of a run's folders results go to.
DATA_COMMANDS: dict[str, tuple[Callable[..., int | None], str]] = {
    "check-data": (check_data, "tables"),
    "preview": (preview, "figures"),
}
_GIVEN = {"data", "folder"}


class RunCLI(LightningCLI):
    """LightningCLI with one folder per run."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Return the subcommands and the arguments that are not options."""
        standard = {name: skip | {"weights_only"} for name, skip in LightningCLI.subcommands().items()}
        return {**standard, **{name: {"model", "datamodule"} for name in DEFAULT_ANALYSES}}

    def _add_subcommands(self, parser: LightningArgumentParser, **kwargs: Any) -> None:
        """Add the commands on data alone; what a run's configuration says beyond the data does not matter to them."""
        super()._add_subcommands(parser, **kwargs)
        self._subcommand_parsers["predict"].add_argument(
            "--exported",
            type=str | None,
            default=None,
            help="An exported model's folder: classify video files instead, see predict --exported FOLDER --help.",
        )
        subcommands: Any = next(action for action in parser._actions if action.dest == "subcommand")
        for name, (function, _) in DATA_COMMANDS.items():
            explanation = (function.__doc__ or "").partition("Args:")[0]
            command = self.init_parser(description=explanation)
            command.add_lightning_class_args(ClipDataModule, "data", subclass_mode=True)
            command.add_argument("--run", type=str, default=None, help="A run's folder, whose data is taken.")
            command.add_function_arguments(function, as_group=False, skip=set(_GIVEN))
            known, of_fit = (
                {action.dest.partition(".")[0] for action in parser_._actions}
                for parser_ in (command, self._parser("fit"))
            )
            for other in sorted(of_fit - known):
                command.add_argument(f"--{other}", type=Any, default=None, help=SUPPRESS)
            subcommands.add_subcommand(name, command, help=explanation.partition("\n")[0])
            self._subcommand_parsers[name] = command
        # Listed here, but run by `main`, as it needs no configuration.
        subcommands.add_subcommand("report", self.init_parser(), help=(report.__doc__ or "").partition("\n")[0])
        compare = self.init_parser(description=compare_runs.__doc__.partition("Args:")[0])  # type: ignore[union-attr]
        compare.add_argument("--runs", type=str, nargs="+", required=True, help="Folders of finished runs.")
        compare.add_function_arguments(compare_runs, as_group=False, skip={"runs"})
        subcommands.add_subcommand("compare", compare, help="Compare the pruned models of several runs.")
        self._subcommand_parsers["compare"] = compare

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add what a run is besides model, data and trainer."""
        parser.add_argument("--run", type=str, default=None, help="The run's folder; fit makes it, the others read it.")
        parser.add_argument(
            "--replace_run", type=bool, default=False, help="fit: delete an earlier run of this folder, not number it."
        )
        parser.add_class_arguments(WandbOptions, "wandb")
        parser.add_lightning_class_args(RunCheckpoint, "checkpoint")
        parser.set_defaults({"model": {"class_path": "lightning_modules.VideoClassifier"}})
        for name in ("num_classes", "class_names", "frames", "size"):
            parser.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Let ``--run`` of a finished run stand for its configuration; a command on data alone runs here, and ends."""
        self.given = list(sys.argv[1:] if args is None else args)
        self.config = parser.parse_args(expand_run(self.given))
        if self.config.subcommand == "compare":
            compare_runs(self.config.compare.runs, self.config.compare.out)
            sys.exit(0)
        if self.config.subcommand in DATA_COMMANDS:
            sys.exit(self._run_on_data(self.config.subcommand))

    def _run_on_data(self, name: str) -> int:
        """Run a command for which no model and no trainer are built; return its exit code."""
        function, kind = DATA_COMMANDS[name]
        config = self.config[name]
        data = self._parser(name).instantiate(config).data
        folder = getattr(RunFolder(Path(config.run)), kind) if config.run else Path()
        options = {key: config[key] for key in inspect.signature(function).parameters if key not in _GIVEN}
        try:
            return int(bool(function(data, folder=folder, **options)))
        except KeyboardInterrupt:
            print("Interrupted: nothing was written.", file=sys.stderr)
            return 130

    def _parse_ckpt_path(self) -> None:
        """Do nothing: VideoClassifier takes its structure from the checkpoint itself, and says what it replaces."""

    def before_instantiate_classes(self) -> None:
        """Choose the run's folder and, after a fit, its best weights."""
        config = self.config[self.subcommand]
        self.folder: Path | None = None
        self.wanted = Path(config.run or default_run_folder(config.data.class_path, config.model.init_args.backbone))
        origin = Path(config.ckpt_path).parent.parent if config.ckpt_path else None
        if self.subcommand == "fit":
            # Resuming a run goes on in its folder, where its best weights so far are.
            if origin is not None and is_run_folder(origin) and config.run in (None, str(origin)):
                self.folder = origin
                keep_curves(RunFolder(origin))
            return
        if config.run is not None:
            self.folder = Path(config.run)
        elif origin is not None and is_run_folder(origin):
            self.folder = origin
        if config.ckpt_path is None and config.model.init_args.weights is None:
            if self.folder is None:
                raise ValueError(
                    f"{self.subcommand} needs trained weights: pass --run with a run's folder, or --ckpt_path."
                )
            self.config[self.subcommand].ckpt_path = str(trained_checkpoint(RunFolder(self.folder)))

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """Give the trainer the run's folder, its loggers and safe reading of checkpoints."""
        # Only now: a wrong configuration has failed by here and leaves no folder behind.
        config = self.config[self.subcommand]
        quick = bool(config.trainer.fast_dev_run)
        if quick:
            # A quick check (fast_dev_run) writes a checkpoint all the same; no run shall lose its own to that.
            self.folder = Path(tempfile.mkdtemp(prefix="sightline-quick-"))
        elif self.folder is None:
            self.folder = claim_run_folder(self.wanted, bool(config.replace_run))
            self._save_config(self.folder)
        if not quick and launched_rank(os.environ) == 0:
            record_command(self.folder, self.given)
        init = self._get(self.config_init, "trainer")
        kwargs["default_root_dir"] = str(self.folder)
        if init.get("logger") is None and not quick:
            # A CSVLogger begins its file anew, so only a fit has one: later commands keep the curves.
            tables = str(RunFolder(self.folder).tables)
            curves = CSVLogger(tables, name="", version="") if self.subcommand == "fit" else None
            chosen = (curves, wandb_logger(config.wandb, self.folder))
            kwargs["logger"] = [logger for logger in chosen if logger is not None] or False
        if init.get("enable_progress_bar") is None:
            # A bar that cannot be redrawn fills a log; there a line per epoch says enough.
            kwargs["enable_progress_bar"] = sys.stderr.isatty()
        plugins = init.get("plugins") or []
        kwargs["plugins"] = [*(plugins if isinstance(plugins, list) else [plugins]), SafeCheckpointIO()]
        return super().instantiate_trainer(**kwargs)

    def _save_config(self, folder: Path) -> None:
        """Write config.yaml, from which every later command on this run starts."""
        if launched_rank(os.environ) != 0:
            return
        parser = self._parser(self.subcommand)
        config = self.config[self.subcommand].clone()
        config["ckpt_path"] = None  # what this run began from is not what later commands look at
        config["run"] = str(folder)
        config["replace_run"] = False
        for key in ("split", "overwrite", "sampling", "race"):
            config.pop(key, None)
        text = parser.dump(config, skip_unset=False, skip_validation=True)
        write_text(RunFolder(folder).config, text)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; mistakes of the user give one line."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    given_folder = os.environ.get(VARIABLE)
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        if given[:1] == ["predict"] and any(word.partition("=")[0] == "--exported" for word in given):
            sys.exit(predict_command(given[1:]))  # neither a run nor data: nothing of what follows is needed
        if given[:1] == ["report"]:
            sys.exit(report_command(given[1:]))
        RunCLI(
            VideoClassifier,
            ClipDataModule,
            trainer_class=RunTrainer,
            trainer_defaults={
                "use_distributed_sampler": False,
                "enable_model_summary": False,
                "callbacks": [RunRecords(), SegmentResults()],
            },
            seed_everything_default=0,
            save_config_callback=None,
            subclass_mode_model=True,
            subclass_mode_data=True,
            load_from_checkpoint_support=False,
            auto_configure_optimizers=False,
            parser_kwargs={"description": __doc__},
            args=None if arguments is None else list(arguments),
        )
    except (ValueError, FileNotFoundError, TooManyBadClipsError) as error:
        if os.environ.get("SIGHTLINE_TRACEBACK"):
            raise
        message = f"error: {error}\n(SIGHTLINE_TRACEBACK=1 shows where it was raised.)"
        if given[0] == "check-data":  # where 1 means findings
            print(message, file=sys.stderr)
            sys.exit(2)
        sys.exit(message)
    finally:
        if given_folder is None:  # the next run of this process has a folder of its own
            os.environ.pop(VARIABLE, None)


if __name__ == "__main__":
    main()
