"""The commands of the trainer: fit, validate, test, predict, ablate, prune and explain, with one folder per run."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger

from callbacks import RunCheckpoint, RunRecords, SegmentResults
from callbacks.conclusion import conclude
from callbacks.run_trainer import RunTrainer
from callbacks.wandb_logger import WandbOptions, wandb_logger
from datamodules import ClipDataModule
from lightning_modules import VideoClassifier
from lightning_modules.checkpoint_io import SafeCheckpointIO
from sightline.checkpoints.trained import trained_checkpoint
from sightline.commands.options import usage_name
from sightline.commands.registry import COMMANDS
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

# Arguments of the trainer's methods that are not options: the command line builds them, or they have another use.
_BUILT = {"model", "datamodule", "dataloaders", "train_dataloaders", "val_dataloaders", "weights_only"}


def run(name: str, arguments: list[str]) -> None:
    """Run a command of the trainer."""
    given_folder = os.environ.get(VARIABLE)
    # The command line prints all messages already; Lightning's own handler would print its own a second time.
    logging.getLogger("lightning").handlers.clear()
    try:
        RunCLI(name, arguments).execute()
    finally:
        if given_folder is None:  # the next run of this process has a folder of its own
            os.environ.pop(VARIABLE, None)


class RunCLI(LightningCLI):
    """LightningCLI for one command, with one folder per run.

    It is told not to run a subcommand: it parses and builds what `execute` then runs. So only the options of the one
    command are made.
    """

    def __init__(self, command: str, arguments: list[str]) -> None:
        """Parse the arguments and build data, model and trainer.

        Args:
            command: The command, which is a method of `RunTrainer`.
            arguments: What stands behind the command's name.
        """
        self.command = command
        self.given = arguments
        super().__init__(
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
            parser_kwargs={"prog": usage_name(command), "description": COMMANDS[command].summary},
            # --run of a finished run stands for its configuration
            args=expand_run([command, *arguments])[1:],
            run=False,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add what a run is besides model, data and trainer, and the command's own options."""
        parser.add_argument("--run", type=str, default=None, help="The run's folder; fit makes it, the others read it.")
        parser.add_argument(
            "--replace_run", type=bool, default=False, help="fit: delete an earlier run of this folder, not number it."
        )
        parser.add_class_arguments(WandbOptions, "wandb")
        parser.add_lightning_class_args(RunCheckpoint, "checkpoint")
        parser.set_defaults({"model": {"class_path": "lightning_modules.VideoClassifier"}})
        for name in ("num_classes", "class_names", "frames", "size"):
            parser.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")
        self.options = parser.add_method_arguments(RunTrainer, self.command, skip=_BUILT)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse what was given; without Lightning's warning that it does not come from ``sys.argv``."""
        self.config = parser.parse_args(args)

    def before_instantiate_classes(self) -> None:
        """Choose the run's folder and, after a fit, its best weights."""
        config = self.config
        self.folder: Path | None = None
        self.wanted = Path(config.run or default_run_folder(config.data.class_path, config.model.init_args.backbone))
        origin = Path(config.ckpt_path).parent.parent if config.ckpt_path else None
        if self.command == "fit":
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
                    f"{self.command} needs trained weights: pass --run with a run's folder, or --ckpt_path."
                )
            config.ckpt_path = str(trained_checkpoint(RunFolder(self.folder)))

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """Give the trainer the run's folder, its loggers and safe reading of checkpoints."""
        # Only now: a wrong configuration has failed by here and leaves no folder behind.
        config = self.config
        quick = bool(config.trainer.fast_dev_run)
        if quick:
            # A quick check (fast_dev_run) writes a checkpoint all the same; no run loses its own to that.
            self.folder = Path(tempfile.mkdtemp(prefix="sightline-quick-"))
        elif self.folder is None:
            self.folder = claim_run_folder(self.wanted, bool(config.replace_run))
            self._save_config(self.folder)
        if not quick and launched_rank(os.environ) == 0:
            record_command(self.folder, [self.command, *self.given])
        init = self.config_init["trainer"]
        kwargs["default_root_dir"] = str(self.folder)
        if init.get("logger") is None and not quick:
            # A CSVLogger begins its file anew, so only a fit has one: later commands keep the curves.
            tables = str(RunFolder(self.folder).tables)
            curves = CSVLogger(tables, name="", version="") if self.command == "fit" else None
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
        config = self.config.clone()
        for option in self.options:  # of this command alone
            config.pop(option, None)
        config["ckpt_path"] = None  # what this run began from is not what later commands look at
        config["run"] = str(folder)
        config["replace_run"] = False
        text = self.parser.dump(config, skip_unset=False, skip_validation=True)
        write_text(RunFolder(folder).config, text)

    def execute(self) -> None:
        """Run the command."""
        options = {name: self.config_init[name] for name in self.options}
        getattr(self.trainer, self.command)(model=self.model, datamodule=self.datamodule, **options)
        if self.trainer.is_global_zero and not self.config.trainer.fast_dev_run:
            assert self.folder is not None
            conclude(self.command, self.folder, self.trainer.callbacks)  # type: ignore[attr-defined]
