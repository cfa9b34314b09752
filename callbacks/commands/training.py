"""The commands of the trainer, fit, validate, test, predict and those that analyse a run, with one folder per run."""

from __future__ import annotations

import atexit
import json
import logging
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from callbacks import RunCheckpoint, RunRecords, SegmentResults
from callbacks.analysis import Analysis
from callbacks.commands.conclusion import conclude
from callbacks.curves_logger import CurvesLogger
from callbacks.progress_bar import EpochBar
from callbacks.quiet import be_quiet
from callbacks.run_trainer import RunTrainer
from callbacks.wandb_logger import CarefulWandbLogger, WandbOptions, wandb_logger
from datamodules import ClipDataModule
from lightning_modules import VideoClassifier
from lightning_modules.checkpoint_io import SafeCheckpointIO, check_resumable
from sightline.checkpoints.trained import trained_checkpoint
from sightline.commands.options import take_nested, usage_name
from sightline.commands.registry import COMMANDS
from sightline.pruning.targets import UnmetTargetsError
from sightline.run.atomic import write_text
from sightline.run.folder import (
    VARIABLE,
    Claim,
    claim_run_folder,
    default_run_folder,
    expand_run,
    holds_results,
    is_run_folder,
    launched_rank,
)
from sightline.run.paths import RunFolder
from sightline.run.provenance import record_command
from sightline.run.unfinished import clean_tree
from sightline.tokens import TokenReduction

# Arguments of the trainer's methods that are not options: the command line builds them, or they have another use.
_BUILT = {"model", "datamodule", "dataloaders", "train_dataloaders", "val_dataloaders", "weights_only"}


def run(name: str, arguments: list[str]) -> None:
    """Run a command of the trainer."""
    given_folder = os.environ.get(VARIABLE)
    # The command line prints all messages already; Lightning's own handler would print its own a second time.
    logging.getLogger("lightning").handlers.clear()
    be_quiet()
    try:
        # explain has an option of its own; every other command means the model.
        RunCLI(name, with_tokens(arguments, "--tokens" if name == "explain" else "--model.tokens")).execute()
    finally:
        if given_folder is None:  # the next run of this process has a folder of its own
            os.environ.pop(VARIABLE, None)


def with_tokens(arguments: list[str], option: str = "--tokens") -> list[str]:
    """Return arguments in which ``--tokens NAME --tokens.OPTION VALUE`` is one JSON object, of an option of this name.

    Raises:
        ValueError: If name or options are unknown, or there are options without a name.
    """
    options, others = take_nested("tokens", arguments)
    words: list[str] = []
    for word in others:
        words += ["--tokens", word.removeprefix("--tokens=")] if word.startswith("--tokens=") else [word]
    if "--tokens" not in words:
        if options:
            raise ValueError(
                f"--tokens.{next(iter(options))} is an option of a token reduction: name one with --tokens NAME."
            )
        return arguments
    at = words.index("--tokens") + 1
    if at == len(words):
        raise ValueError("Expected the name of a token reduction behind --tokens, got none.")
    if not words[at].lstrip().startswith("{") or options:
        words[at] = json.dumps(TokenReduction.from_text(words[at], options).plain())
    words[at - 1] = option
    return words


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
        self.claim: Claim | None = None
        self.resumed_epochs = 0
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
        config = self.config
        quick = bool(config.trainer.fast_dev_run)
        self._check_start()
        # Only now: what is wrong with data, weights or options has been said by here, and leaves no folder behind.
        if quick:
            # A quick check (fast_dev_run) writes a checkpoint all the same; no run loses its own to that.
            self.folder = Path(tempfile.mkdtemp(prefix="sightline-quick-"))
            atexit.register(shutil.rmtree, self.folder, ignore_errors=True)
        elif self.folder is None:
            self.claim = claim_run_folder(self.wanted, bool(config.replace_run))
            self.folder = self.claim.path
        try:
            return self._make_trainer(self.folder, quick, kwargs)
        except BaseException:
            self._give_back()
            raise

    def _check_start(self) -> None:
        """Raise ValueError where what was asked for cannot begin."""
        checkpoint, resumes = self.config.ckpt_path, self.config.ckpt_path is not None
        if resumes and (self.command == "fit" or self.folder is None):
            content = SafeCheckpointIO().load_checkpoint(checkpoint)
            if self.command == "fit":
                check_resumable(content, checkpoint)
                self.resumed_epochs = int(content["epoch"]) + 1
            self.model.on_load_checkpoint(content)
        self.model.begin(self.command, resumes)
        if self.command == "fit":
            for callback in self._callbacks():
                if isinstance(callback, Analysis):
                    callback.check(self.model)

    def _callbacks(self) -> list[L.Callback]:
        given = self.config_init["trainer"].get("callbacks") or []
        return list(given) if isinstance(given, list) else [given]

    def _make_trainer(self, folder: Path, quick: bool, kwargs: dict[str, Any]) -> L.Trainer:
        config, init = self.config, self.config_init["trainer"]
        if not quick and launched_rank(os.environ) == 0:
            folder.mkdir(parents=True, exist_ok=True)
            clean_tree(folder)
            if self.claim is not None:
                self._save_config(folder)
            record_command(folder, [self.command, *self.given])
        kwargs["default_root_dir"] = str(folder)
        if init.get("logger") is None:
            wandb = None if quick else wandb_logger(config.wandb, folder)
            kwargs["logger"] = [] if wandb is None else [wandb]
        callbacks = self._callbacks()
        if init.get("enable_progress_bar") is None:
            # A bar that cannot be redrawn fills a log; there a line per epoch says enough.
            kwargs["enable_progress_bar"] = sys.stderr.isatty()
        if kwargs.get("enable_progress_bar", init.get("enable_progress_bar")) and not any(
            isinstance(callback, ProgressBar) for callback in callbacks
        ):
            init["callbacks"] = [*callbacks, EpochBar()]
        plugins = init.get("plugins") or []
        kwargs["plugins"] = [*(plugins if isinstance(plugins, list) else [plugins]), SafeCheckpointIO()]
        trainer = super().instantiate_trainer(**kwargs)
        if self.command == "fit" and not quick:
            # Whatever loggers were asked for, and also where none was.
            curves = CurvesLogger(RunFolder(folder).curves, self.resumed_epochs)
            trainer.loggers = [*trainer.loggers, curves]
        return trainer

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
        try:
            getattr(self.trainer, self.command)(model=self.model, datamodule=self.datamodule, **options)
        except UnmetTargetsError:
            self._conclude()
            # Launchers end all processes when the first one fails, also one that is writing the report.
            self.trainer.strategy.barrier("concluded")
            raise
        except BaseException:
            self._give_back()
            raise
        if self.claim is not None:
            self.claim.keep()
        self._conclude()

    def _conclude(self) -> None:
        if self.trainer.is_global_zero and not self.config.trainer.fast_dev_run:
            assert self.folder is not None
            conclude(self.command, self.folder, self.trainer.callbacks)  # type: ignore[attr-defined]

    def _give_back(self) -> None:
        """After a failure, delete the folder of a new run in which nothing is yet."""
        if self.claim is None:
            return
        for logger in getattr(getattr(self, "trainer", None), "loggers", ()):
            if isinstance(logger, CarefulWandbLogger) and not holds_results(self.claim.path):
                logger.abandon()
        self.claim.give_back()
