"""On a finished run: does what each head attends to lie on hands, objects or faces, and in the action's time?"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import ClassVar, Literal

import pandas as pd
from torch import Tensor

from callbacks.analysis import Analysis, Context
from callbacks.clip_truths import ClipTruths
from callbacks.logging_results import log_results
from sightline.backbones import Backbone
from sightline.backbones.fingerprint import weights_sha256
from sightline.explain.methods import head_maps as maps
from sightline.explain.metrics.pointing_job import point_split
from sightline.relevance.heads import default_ends
from sightline.relevance.table import read_manifest, read_scores
from sightline.report.tables.pointing import (
    pointing_summary,
    pointing_table,
    summary_lines,
    write_pointing_tables,
)
from sightline.statistics.bootstrap import MIN_GROUPS
from sightline.types import Unit


def head_maps(backbone: Backbone, clips: Tensor) -> Iterator[tuple[Unit, Tensor]]:
    """Yield every head of a backbone with its maps (B, T, H, W) of clips (B, 3, T, H, W), on whichever device."""
    device = next(backbone.parameters()).device
    for unit, cells in maps.head_maps(backbone, clips.to(device), backbone.units("heads")).items():
        yield unit, cells.pixels()  # one head's at a time: pixels take far more memory than cells


class PointingGame(Analysis):
    """Holds every head's map against boxes: tables/pointing_<split>.csv and its summary; the same in W&B."""

    command: ClassVar[str] = "explain"

    def __init__(
        self,
        boxes: str | None = None,
        tolerance: float = 0.0,
        early_layers: int | None = None,
        deep_layers: int | None = None,
        score: Literal["r", "jsd", "dprob"] = "r",
        batch_size: int | None = None,
        skip_unknown: bool = False,
    ) -> None:
        """Set up the pointing game.

        Args:
            boxes: CSV of boxes in pixels of the videos (docs/pointing.md); by default those that the data know of
                themselves, which only the synthetic cabin does.
            tolerance: How many pixels of the model's input a map's peak may be away from a box and still be a hit.
            early_layers: How many of the first layers count as early; by default 1 of a TimeSformer, 2 of the others.
            deep_layers: How many of the last layers count as deep, likewise.
            score: What relevance is measured by.
            batch_size: Clips per batch; the data module's if not given.
            skip_unknown: Where no boxes are known of any clip of the split, say so and go on; by default that is an
                error. True in an explain for which nothing is configured.
        """
        if skip_unknown and boxes is not None:
            raise ValueError("skip_unknown is for data without boxes; with boxes given, leave it out.")
        self.skip_unknown = skip_unknown
        self.boxes, self.tolerance = boxes, tolerance
        self.early_layers, self.deep_layers = early_layers, deep_layers
        self.score, self.batch_size = score, batch_size

    def analyse(self, context: Context) -> None:
        truths = ClipTruths(context, self.boxes)
        if not truths.places:
            unknown = f"No boxes are known of any clip of the {context.split} split."
            if not self.skip_unknown:
                raise ValueError(f"{unknown} Give a CSV of boxes for these clips (docs/pointing.md), or another split.")
            if context.ranks.rank == 0:
                print(f"{unknown} The pointing game is left out (docs/pointing.md says how to give boxes).")
            return
        clips = context.data.clips(context.split)
        path = point_split(
            [clips[place].sample_id for place in truths.places],
            lambda at: context.batches(context.split, [truths.places[i] for i in at], self.batch_size),
            truths.of,
            partial(head_maps, context.backbone),
            context.run.pointing(context.split),
            context.ranks,
            self.tolerance,
            {
                "weights_sha256": weights_sha256(context.backbone),
                "data_sha256": context.data.data_hash(context.split),
                "boxes_sha256": None if self.boxes is None else sha256(Path(self.boxes).read_bytes()).hexdigest(),
            },
        )
        context.ranks.together(lambda: self._summarise(context, pd.read_parquet(path)), only_first=True)

    def _summarise(self, context: Context, rows: pd.DataFrame) -> None:
        tables = {"heads": pointing_table(rows)}
        split = _scored_split(context)
        if split is None:
            print(
                "There is no relevance of all heads on all clips to compare with. Score them: train.py ablate "
                "--sampling full."
            )
        else:
            relevance = read_scores(context.run.relevance(split).path, "heads")
            ends = default_ends(context.backbone.end_layers, relevance["layer"].nunique())
            early = ends if self.early_layers is None else self.early_layers
            deep = ends if self.deep_layers is None else self.deep_layers
            summary = pointing_summary(rows, relevance, early, deep, self.score)
            tables["summary"] = summary.assign(relevance_split=split)
        paths = write_pointing_tables(tables, context.run.tables, context.split)
        log_results(context.loggers, {f"pointing_{context.split}/{name}": frame for name, frame in tables.items()})
        for line in summary_lines(tables["summary"]) if "summary" in tables else []:
            print(line)
        groups = rows["group"].nunique()
        note = "" if groups >= MIN_GROUPS else f" No intervals: {groups} groups are fewer than {MIN_GROUPS}."
        print(f"Wrote {', '.join(map(str, paths))}.{note}")


def _scored_split(context: Context) -> str | None:
    """Return which split's relevance to compare with: that of the same clips, else of the training clips."""
    for split in (context.split, "train"):
        entry = read_manifest(context.run.relevance(split).path)["tables"].get("heads")
        if entry is not None and entry.get("race") is None:
            return split
    return None
