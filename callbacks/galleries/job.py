"""What all galleries do with their clips: share them among the processes, blur, draw one after the other, sum up."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from torch import Tensor
from tqdm.auto import tqdm

from callbacks.analysis import Context
from callbacks.clip_truths import ClipTruths
from callbacks.galleries.clips import file_stems
from callbacks.galleries.files import update_captions
from callbacks.logging_results import log_results
from sightline.explain.drawing.blurring import blur_boxes
from sightline.report.figures.attention import Frames
from sightline.run.csv_table import write_table
from sightline.run.parts import PartStore, in_order
from sightline.run.sharing import BatchResult, share_result
from sightline.types import ClipBatch

HEAD = "head"
"""The name of the boxes that are blurred."""
_SCHEMA = pa.schema([("sample_id", pa.string()), ("content", pa.string())])


@dataclass(frozen=True)
class GalleryClip:
    """A clip to draw.

    Attributes:
        sample_id: Its name.
        label: Its class.
        clip: What a model takes, (1, 3, T, H, W), on the model's device.
        frames: What is drawn, uint8 (T, H, W, 3), maybe blurred.
        stem: What its files' names begin with, in the folder of the gallery.
    """

    sample_id: str
    label: int
    clip: Tensor
    frames: Frames
    stem: Path


@dataclass(frozen=True)
class Drawn:
    """What was drawn of a clip.

    Attributes:
        captions: By file name, in the order in which they are shown.
        rows: Of the gallery's table.
    """

    captions: dict[str, str] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)


def check_blurring(blur_heads: bool, boxes: str | None) -> None:
    """Raise ValueError for boxes that nothing is done with."""
    if boxes is not None and not blur_heads:
        raise ValueError("A gallery needs boxes only to blur heads: set blur_heads too, or leave boxes out.")


class GalleryJob:
    """One gallery on its way to disk; every process draws its own clips, one in memory at a time."""

    def __init__(
        self,
        context: Context,
        places: Sequence[int],
        kinds: Sequence[str],
        table: str,
        blur_heads: bool = False,
        boxes: str | None = None,
    ) -> None:
        """Plan the gallery.

        Args:
            context: The run, with the data and the split that the clips are of.
            places: Which clips of the split are drawn.
            kinds: What files are called after their clip's name, e.g. ``transfer`` for ``<clip>_transfer.png``. Other
                files of these kinds in ``attention/`` are deleted.
            table: Name of the gallery's table, in ``tables/`` and in W&B.
            blur_heads: Blur the boxes named ``head``, and leave out clips of which none is known.
            boxes: CSV of boxes; None for those that the data know of themselves.

        Raises:
            ValueError: If heads are to be blurred and no box of one is known of any clip.
        """
        self._context, self._places, self._table = context, list(places), table
        every = context.data.clips(context.split)
        self._names = [every[place].sample_id for place in self._places]
        self.stems = dict(zip(self._names, file_stems(self._names), strict=True))
        self.folder = context.run.attention
        self._endings = tuple(f"_{kind}.{ending}" for kind in kinds for ending in ("png", "mp4"))
        self._truths = ClipTruths(context, boxes) if blur_heads else None
        if self._truths is not None and not self._truths.places:
            raise ValueError(
                f"blur_heads needs boxes named {HEAD}, but none are known of any clip of the {context.split} split. "
                "Give a CSV of them as boxes (docs/pointing.md), or draw the frames as they are."
            )

    def run(self, draw: Callable[[GalleryClip], Drawn], say: Callable[[pd.DataFrame, Path], None]) -> None:
        """Draw the clips.

        Args:
            draw: Writes the files of a clip.
            say: Told on rank 0 of the table and of where it was written, unless no clip could be shown.
        """

        def work(batch: ClipBatch) -> BatchResult:
            drawn = {clip.sample_id: draw(clip) for clip in self._clips(batch)}
            content = [json.dumps({"captions": one.captions, "rows": one.rows}) for one in drawn.values()]
            return BatchResult(pa.table([list(drawn), content], schema=_SCHEMA))

        # What an interrupted gallery drew may have been drawn with other options.
        store = PartStore.beside(self._context.run.captions, _SCHEMA, made_from=None)
        share_result(
            store,
            self._names,
            self._batches,
            work,
            lambda rows: self._finish(rows, say),
            self._context.ranks,
            title="Attention",
        )

    def _finish(self, rows: Iterable[pa.Table], say: Callable[[pd.DataFrame, Path], None]) -> None:
        """Join what the processes drew, in the clips' order, and delete what earlier galleries drew besides."""
        drawn = in_order(rows, _SCHEMA, self._names)
        made = [json.loads(content) for content in drawn["content"]]
        captions = {file: text for entry in made for file, text in entry["captions"].items()}
        update_captions(self._context.run, captions, self._endings)
        if not made:
            print("Drew no attention: none of the clips could be shown.")
            return
        table = pd.DataFrame([row for entry in made for row in entry["rows"]])
        path = self._context.run.table(self._table)
        write_table(table, path, float_format="%.6g")
        self._log(table, captions)
        say(table, path)

    def _batches(self, at: list[int]) -> Iterator[ClipBatch]:
        """Yield the clips one by one, and name those that cannot be read."""
        for batch in self._context.batches(self._context.split, [self._places[i] for i in at], 1):
            for name, reason in batch["unreadable"]:
                tqdm.write(f"Left out, unreadable: {name}: {reason}")
            yield batch

    def _clips(self, batch: ClipBatch) -> Iterator[GalleryClip]:
        """Yield the clip of a batch, unless it could not be read or cannot be blurred."""
        device = next(self._context.backbone.parameters()).device
        for name, label, clip in zip(batch["sample_id"], batch["label"].tolist(), batch["clip"], strict=True):
            frames = self._shown(name, clip.permute(1, 2, 3, 0).numpy())
            if frames is None:
                tqdm.write(f"Left out, no box named {HEAD} is known to blur: {name}")
                continue
            yield GalleryClip(name, label, clip[None].to(device), frames, self.folder / self.stems[name])

    def _shown(self, name: str, frames: Frames) -> Frames | None:
        """Blur frames where that is asked for; None where it cannot be done."""
        if self._truths is None:
            return frames
        boxes = [box for box in self._truths.of(name).boxes if box.name == HEAD]
        return blur_boxes(frames, boxes) if boxes else None

    def _log(self, rows: pd.DataFrame, captions: dict[str, str]) -> None:
        log_results(self._context.loggers, {self._table: rows})
        for file in captions:
            path = self.folder / file
            kind = next(ending for ending in self._endings if file.endswith(ending))[1:].replace(".", "_")
            log_results(self._context.loggers, {f"{self._table}/{kind}": path})
