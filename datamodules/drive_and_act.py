"""Drive&Act: driver activities as chunks of at most 90 frames of long recordings, by frame numbers.

The layout is the official one: videos in ``<root>/<view>/vpN/<recording>.mp4``, annotations in
``activities_3s/<view>/midlevel.chunks_90.split_<k>.<part>.csv``. Frame numbers hold for one view only, so a view's
lists go with its videos. Reference: Martin et al., "Drive&Act: A Multi-modal Dataset for Fine-grained Driver Behavior
Recognition in Autonomous Vehicles", ICCV 2019.
"""

from __future__ import annotations

import csv
import logging
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch.utils.data import DataLoader

from datamodules.clip_data_module import ClipDataModule
from datamodules.clip_lists import open_list
from datamodules.dataset import SPLITS
from datamodules.drive_and_act_layout import EVALUATED, UNEVALUATED, VIEWS, find_lists, find_videos, list_name
from sightline.video.clips import Clip

log = logging.getLogger(__name__)

COLUMNS = ("participant_id", "file_id", "annotation_id", "frame_start", "frame_end", "activity", "chunk_id")
_OFFICIAL_SPLITS = (0, 1, 2)
_VIEW_OF = {suffix: view for view, suffix in VIEWS.items()}


@dataclass(frozen=True)
class Chunk:
    """One row of a list, and where it stands.

    Attributes:
        file_id: The recording: its path in the view's folder without ``.mp4``.
        annotation_id: Number of the activity's segment in the recording, which may be several chunks long.
        chunk_id: Number of the chunk in its segment.
        frames: The frames from the first one to before the second.
        activity: The label.
        participant: Who is seen, as vpN.
        where: File and line, for messages.
    """

    file_id: str
    annotation_id: str
    chunk_id: str
    frames: tuple[int, int]
    activity: str
    participant: str
    where: str

    @property
    def segment(self) -> str:
        """The segment that the chunk was cut from."""
        return f"{self.file_id}#{self.annotation_id}"

    @property
    def sample_id(self) -> str:
        """A name that no other chunk has."""
        return f"{self.segment}.{self.chunk_id}@{self.frames[0]}-{self.frames[1]}"


