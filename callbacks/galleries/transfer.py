"""On a finished run: its model, unchanged, on clips of other data whose classes correspond to its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from callbacks.analysis import Analysis, Context
from callbacks.galleries.clips import evenly
from callbacks.galleries.files import write_strip
from callbacks.galleries.heads import head_chooser
from callbacks.galleries.job import Drawn, GalleryClip, GalleryJob, check_blurring
from datamodules.clip_data_module import ClipDataModule
from sightline.explain import head_maps
from sightline.explain.cell_map import Mode
from sightline.relevance.ablation import ablated_logits
from sightline.relevance.clip_heads import HeadChooser
from sightline.relevance.scores import score as score_logits
from sightline.report.figures.attention import Panel
from sightline.run.paths import RunFolder
from sightline.types import Unit

KIND = "transfer"


class TransferGallery(Analysis):
    """Draws and scores the specialised heads of a model on other data's clips: attention/*_transfer.*, a table."""

    command: ClassVar[str] = "explain"

    def __init__(
        self,
        data: ClipDataModule,
        classes: dict[str, str | list[str]],
        split: Literal["train", "val", "test"] = "test",
        clips_per_class: int = 2,
        specialised_layers: int = 2,
        score: Literal["r", "jsd", "dprob"] = "r",
        upsampling: Mode = "nearest",
        blur_heads: bool = False,
        boxes: str | None = None,
    ) -> None:
        """Set up the transfer.

        Args:
            data: The other data, with frames and size as the model takes them.
            classes: For each class of the model that is looked at, the classes of the other data that it stands for.
            split: The clips of the other data to look at.
            clips_per_class: How many clips of every such class to show and to score, spread evenly over the split.
            specialised_layers: How many of the last layers the specialised head of every class is chosen from. Its
                relevance on the other clips is compared with that of the other heads of these layers.
            score: What heads are chosen by, and scored by.
            upsampling: nearest shows every cell as it is; trilinear is smoother, but lowers peaks and spreads weight.
            blur_heads: Blur the boxes named head in all that is drawn; the model sees the clips as they are. Clips of
                which no such box is known are left out, and named.
            boxes: CSV of boxes in pixels of the other data's videos for blur_heads (docs/pointing.md); by default those
                that the other data know of themselves, which only the synthetic cabin does.
        """
        check_blurring(blur_heads, boxes)
        if not classes or clips_per_class < 1:
            raise ValueError(
                f"Expected classes to map and clips_per_class of at least 1, got {classes} and {clips_per_class}."
            )
        self.data, self.classes, self.split = data, classes, split
        self.clips_per_class, self.specialised_layers = clips_per_class, specialised_layers
        self.score, self.upsampling = score, upsampling
        self.blur_heads, self.boxes = blur_heads, boxes

    def analyse(self, context: Context) -> None:
        spec = context.backbone.input_spec
        if (self.data.frames, self.data.size) != (spec.frames, spec.height):
            raise ValueError(
                f"The model takes clips of {spec}, the other data give {self.data.frames}x{self.data.size}x"
                f"{self.data.size}. Set frames and size of the transfer's data."
            )
        context.ranks.together(self.data.prepare_data, only_first=True)
        of_class = class_mapping(self.classes, context.data.class_names, self.data.class_names)
        chooser, _ = head_chooser(context, ["train"], None, None, self.specialised_layers, self.score)
        there = replace(context, data=self.data, split=self.split)
        places = self._places(of_class, context.ranks.rank == 0)
        job = GalleryJob(there, places, [KIND], "transfer", self.blur_heads, self.boxes)
        job.run(partial(self._draw, context, chooser, of_class), partial(self._say, context.run))

    def _places(self, of_class: Mapping[int, int], speaks: bool) -> list[int]:
        """Choose clips of every mapped class; a class without any is named."""
        clips, chosen = self.data.clips(self.split), []
        for label in of_class:
            own = [place for place, clip in enumerate(clips) if clip.label == label]
            if not own and speaks:
                print(f"The other data have no clip of {self.data.class_names[label]} in their {self.split} split.")
            chosen += [own[index] for index in evenly(len(own), self.clips_per_class)]
        if not chosen:
            raise ValueError(f"The other data have no clip of any mapped class in their {self.split} split.")
        return chosen

    @torch.no_grad()
    def _draw(self, context: Context, chooser: HeadChooser, of_class: Mapping[int, int], shown: GalleryClip) -> Drawn:
        """Draw and score a clip."""
        backbone, names, clip = context.backbone, context.data.class_names, shown.clip
        other, label = self.data.class_names[shown.label], of_class[shown.label]
        special = [head.unit for head in chooser.choose("", label).specialised]
        probability = backbone(clip).float().softmax(dim=1)[0].cpu()
        predicted = int(probability.argmax())
        maps = head_maps(backbone, clip, special)
        scores = self._scores(context, clip, label)
        rows, panels = [], []
        for unit in special:
            rivals = sorted((r for rival, r in scores.items() if rival.site == unit.site), reverse=True)
            rank, own = 1 + sum(r > scores[unit] for r in rivals), scores[unit]
            others = (sum(rivals) - own) / (len(rivals) - 1) if len(rivals) > 1 else np.nan
            title = (
                f"{unit.site}, specialised in {names[label]}: layer {unit.layer} head {unit.head}, "
                f"{self.score} {own:.2g} here, rank {rank} of {len(rivals)}"
            )
            panels.append(Panel(title, maps[unit].pixels(self.upsampling)[0].cpu()))
            rows.append(
                {"sample_id": shown.sample_id, "class_there": other, "class": names[label],
                 "predicted": names[predicted], "probability": float(probability[label]),
                 "correct": predicted == label, "site": unit.site, "layer": unit.layer, "head": unit.head,
                 self.score: own, "mean_of_others": others, "rank": rank, "heads": len(rivals)}
            )  # fmt: skip
        told = f"predicted {names[predicted]} ({probability[predicted]:.0%})"
        title = f"{other} (here {names[label]}), {told}"
        files = write_strip(shown.stem, KIND, shown.frames, panels, title, shown.sample_id)
        caption = (
            f"Attention of the {'heads' if len(special) > 1 else 'head'} most relevant to {names[label]}, frame by "
            f"frame, in a clip of other data. Clip {shown.sample_id}: {other} there, {told}."
        )
        return Drawn(dict.fromkeys(files, caption), rows)

    def _scores(self, context: Context, clip: Tensor, label: int) -> dict[Unit, float]:
        """Score every head of the last layers on a clip, as the class that it stands for."""
        units = context.backbone.units("heads")
        last = sorted({unit.layer for unit in units})[-self.specialised_layers :]
        units = [unit for unit in units if unit.layer in last]
        logits = ablated_logits(context.backbone, clip, units)
        values = getattr(score_logits(logits.base, logits.units, torch.tensor([label])), self.score)
        return dict(zip(units, values[:, 0].tolist(), strict=True))

    def _say(self, run: RunFolder, table: pd.DataFrame, path: Path) -> None:
        clips = table.drop_duplicates("sample_id")
        print(
            f"Transfer: {clips['correct'].mean():.0%} of {len(clips)} clips are predicted as the class that they stand "
            f"for. {self.score} of the specialised heads {table[self.score].mean():.2g}, of the other heads of these "
            f"layers {table['mean_of_others'].mean():.2g}. {run.attention}, {path}"
        )


def class_mapping(
    classes: Mapping[str, str | Sequence[str]], own: Sequence[str], others: Sequence[str]
) -> dict[int, int]:
    """Return the model's label for every label of the other data that is mapped.

    Args:
        classes: The other data's classes by the model's.
        own: Names of the model's classes by label.
        others: Names of the other data's classes by label.

    Raises:
        ValueError: If a class is unknown, naming the known ones, or mapped twice.
    """
    found: dict[int, int] = {}
    for name, there in classes.items():
        if name not in own:
            raise ValueError(f"The mapping names {name!r}, which is no class of the model's: {', '.join(own)}.")
        for other in [there] if isinstance(there, str) else there:
            if other not in others:
                raise ValueError(
                    f"{name} maps to {other!r}, which is not a class of the other data: {', '.join(others)}."
                )
            if others.index(other) in found:
                raise ValueError(f"{other} is mapped from two classes of the model; leave one of them out.")
            found[others.index(other)] = own.index(name)
    return found
