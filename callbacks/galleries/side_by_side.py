"""On a finished run: what its model and another run's look at in the same clips."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

import pandas as pd
import torch
from torch import Tensor

from callbacks.analysis import Analysis, Context
from callbacks.galleries.clips import check_counts, chosen_clips
from callbacks.galleries.files import write_strip
from callbacks.galleries.heads import head_chooser
from callbacks.galleries.job import Drawn, GalleryClip, GalleryJob, check_blurring
from callbacks.galleries.other_run import other_run
from sightline.backbones import Backbone
from sightline.explain import head_maps
from sightline.explain.cell_map import Mode
from sightline.relevance.clip_heads import HeadChooser
from sightline.report.figures.two_models import ModelView, TwoModels
from sightline.run.paths import RunFolder

KIND = "side_by_side"


class SideBySideGallery(Analysis):
    """Draws heads of this run's model and of another's on the same clips: attention/*_side_by_side.*, a table."""

    command: ClassVar[str] = "explain"

    def __init__(
        self,
        other: str,
        other_class: str | None = None,
        classes: str | list[str] | None = None,
        clips_per_class: int = 1,
        clips: str | list[str] | None = None,
        max_clips: int | None = None,
        specialised_layers: int = 2,
        score: Literal["r", "jsd", "dprob"] = "r",
        upsampling: Mode = "nearest",
        blur_heads: bool = False,
        boxes: str | None = None,
    ) -> None:
        """Set up the gallery.

        Args:
            other: Folder of the other run, whose heads must be scored too. Its model must take clips of the same frames
                and size; its family and its classes may be others.
            other_class: Show the other model's head that is specialised in this class of its own; by default the one
                that is most relevant to all its training clips.
            classes: Show clips of these classes of this run's data alone; by default of all.
            clips_per_class: How many clips of every class to show, spread evenly over the split.
            clips: Show these clips instead, by their sample_id in splits.csv.
            max_clips: Show no more clips than this, spread evenly over the classes; by default there is no limit.
            specialised_layers: How many of the last layers the specialised head of every class is chosen from.
            score: What heads are chosen by.
            upsampling: nearest shows every cell as it is; trilinear is smoother, but lowers peaks and spreads weight.
            blur_heads: Blur the boxes named head in all that is drawn; the models see the clips as they are. Clips of
                which no such box is known are left out, and named.
            boxes: CSV of boxes in pixels of the videos for blur_heads (docs/pointing.md); by default those that the
                data know of themselves, which only the synthetic cabin does.
        """
        check_counts(clips_per_class, max_clips)
        check_blurring(blur_heads, boxes)
        self.other, self.other_class = other, other_class
        self.classes = [classes] if isinstance(classes, str) else classes
        self.clips_per_class, self.max_clips = clips_per_class, max_clips
        self.clips = [clips] if isinstance(clips, str) else clips
        self.specialised_layers, self.score = specialised_layers, score
        self.upsampling: Mode = upsampling
        self.blur_heads, self.boxes = blur_heads, boxes

    def analyse(self, context: Context) -> None:
        places = chosen_clips(
            context.data, context.split, self.clips_per_class, self.clips, self.max_clips, self.classes
        )
        theirs = other_run(context, Path(self.other))
        _check_input(context, theirs)
        ours_named, theirs_named = _names(context.folder, theirs.folder)
        models = (
            _Model(ours_named, context.backbone, context.data.class_names, self._chooser(context)),
            _Model(theirs_named, theirs.backbone, _class_names(theirs.backbone), self._chooser(theirs)),
        )
        if self.other_class is not None and self.other_class not in models[1].class_names:
            raise ValueError(
                f"other_class is {self.other_class!r}, which is not a class of {self.other}. Its classes: "
                f"{', '.join(models[1].class_names)}."
            )
        job = GalleryJob(context, places, [KIND], KIND, self.blur_heads, self.boxes)
        job.run(partial(self._draw, *models), partial(self._say, context.run, ours_named))

    def _chooser(self, run: Context) -> HeadChooser:
        return head_chooser(run, ["train"], None, None, self.specialised_layers, self.score)[0]

    def _draw(self, ours: _Model, theirs: _Model, shown: GalleryClip) -> Drawn:
        """Write the picture and the video of a clip."""
        actual, mode = ours.class_names[shown.label], self.upsampling
        views = (ours.look(shown.clip, actual, mode), theirs.look(shown.clip, self.other_class, mode))
        both = TwoModels(shown.sample_id, actual, shown.frames, *views, self.score)
        files = write_strip(shown.stem, KIND, shown.frames, both.panels(), both.title, both.note)
        return Drawn(dict.fromkeys(files, both.caption()), list(both.table()))

    def _say(self, run: RunFolder, name: str, table: pd.DataFrame, path: Path) -> None:
        clips = table.drop_duplicates("sample_id")
        right = (clips["class"] == clips["predicted"]).mean()
        print(
            f"Side by side: {len(clips)} clips, of which {name} predicts {right:.0%} correctly. Rank correlation of "
            f"the two models' maps: mean {table['spearman'].mean():.2f}. {run.attention}, {path}"
        )


@dataclass(frozen=True)
class _Model:
    """One of the two models, and how its heads are chosen."""

    run: str
    backbone: Backbone
    class_names: list[str]
    chooser: HeadChooser

    @torch.no_grad()
    def look(self, clip: Tensor, speciality: str | None, mode: Mode) -> ModelView:
        """Run the model on a clip (1, 3, T, H, W); without a speciality, show its most relevant heads."""
        if speciality is None:
            heads = self.chooser.most_relevant
        else:
            heads = self.chooser.choose("", self.class_names.index(speciality)).specialised
        probability, predicted = self.backbone(clip).float().softmax(dim=1)[0].max(dim=0)
        cells = head_maps(self.backbone, clip, [head.unit for head in heads])
        maps = tuple(cells[head.unit].pixels(mode)[0].cpu() for head in heads)
        told = (self.class_names[int(predicted)], float(probability))
        return ModelView(self.run, self.backbone.family, *told, speciality, heads, maps)


def _check_input(ours: Context, theirs: Context) -> None:
    own, other = ours.backbone.input_spec, theirs.backbone.input_spec
    if own != other:
        raise ValueError(
            f"Both models are drawn on the same frames, but that of {ours.folder} takes clips of {own} and that of "
            f"{theirs.folder} clips of {other}. Set other to a run with the same data.frames and data.size."
        )


def _class_names(backbone: Backbone) -> list[str]:
    return list(backbone.record.class_names) or [str(label) for label in range(backbone.config.num_classes)]


def _names(ours: Path, theirs: Path) -> tuple[str, str]:
    """Name two runs by their folders, with the folder above where both have one name."""
    first, second = ours.resolve(), theirs.resolve()
    if first.name != second.name:
        return first.name, second.name
    return f"{first.parent.name}/{first.name}", f"{second.parent.name}/{second.name}"