class DriveAndAct(ClipDataModule):
    """Drive&Act or recordings in its layout: chunks of long videos, with the official splits by participant."""

    def __init__(
        self,
        root: str,
        annotations: str | None = None,
        view: str = "inner_mirror",
        split: int | None = 0,
        level: Literal["midlevel"] = "midlevel",
        classes: Literal["evaluated", "all"] | list[str] = "evaluated",
        **kwargs: Any,
    ) -> None:
        """Store the settings; the lists are read when they are first needed.

        Classes are very unbalanced (a hundred times as many chunks of sitting still as of closing a door from outside),
        so the metric that counts is the mean of the classes' accuracies (mean_class_acc), averaged over the splits.

        Args:
            root: Folder that holds one folder of videos per view, directly or in data/.
            annotations: Folder that holds activities_3s (also within iccv_activities_3s/ or data/), or that of the
                lists themselves; by default root.
            view: Camera and modality: inner_mirror, a_column_co_driver, ceiling, steering_wheel, a_column_driver
                (near-infrared), kinect_color, kinect_ir, kinect_depth; or another folder of root.
            split: Official split 0, 1 or 2. Null reads the list without splits: all its chunks are test clips, those of
                people seen in training too, and training is refused.
            level: Granularity of the labels.
            classes: The 34 classes that the splits evaluate; all 39 of the list without splits (only with split null);
                or, for other recordings, class names in the order of the labels.
            kwargs: Settings of ClipDataModule.
        """
        super().__init__(**kwargs)
        if split is not None and split not in _OFFICIAL_SPLITS:
            raise ValueError(f"Expected data.split 0, 1 or 2, or null for the list without splits, got {split}.")
        if level != "midlevel":
            raise ValueError(f"Expected data.level midlevel, the only one that can be read so far, got {level!r}.")
        if isinstance(classes, str) and classes not in ("evaluated", "all"):
            raise ValueError(f"Expected data.classes evaluated, all, or a list of names, got {classes!r}.")
        if classes == "all" and split is not None:
            raise ValueError(
                f"Expected data.split null with data.classes all, got split {split}: {len(UNEVALUATED)} of the 39 "
                f"classes are in no split ({', '.join(UNEVALUATED)}). Use data.classes evaluated to train and test."
            )
        if not isinstance(classes, str) and (not classes or len(set(classes)) != len(classes)):
            twice = [name for name, count in Counter(classes).items() if count > 1]
            found = f"{', '.join(twice)} more than once" if twice else "an empty list"
            raise ValueError(f"Expected every class once in data.classes, got {found}.")
        self.root = Path(root)
        self.annotations = Path(annotations) if annotations is not None else self.root
        self.view = view
        self.split = split
        self.level = level
        self.classes = classes

    @property
    def can_train(self) -> bool:
        """Whether a split is read: the list without splits has people of all of them."""
        return self.split is not None

    def setup(self, stage: str) -> None:
        """Refuse to train on the list without splits before anything is written."""
        if stage == "fit":
            self._check_training()

    def train_dataloader(self) -> DataLoader:
        """The training chunks, reshuffled and cut anew in every epoch; equally many on every rank."""
        self._check_training()
        return super().train_dataloader()

    def _check_training(self) -> None:
        if not self.can_train:
            raise ValueError(
                "Expected an official split to train on, got data.split null: the list without splits has no training "
                "clips and serves prediction and transfer only. Set data.split to 0, 1 or 2."
            )

    def read_clips(self) -> tuple[list[str], list[Clip]]:
        """Read the lists, check them, and find their videos."""
        videos = find_videos(self.root, self.view)
        folder = find_lists(self.annotations, self.view, self.level)
        class_names = self._class_names()
        chunks = {part: self._known(read_chunks(path), class_names) for part, path in self._lists(folder).items()}
        listed = [chunk for part in chunks.values() for chunk in part]
        _check_view(listed, self.view)
        _check_participants(chunks)
        _check_videos(listed, videos)
        label_of = {name: label for label, name in enumerate(class_names)}
        clips = [
            Clip(
                sample_id=chunk.sample_id,
                path=str(videos / f"{chunk.file_id}.mp4"),
                label=label_of[chunk.activity],
                group=chunk.participant,
                split=part,
                frame_range=chunk.frames,
                segment=chunk.segment,
            )
            for part, rows in chunks.items()
            for chunk in rows
        ]
        return class_names, clips

    def _class_names(self) -> list[str]:
        if isinstance(self.classes, str):
            return [*EVALUATED, *UNEVALUATED] if self.classes == "all" else list(EVALUATED)
        return list(self.classes)

    def _lists(self, folder: Path) -> dict[str, Path]:
        """The lists of the parts that there are."""
        parts = ("test",) if self.split is None else SPLITS
        wanted = {part: folder / list_name(self.level, self.split, part) for part in parts}
        found = {part: path for part, path in wanted.items() if path.is_file()}
        missing = [path.name for part, path in wanted.items() if part not in found]
        if not found:
            there = sorted(path.name for path in folder.glob("*.csv"))
            raise FileNotFoundError(
                f"Expected {' and '.join(missing)} in {folder}, found {', '.join(there)}. Set data.split to one that "
                "is there, or complete the folder."
            )
        if missing:
            log.warning("%s has no %s: without clips of that part.", folder, " and no ".join(missing))
        return found

    def _known(self, chunks: list[Chunk], class_names: list[str]) -> list[Chunk]:
        """The chunks of known classes: where the list without splits is read for the 34, the other 5 are left out."""
        ignored = set(UNEVALUATED) if self.split is None and self.classes == "evaluated" else set()
        known, left_out = [], 0
        for chunk in chunks:
            if chunk.activity in ignored:
                left_out += 1
                continue
            if chunk.activity not in class_names:
                raise ValueError(
                    f"{chunk.where}: unknown activity {chunk.activity!r}. Expected one of {', '.join(class_names)}. "
                    "Correct the list, or name the classes of other recordings in data.classes."
                )
            known.append(chunk)
        if left_out:
            log.warning(
                "Left out %d chunks of classes that no split evaluates (data.classes all keeps them).", left_out
            )
        return known


