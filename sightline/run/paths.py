"""Where everything lies in a run's folder. Nobody else spells these paths.

config.yaml  splits.csv  provenance.json  kernels.json  report.html
checkpoints/   best.ckpt  last.ckpt
tables/        <name>.csv  predictions/<model>.csv
figures/       <name>.png  <name>.svg
attention/     index.json  <clip>_<kind>.png  <clip>_<kind>.mp4  pointing_<split>.parquet  attribution_<split>.parquet
relevance/     <split>/ (see `RelevanceFolder`)
pruned/        <plan_id>/ (an exported model, see `sightline.export`)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# What says how to build an exported model. Here, so that a report finds them without what reads them (and PyTorch).
DESCRIPTION = "model.json"
# What the unpruned model's predictions are called where every frame of a clip is its middle one.
ONE_FRAME = "one-frame"
# Where predictions with token reductions that are compared lie, apart from those of exported models with the same plan.
TOKEN_PREDICTIONS = "tokens"


@dataclass(frozen=True)
class RelevanceFolder:
    """The scores of one split, ``relevance/<split>``; or those of a model without some layers, deeper within.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def manifest(self) -> Path:
        """What the score tables were made from, and which samples were left out."""
        return self.path / "manifest.json"

    @property
    def baselines(self) -> Path:
        """Scores of layers by other means than relevance."""
        return self.path / "baselines.json"

    def scores(self, kind: str) -> Path:
        """Return the finished score table of ``heads`` or ``layers``."""
        return self.path / f"{kind}.parquet"

    def parts(self, kind: str) -> Path:
        """Return the folder of the parts of an unfinished score table."""
        return self.path / f"{kind}.parts"

    def without(self, layers: Sequence[int]) -> RelevanceFolder:
        """Return the scores of the model without these layers, as greedy pruning makes them."""
        return RelevanceFolder(self.path / "greedy" / f"without-{'-'.join(map(str, layers))}")


@dataclass(frozen=True)
class RunFolder:
    """A run's folder.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def config(self) -> Path:
        """The configuration, from which every later command starts; a folder without it is no run's."""
        return self.path / "config.yaml"

    @property
    def splits(self) -> Path:
        """Every clip with its class, group and split."""
        return self.path / "splits.csv"

    @property
    def provenance(self) -> Path:
        """Which commands ran, when, and with which versions."""
        return self.path / "provenance.json"

    @property
    def kernels(self) -> Path:
        """Which kernels run linear layers, by machine."""
        return self.path / "kernels.json"

    @property
    def report(self) -> Path:
        """The HTML report."""
        return self.path / "report.html"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def best_checkpoint(self) -> Path:
        """The weights with the best validation accuracy."""
        return self.checkpoints / "best.ckpt"

    @property
    def last_checkpoint(self) -> Path:
        """The weights after the last epoch, with what training needs to go on."""
        return self.checkpoints / "last.ckpt"

    @property
    def tables(self) -> Path:
        """The folder of tables."""
        return self.path / "tables"

    def table(self, name: str) -> Path:
        """Return a table by its name, without suffix."""
        return self.tables / f"{name}.csv"

    @property
    def curves(self) -> Path:
        """Losses and accuracies, one row per epoch; epochs count from 1."""
        return self.table("curves")

    @property
    def wandb(self) -> Path:
        """The folder of W&B's own files."""
        return self.path / "wandb"

    @property
    def pruning_table(self) -> Path:
        """The tested models, one row each."""
        return self.table("pruning")

    def unreadable(self, command: str) -> Path:
        """Return the list of clips that a command could not read."""
        return self.table("unreadable" if command == "fit" else f"unreadable-{command}")

    @property
    def predictions_folder(self) -> Path:
        """The folder of what models predicted."""
        return self.tables / "predictions"

    def predictions(self, model: str) -> Path:
        """Return what a model predicted, clip by clip; models are called by their plan."""
        return self.predictions_folder / f"{model}.csv"

    @property
    def token_predictions(self) -> Path:
        """The folder of what the model predicted with fewer tokens, and of the record of these tests."""
        return self.predictions_folder / TOKEN_PREDICTIONS

    @property
    def token_record(self) -> Path:
        """Which tests with fewer tokens are finished, and of which weights and data."""
        return self.token_predictions / "tested.json"

    @property
    def figures(self) -> Path:
        """The folder of figures."""
        return self.path / "figures"

    @property
    def attention(self) -> Path:
        """The folder of pictures and videos of what heads look at."""
        return self.path / "attention"

    @property
    def captions(self) -> Path:
        """The captions of the pictures and videos in `attention`."""
        return self.attention / "index.json"

    def attribution(self, split: str) -> Path:
        """Return the scores of attribution methods on a split, by clip, method and metric."""
        return self.attention / f"attribution_{split}.parquet"

    def pointing(self, split: str) -> Path:
        """Return the pointing scores of a split, by clip, head and target."""
        return self.attention / f"pointing_{split}.parquet"

    @property
    def relevance_folder(self) -> Path:
        """The folder of the scores of all splits."""
        return self.path / "relevance"

    def relevance(self, split: str) -> RelevanceFolder:
        """Return where the scores of a split are."""
        return RelevanceFolder(self.relevance_folder / split)

    def scored_splits(self) -> list[str]:
        """Return the names of the splits that have scores, in alphabetical order."""
        found = sorted(path.name for path in self.relevance_folder.glob("*"))
        return [split for split in found if self.relevance(split).manifest.is_file()]

    @property
    def pruned_folder(self) -> Path:
        """The folder of exported models."""
        return self.path / "pruned"

    def pruned(self, plan_id: str) -> Path:
        """Return the folder of an exported model."""
        return self.pruned_folder / plan_id
