"""On a finished run: pictures and videos of what chosen heads look at, clip by clip."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pandas as pd
import torch

from callbacks.analysis import Analysis, Context
from callbacks.galleries.clips import check_counts, chosen_clips
from callbacks.galleries.files import write_picture, write_video
from callbacks.galleries.heads import head_chooser
from callbacks.galleries.job import Drawn, GalleryClip, GalleryJob, check_blurring
from sightline.explain import head_maps, rollout
from sightline.explain.cell_map import Mode
from sightline.relevance.clip_heads import HeadChooser
from sightline.report.figures.clip_attention import ClipAttention, best_heads

KINDS = ("heads", "frames", "methods")


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
        check_counts(clips_per_class, max_clips)
        check_blurring(blur_heads, boxes)
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
        job = GalleryJob(context, places, KINDS, f"attention_{context.split}", self.blur_heads, self.boxes)
        artist = _Artist(self, context, chooser, scored_split)
        job.run(artist.draw, artist.say)


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
class _Artist:
    """Looks at clips and draws them."""

    gallery: AttentionGallery
    context: Context
    chooser: HeadChooser
    scored_split: str
    seconds: _Seconds = field(default_factory=_Seconds)

    def draw(self, clip: GalleryClip) -> Drawn:
        """Write the pictures and videos of a clip."""
        view = self._look(clip)
        return Drawn(self._write(view, clip.stem), view.table())

    def say(self, heads: pd.DataFrame, table: Path) -> None:
        clips = heads["sample_id"].nunique()
        print(f"Drew the attention of {clips} clips: {self.context.run.attention}, {table}")
        if self.seconds.clips:
            print(self.seconds)

    @torch.no_grad()
    def _look(self, shown: GalleryClip) -> ClipAttention:
        """Run the model on a clip."""
        backbone, class_names, clip = self.context.backbone, self.context.data.class_names, shown.clip
        heads = self.chooser.choose(shown.sample_id, shown.label)
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
            shown.sample_id,
            class_names[shown.label],
            class_names[int(predicted)],
            float(probability),
            shown.frames,
            heads,
            {unit: cells.pixels(mode)[0].cpu() for unit, cells in maps.items()},
            best[0].times(best[1]).pixels(mode)[0].cpu() if len(best) == 2 else None,
            rollout(backbone, clip).pixels(mode)[0].cpu() if backbone.square_attention else None,
            self.gallery.score,
            self.scored_split,
        )

    def _write(self, view: ClipAttention, stem: Path) -> dict[str, str]:
        """Write the pictures and videos of a clip; return the captions by file name."""
        start = time.perf_counter()
        grid = view.grid()
        write_picture(grid.figure, stem.with_name(f"{stem.name}_heads.png"))
        write_video(np.stack(list(grid.play())), stem.with_name(f"{stem.name}_heads.mp4"))
        for kind, panels in view.strips().items():
            write_picture(view.strip(panels), stem.with_name(f"{stem.name}_{kind}.png"))
            write_video(view.video(panels), stem.with_name(f"{stem.name}_{kind}.mp4"))
        self.seconds.drawing += time.perf_counter() - start
        captions = view.captions()
        return {f"{stem.name}_{kind}.{ending}": captions[kind] for kind in captions for ending in ("png", "mp4")}


def _now(device: torch.device) -> float:
    """Return the time once the device has done its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
