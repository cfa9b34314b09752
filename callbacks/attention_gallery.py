"""On a finished run: pictures and videos of what chosen heads look at, clip by clip."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from callbacks.analysis import Analysis, Context
from callbacks.clip_truths import ClipTruths
from callbacks.gallery_clips import chosen_clips, file_stems
from callbacks.gallery_files import update_index, write_picture, write_video
from callbacks.gallery_heads import head_chooser
from callbacks.logging_results import log_to_wandb
from sightline.explain import head_maps, rollout
from sightline.explain.cell_map import Mode
from sightline.relevance.clip_heads import HeadChooser
from sightline.relevance.table import write_json
from sightline.report.blurring import blur_boxes
from sightline.report.clip_attention import ClipAttention, best_heads
from sightline.report.files import replacing
from sightline.types import ClipBatch

KINDS = ("heads", "frames", "methods")
_ENDINGS = tuple(f"_{kind}.{ending}" for kind in KINDS for ending in ("png", "mp4"))
HEAD = "head"
"""The name of the boxes that are blurred."""


class AttentionGallery(Analysis):
    """Draws what the most, the least and the specialised heads attend to in some clips: attention/*.png and *.mp4."""

    command: ClassVar[str] = "explain"

    def __init__(
        self,
        clips_per_class: int = 1,
        clips: str | list[str] | None = None,
        max_clips: int | None = None,
        score: Literal["r", "jsd", "dprob"] = "r",
        early_layers: int | None = None,
        deep_layers: int | None = None,
        specialised_layers: int = 2,
        upsampling: Mode = "nearest",
        blur_heads: bool = False,
        boxes: str | None = None,
    ) -> None:
        """Set up the gallery.

        Args:
            clips_per_class: How many clips of every class to show, spread evenly over the split.
            clips: Show these clips instead, by their sample_id in splits.csv.
            max_clips: Show no more clips than this, spread evenly over the classes; by default there is no limit.
            score: What heads are chosen by.
            early_layers: How many of the first layers count as early; by default 1 of a TimeSformer, 2 of the others.
            deep_layers: How many of the last layers count as deep, likewise.
            specialised_layers: How many of the last layers the specialised head of every class is chosen from.
            upsampling: nearest shows every cell as it is; trilinear is smoother, but lowers peaks and spreads weight.
            blur_heads: Blur the boxes named head in all that is drawn; the model sees the clips as they are. Clips of
                which no such box is known are left out, and named.
            boxes: CSV of boxes in pixels of the videos for blur_heads (docs/pointing.md); by default those that the
                data know of themselves, which only the synthetic cabin does.
        """
        if clips_per_class < 1 or (max_clips is not None and max_clips < 1):
            raise ValueError(
                f"Expected clips_per_class and max_clips of at least 1, got {clips_per_class} and {max_clips}."
            )
        if boxes is not None and not blur_heads:
            raise ValueError("A gallery needs boxes only to blur heads: set blur_heads too, or leave boxes out.")
        self.clips_per_class, self.max_clips = clips_per_class, max_clips
        self.clips = [clips] if isinstance(clips, str) else clips
        self.score = score
        self.early_layers, self.deep_layers = early_layers, deep_layers
        self.specialised_layers = specialised_layers
        self.upsampling: Mode = upsampling
        self.blur_heads, self.boxes = blur_heads, boxes

    def analyse(self, context: Context) -> None:
        splits = (context.split, "train")
        chooser, scored_split = head_chooser(
            context, splits, self.early_layers, self.deep_layers, self.specialised_layers, self.score
        )
        places = chosen_clips(context.data, context.split, self.clips_per_class, self.clips, self.max_clips)
        blurring = ClipTruths(context, self.boxes) if self.blur_heads else None
        if blurring is not None and not blurring.places:
            raise ValueError(
                f"blur_heads needs boxes named {HEAD}, but none are known of any clip of the {context.split} split. "
                "Give a CSV of them as boxes (docs/pointing.md), or draw the frames as they are."
            )
        _Job(self, context, chooser, scored_split, places, blurring).run()


@dataclass
class _Seconds:
    """What was spent on the clips so far."""

    clips: int = 0
    heads: int = 0
    maps: float = 0.0
    forward: float = 0.0
    drawing: float = 0.0

    def __str__(self) -> str:
        forward, one = 1000 * self.forward / self.clips, 1000 * self.maps / self.heads
        return (
            f"A forward pass took {forward:.0f} ms; the maps of {self.heads / self.clips:.0f} heads in one pass "
            f"{1000 * self.maps / self.clips:.0f} ms, so one map {one:.1f} ms ({one / forward:.2f} of a forward pass); "
            f"drawing {self.drawing / self.clips:.1f} s per clip."
        )


@dataclass
class _Job:
    """One gallery on its way to disk; every process draws its own clips."""

    gallery: AttentionGallery
    context: Context
    chooser: HeadChooser
    scored_split: str
    places: list[int]
    blurring: ClipTruths | None

    def __post_init__(self) -> None:
        every = self.context.data.clips(self.context.split)
        names = [every[place].sample_id for place in self.places]
        self.stems = dict(zip(names, file_stems(names), strict=True))
        self.folder = self.context.folder / "attention"
        self.parts = self.folder / ".gallery.parts"
        self.seconds = _Seconds()

    def run(self) -> None:
        ranks = self.context.ranks
        ranks.together(self._begin, only_first=True)
        ranks.together(self._draw_share)
        ranks.together(self._finish, only_first=True)

    def _begin(self) -> None:
        shutil.rmtree(self.parts, ignore_errors=True)  # what an interrupted run left
        self.parts.mkdir(parents=True)

    def _draw_share(self) -> None:
        """Draw the clips of this process, one in memory at a time."""
        ranks = self.context.ranks
        mine = self.places[ranks.rank :: ranks.world]
        made: dict[str, Any] = {}
        with tqdm(total=len(mine), desc="Attention", unit="clip", disable=ranks.rank != 0) as bar:
            for batch in self.context.batches(self.context.split, mine, 1):
                for name, _ in batch["unreadable"]:
                    bar.write(f"Left out, unreadable: {name}")
                for view in self._views(batch):
                    made[view.sample_id] = {"captions": self._write(view), "heads": view.table()}
                bar.update()
        write_json(self.parts / f"{ranks.rank}.json", made)

    def _views(self, batch: ClipBatch) -> Iterator[ClipAttention]:
        """Look at the clip of a batch, unless it could not be read or cannot be blurred."""
        for name, label, clip in zip(batch["sample_id"], batch["label"].tolist(), batch["clip"], strict=True):
            frames = clip.permute(1, 2, 3, 0).numpy()
            if self.blurring is not None:
                boxes = [box for box in self.blurring.of(name).boxes if box.name == HEAD]
                if not boxes:
                    tqdm.write(f"Left out, no box named {HEAD} is known to blur: {name}")
                    continue
                frames = blur_boxes(frames, boxes)
            yield self._look(name, label, clip[None], frames)

    @torch.no_grad()
    def _look(self, name: str, label: int, clip: Tensor, frames: np.ndarray) -> ClipAttention:
        """Run the model on a clip (1, 3, T, H, W)."""
        backbone, class_names = self.context.backbone, self.context.data.class_names
        clip = clip.to(next(backbone.parameters()).device)
        heads = self.chooser.choose(name, label)
        units = list(dict.fromkeys(head.unit for head in (*heads.extremes, *heads.specialised)))
        start = _now(clip.device)
        probability, predicted = backbone(clip).float().softmax(dim=1)[0].max(dim=0)
        between = _now(clip.device)
        maps = head_maps(backbone, clip, units)
        end = _now(clip.device)
        self.seconds.clips += 1
        self.seconds.heads += len(units)
        self.seconds.forward += between - start
        self.seconds.maps += end - between
        best = [maps[head.unit] for head in best_heads(heads)]
        mode = self.gallery.upsampling
        return ClipAttention(
            name,
            class_names[label],
            class_names[int(predicted)],
            float(probability),
            frames,
            heads,
            {unit: cells.pixels(mode)[0].cpu() for unit, cells in maps.items()},
            best[0].times(best[1]).pixels(mode)[0].cpu() if len(best) == 2 else None,
            rollout(backbone, clip).pixels(mode)[0].cpu() if backbone.square_attention else None,
            self.gallery.score,
            self.scored_split,
        )

    def _write(self, view: ClipAttention) -> dict[str, str]:
        """Write the pictures and videos of a clip; return the captions by file name."""
        start, stem = time.perf_counter(), self.stems[view.sample_id]
        grid = view.grid()
        write_picture(grid.figure, self.folder / f"{stem}_heads.png")
        write_video(np.stack(list(grid.play())), self.folder / f"{stem}_heads.mp4")
        for kind, panels in view.strips().items():
            write_picture(view.strip(panels), self.folder / f"{stem}_{kind}.png")
            write_video(view.video(panels), self.folder / f"{stem}_{kind}.mp4")
        self.seconds.drawing += time.perf_counter() - start
        captions = view.captions()
        return {f"{stem}_{kind}.{ending}": captions[kind] for kind in captions for ending in ("png", "mp4")}

    def _finish(self) -> None:
        """Join what the processes drew, in the clips' order, and delete what an earlier gallery drew besides."""
        made: dict[str, Any] = {}
        for part in self.parts.glob("*.json"):
            made |= json.loads(part.read_text())
        shutil.rmtree(self.parts)
        made = {name: made[name] for name in self.stems if name in made}
        captions = {file: text for entry in made.values() for file, text in entry["captions"].items()}
        update_index(self.folder, captions, _ENDINGS)
        if not made:
            print("Drew no attention: none of the clips could be shown.")
            return
        heads = pd.DataFrame([row for entry in made.values() for row in entry["heads"]])
        table = self.context.folder / "tables" / f"attention_{self.context.split}.csv"
        with replacing(table) as temporary:
            heads.to_csv(temporary, index=False, float_format="%.6g")
        self._log(made, heads)
        print(f"Drew the attention of {len(made)} clips: {self.folder}, {table}")
        if self.seconds.clips:
            print(self.seconds)

    def _log(self, made: dict[str, Any], heads: pd.DataFrame) -> None:
        name = f"attention_{self.context.split}"
        log_to_wandb(self.context.loggers, {f"{name}/chosen_heads": heads})
        for entry in made.values():
            files = [self.folder / file for file in entry["captions"]]
            log_to_wandb(
                self.context.loggers,
                {f"{name}/{path.stem.rpartition('_')[2]}_{path.suffix[1:]}": path for path in files},
            )


def _now(device: torch.device) -> float:
    """Return the time once the device has done its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
