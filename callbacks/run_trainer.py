"""The Trainer whose further methods analyse a trained model: ablate, prune, tokens, attribute and explain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import lightning as L

from callbacks.ablation import HeadAblation, LayerAblation
from callbacks.analysis import Analysis, Sampling, make_context, ranks_of, settle_kernels_of
from callbacks.attribution.comparison import AttributionComparison
from callbacks.galleries.attention import AttentionGallery
from callbacks.galleries.tokens import TokenGallery
from callbacks.pointing_game import PointingGame
from callbacks.pruned_checkpoints import PrunedCheckpoints
from callbacks.relevance_boxplots import RelevanceBoxplots
from callbacks.tokens.comparison import TokenComparison
from datamodules import ClipDataModule
from lightning_modules import VideoClassifier
from sightline.relevance.race_settings import RaceSettings
from sightline.run.paths import RunFolder

# What runs where a run's configuration names no such callback.
DEFAULT_ANALYSES: dict[str, list[Callable[[], Analysis]]] = {
    "ablate": [HeadAblation, LayerAblation, RelevanceBoxplots],
    "prune": [PrunedCheckpoints],
    "tokens": [TokenComparison],
    "attribute": [AttributionComparison],
    "explain": [AttentionGallery, partial(PointingGame, skip_unknown=True), partial(TokenGallery, skip_without=True)],
}
Split = Literal["train", "val", "test"]


class RunTrainer(L.Trainer):
    """A Trainer that can also analyse a trained model without training it again."""

    def ablate(
        self,
        model: VideoClassifier,
        datamodule: ClipDataModule,
        ckpt_path: str | None = None,
        split: Split = "train",
        overwrite: bool = False,
        sampling: Sampling | None = None,
        race: RaceSettings = RaceSettings(),  # noqa: B008 - frozen; jsonargparse makes options of its fields
    ) -> None:
        """Score every head and layer of a trained model on a split, and draw the scores.

        Args:
            model: The classifier.
            datamodule: The data.
            ckpt_path: The weights; the run's best if not given.
            split: The clips to score on. The training clips decide what is pruned.
            overwrite: Replace scores that were made from other weights or data.
            sampling: Every unit on every clip (full), or only until it is settled which units are least and most
                relevant (racing; docs/relevance.md says how surely). As configured, full by default, if not given.
            race: What racing shall settle, and how surely.
        """
        self._analyse("ablate", model, datamodule, ckpt_path, split, overwrite, sampling, race)

    def prune(
        self,
        model: VideoClassifier,
        datamodule: ClipDataModule,
        ckpt_path: str | None = None,
    ) -> None:
        """Export pruned models from a run's scores on the training clips, and test each of them.

        Args:
            model: The classifier.
            datamodule: The data.
            ckpt_path: The weights; the run's best if not given.
        """
        self._analyse("prune", model, datamodule, ckpt_path, "train")

    def tokens(
        self,
        model: VideoClassifier,
        datamodule: ClipDataModule,
        ckpt_path: str | None = None,
        methods: list[str | dict[str, Any]] | None = None,
        kept: list[float] | None = None,
    ) -> None:
        """Test a trained model with token reductions at equal shares of kept tokens, without training.

        Args:
            model: The classifier.
            datamodule: The data.
            ckpt_path: The weights; the run's best if not given.
            methods: Token reductions by name, e.g. [random], with options as random:layer=2 or {name: random, options:
                {layer: 2}}. As configured, by default all that work with the model, if not given.
            kept: Shares of the tokens to keep, e.g. [0.9,0.5]. As configured, if not given.
        """
        steps = self._steps("tokens")
        for step in steps:
            if isinstance(step, TokenComparison):
                step.override(methods, kept)
        self._analyse("tokens", model, datamodule, ckpt_path, "test", steps=steps)

    def attribute(
        self,
        model: VideoClassifier,
        datamodule: ClipDataModule,
        ckpt_path: str | None = None,
        split: Split = "test",
        methods: list[str | dict[str, Any]] | None = None,
        metrics: list[str] | None = None,
        clips: int | None = None,
    ) -> None:
        """Measure how right attribution methods are on a trained model, by one yardstick and beside controls.

        Args:
            model: The classifier.
            datamodule: The data.
            ckpt_path: The weights; the run's best if not given.
            split: The clips to measure on.
            methods: Methods by name, e.g. [staa,chefer], with options as staa:lam=1.5. As configured, by default all
                that work with the model in a pass or a few, and the controls, if not given.
            metrics: Groups of metrics, e.g. [removal,localisation]. As configured, if not given.
            clips: How many clips, spread evenly over the split. As configured, if not given.
        """
        steps = self._steps("attribute")
        for step in steps:
            if isinstance(step, AttributionComparison):
                step.override(methods, metrics, clips)
        self._analyse("attribute", model, datamodule, ckpt_path, split, steps=steps)

    def explain(
        self,
        model: VideoClassifier,
        datamodule: ClipDataModule,
        ckpt_path: str | None = None,
        split: Split = "test",
        tokens: dict[str, Any] | None = None,
        video: str | None = None,
    ) -> None:
        """Show and measure what the heads of a trained model look at, and which tokens a token reduction keeps.

        Args:
            model: The classifier.
            datamodule: The data.
            ckpt_path: The weights; the run's best if not given.
            split: The clips to look at.
            tokens: Draw only which tokens this token reduction keeps; --tokens random --tokens.kept 0.5 for short. By
                default also those of the reductions that were compared, and of exported models with fewer tokens.
            video: Draw which tokens are kept of this video file, instead of the split's clips.
        """
        steps = self._steps("explain")
        if tokens is not None or video is not None:
            gallery = next((s for s in steps if isinstance(s, TokenGallery)), TokenGallery())
            gallery = gallery if tokens is None else gallery.only(tokens)
            steps = [gallery if video is None else gallery.of_video(video)]
        self._analyse("explain", model, datamodule, ckpt_path, split, steps=steps)

    def _steps(self, command: str) -> list[Analysis]:
        """Return what a command runs: the callbacks of the configuration that belong to it, else its defaults."""
        found = [c for c in self.callbacks if isinstance(c, Analysis) and c.command == command]  # type: ignore[attr-defined]
        return found or [make() for make in DEFAULT_ANALYSES[command]]

    def _analyse(
        self,
        command: str,
        model: VideoClassifier,
        datamodule: ClipDataModule,
        ckpt_path: str | None,
        split: str,
        overwrite: bool = False,
        sampling: Sampling | None = None,
        race: RaceSettings | None = None,
        steps: Sequence[Analysis] | None = None,
    ) -> None:
        steps = self._steps(command) if steps is None else steps

        def work() -> None:
            self.strategy.setup_environment()
            prepare = datamodule.prepare_data if self.local_rank == 0 else lambda: None
            ranks_of(self).together(prepare)
            settle_kernels_of(self)
            folder = Path(self.default_root_dir)
            record = RunFolder(folder).unreadable(command)
            ranks_of(self).together(lambda: datamodule.record_bad_clips(record, self.global_rank))
            context = make_context(self, model, folder, datamodule, ckpt_path, split, overwrite, sampling, race)
            chosen = _able(steps, model, self.callbacks)  # type: ignore[attr-defined]
            for step in chosen:
                step.check(model)
            for step in chosen:
                step.analyse(context)
            datamodule.report_bad_clips()
            for logger in self.loggers:
                logger.finalize("success")
            self.strategy.barrier("done")

        launcher = self.strategy.launcher
        if launcher is None:
            work()
        else:
            launcher.launch(work, trainer=self)


def _able(steps: Sequence[Analysis], module: VideoClassifier, configured: Sequence[L.Callback]) -> Sequence[Analysis]:
    """Leave out steps that nobody asked for and that cannot work on a model with fewer tokens, if others are left."""
    found = [step for step in steps if module.tokens is None or step.takes_tokens or step in configured]
    return found or steps