def read_chunks(path: Path) -> list[Chunk]:
    """Read a list of chunks; columns beyond the official ones are ignored."""
    with open_list(path) as file:
        reader = csv.DictReader(file, skipinitialspace=True)
        columns = [name.strip() for name in reader.fieldnames or ()]
        missing = [name for name in COLUMNS if name not in columns]
        if missing:
            raise ValueError(
                f"{path}: missing column(s) {', '.join(missing)}. Expected, separated by commas, {', '.join(COLUMNS)}; "
                f"got {', '.join(columns) or 'an empty file'}. Take the lists from activities_3s as they are."
            )
        reader.fieldnames = columns
        chunks = [_chunk(row, f"{path}, line {reader.line_num}") for row in reader]
    if not chunks:
        raise ValueError(f"{path}: expected one row per chunk, got a header only.")
    return chunks


def _chunk(row: dict[str, str | None], where: str) -> Chunk:
    values = {name: (row[name] or "").strip() for name in COLUMNS}
    empty = [name for name, value in values.items() if not value]
    if empty:
        raise ValueError(f"{where}: expected a value for {' and '.join(empty)}, got none.")
    try:
        first, stop = int(values["frame_start"]), int(values["frame_end"])
    except ValueError:
        first, stop = -1, -1
    if not 0 <= first < stop:
        raise ValueError(
            f"{where}: expected whole numbers 0 <= frame_start < frame_end (the frame after the last), got "
            f"{values['frame_start']} and {values['frame_end']}."
        )
    return Chunk(
        file_id=values["file_id"],
        annotation_id=values["annotation_id"],
        chunk_id=values["chunk_id"],
        frames=(first, stop),
        activity=values["activity"],
        participant=f"vp{values['participant_id'].removeprefix('vp')}",
        where=where,
    )


def _check_view(chunks: list[Chunk], view: str) -> None:
    """Lists that lie in no view's folder may be another view's: their frame numbers would be wrong."""
    for chunk in chunks:
        of = _VIEW_OF.get(chunk.file_id.rsplit(".", 1)[-1], view)
        if of != view:
            raise ValueError(
                f"{chunk.where}: expected recordings of the view {view}, got {chunk.file_id} of {of}. Frame numbers "
                f"hold for one view only: use the lists of {view}, or data.view {of}."
            )


def _check_participants(chunks: dict[str, list[Chunk]]) -> None:
    parts: dict[str, dict[str, Chunk]] = defaultdict(dict)
    for part, rows in chunks.items():
        for chunk in rows:
            parts[chunk.participant].setdefault(part, chunk)
    torn = {name: found for name, found in parts.items() if len(found) > 1}
    if torn:
        listed = "; ".join(f"{name} in {' and '.join(found)}" for name, found in list(torn.items())[:5])
        first = next(iter(torn.values()))
        raise ValueError(
            f"Expected every participant in one split, but {len(torn)} are in several ({listed}"
            f"{'; ...' if len(torn) > 5 else ''}); see {' and '.join(chunk.where for chunk in first.values())}. "
            "Use the lists of one official split, or move each participant to one list."
        )


def _check_videos(chunks: list[Chunk], folder: Path) -> None:
    recordings = list(dict.fromkeys(chunk.file_id for chunk in chunks))
    missing = [f"{name}.mp4" for name in recordings if not (folder / f"{name}.mp4").is_file()]
    if missing:
        raise FileNotFoundError(
            f"The lists name {len(recordings)} recordings, of which {len(missing)} do not exist in {folder}: "
            f"{', '.join(missing[:5])}{', ...' if len(missing) > 5 else ''}. Complete the folder, or set data.root to "
            "the folder that holds the view's."
        )
