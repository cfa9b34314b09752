"""A folder of clips with one CSV: the layout that most people bring, with a column that says who is seen."""

from __future__ import annotations

import csv
import logging
from collections import Counter, defaultdict
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from datamodules.clip_data_module import ClipDataModule
from datamodules.clip_lists import open_list
from datamodules.dataset import SPLITS
from datamodules.splits import subject_disjoint_split
from sightline.video.clips import Clip

log = logging.getLogger(__name__)

REQUIRED = ("video", "label", "subject")
OPTIONAL = ("start", "end", "split")
Row = dict[str, str]


class DriverClips(ClipDataModule):
    """Clips in a folder, listed by a CSV with the columns video, label, subject and optionally start, end, split."""

    def __init__(
        self,
        root: str,
        annotations: str | None = None,
        classes: list[str] | None = None,
        **kwargs: Any,
    ) -> None:
        """Store the settings; the CSV is read when it is first needed.

        Without a split column the subjects are divided 70/15/15 (as far as they allow) among train, val and test, so
        that the classes are balanced; the division depends on the CSV's content and ``seed`` only.

        Args:
            root: Folder that the CSV's video paths start from.
            annotations: The CSV file; by default clips.csv in root.
            classes: Class names in the order of the labels; by default the CSV's labels in alphabetical order.
            kwargs: Settings of ClipDataModule.
        """
        super().__init__(**kwargs)
        self.root = Path(root)
        self.annotations = Path(annotations) if annotations is not None else self.root / "clips.csv"
        self.classes = classes

    def read_clips(self) -> tuple[list[str], list[Clip]]:
        """Read the CSV and check it."""
        if not self.root.is_dir():
            raise FileNotFoundError(
                f"Expected the clips in the folder {self.root}, which does not exist. Set data.root."
            )
        rows = read_rows(self.annotations)
        class_names = self._class_names(rows)
        _check_videos(rows, self.root, self.annotations)
        splits = _splits(rows, self.annotations, self.seed)
        clips = []
        for number, (row, split) in enumerate(zip(rows, splits, strict=True), start=2):
            start, end = _window(row, f"{self.annotations}, line {number}")
            clips.append(
                Clip(
                    sample_id=_sample_id(row["video"], start, end),
                    path=str(self.root / row["video"]),
                    label=class_names.index(row["label"]),
                    group=row["subject"],
                    start=start,
                    end=end,
                    split=split,
                )
            )
        return class_names, clips

    @cached_property
    def _in_class_folders(self) -> bool:
        names = {name.lower() for name in self.class_names}
        return all(Path(clip.path).parent.name.lower() in names for split in SPLITS for clip in self.clips(split))

    def stated_classes(self, clip: Clip) -> Mapping[str, str]:
        """The class of the clip's folder, where all clips lie in folders that are named by classes."""
        return {"folder": Path(clip.path).parent.name} if self._in_class_folders else {}

    def _class_names(self, rows: list[Row]) -> list[str]:
        found = {row["label"] for row in rows}
        if self.classes is None:
            return sorted(found)
        if len(set(self.classes)) != len(self.classes):
            twice = [name for name, count in Counter(self.classes).items() if count > 1]
            raise ValueError(f"Expected every class once in data.classes, got {', '.join(twice)} more than once.")
        unknown = sorted(found - set(self.classes))
        if unknown:
            raise ValueError(
                f"{self.annotations}: unknown label(s) {', '.join(unknown)}. "
                f"Expected one of {', '.join(self.classes)}. Correct the CSV or add them to data.classes."
            )
        return list(self.classes)


def read_rows(path: Path) -> list[Row]:
    """Read the CSV: every row has a value for each required column, and no column is unknown."""
    if not path.is_file():
        raise FileNotFoundError(
            f"Expected the list of clips in {path}, which does not exist. Set data.annotations to a CSV file with the "
            f"columns {', '.join(REQUIRED)} and optionally {', '.join(OPTIONAL)}."
        )
    with open_list(path) as file:
        reader = csv.DictReader(file, skipinitialspace=True)
        columns = [name.strip() for name in reader.fieldnames or ()]
        _check_columns(columns, path)
        reader.fieldnames = columns
        rows = []
        for row in reader:
            if None in row or None in row.values():
                raise ValueError(f"{path}, line {reader.line_num}: expected {len(columns)} values, as the header has.")
            rows.append({name: value.strip() for name, value in row.items()})
            for name in REQUIRED:
                if not rows[-1][name]:
                    raise ValueError(f"{path}, line {reader.line_num}: expected a value for {name}, got none.")
    if not rows:
        raise ValueError(f"{path}: expected one row per clip, got a header only.")
    return rows


def _check_columns(columns: list[str], path: Path) -> None:
    known = (*REQUIRED, *OPTIONAL)
    missing = [name for name in REQUIRED if name not in columns]
    unknown = [name for name in columns if name not in known]
    twice = [name for name, count in Counter(columns).items() if count > 1]
    for what, names in (("missing", missing), ("unknown", unknown), ("repeated", twice)):
        if names:
            raise ValueError(
                f"{path}: {what} column(s) {', '.join(map(repr, names))}. Expected, separated by commas, "
                f"{', '.join(REQUIRED)} and optionally {', '.join(OPTIONAL)}; "
                f"got {', '.join(columns) or 'an empty file'}."
            )


def _check_videos(rows: list[Row], root: Path, source: Path) -> None:
    videos = list(dict.fromkeys(row["video"] for row in rows))
    missing = [video for video in videos if not (root / video).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{source} lists {len(videos)} videos, of which {len(missing)} do not exist in {root}: "
            f"{', '.join(missing[:5])}{', ...' if len(missing) > 5 else ''}. "
            "Correct data.root, the CSV, or the folder."
        )


def _splits(rows: list[Row], source: Path, seed: int) -> list[str]:
    """The split of every row: as the CSV says, or made here."""
    if "split" not in rows[0]:
        return subject_disjoint_split([row["label"] for row in rows], [row["subject"] for row in rows], seed=seed)
    subjects: dict[str, set[str]] = defaultdict(set)
    for number, row in enumerate(rows, start=2):
        if row["split"] not in SPLITS:
            raise ValueError(
                f"{source}, line {number}: expected a split out of {', '.join(SPLITS)}, got {row['split']!r}. "
                "Without the column a split is made."
            )
        subjects[row["subject"]].add(row["split"])
    torn = {name: sorted(splits) for name, splits in subjects.items() if len(splits) > 1}
    if torn:
        listed = "; ".join(f"{name} in {' and '.join(splits)}" for name, splits in list(torn.items())[:5])
        raise ValueError(
            f"{source}: expected every subject in one split, but {len(torn)} are in several ({listed}"
            f"{'; ...' if len(torn) > 5 else ''}). Correct the split column, or remove it to have a split made."
        )
    return [row["split"] for row in rows]


def _window(row: Row, where: str) -> tuple[float | None, float | None]:
    """The start and end of a row in seconds, None where the CSV gives none."""
    times = []
    for name in ("start", "end"):
        text = row.get(name, "")
        try:
            times.append(float(text) if text else None)
        except ValueError:
            raise ValueError(f"{where}: expected {name} in seconds, got {text!r}.") from None
    start, end = times
    # Written so that NaN fails too.
    if not (0 <= (start or 0) < (float("inf") if end is None else end)):
        raise ValueError(f"{where}: expected 0 <= start < end in seconds, got start {start} and end {end}.")
    return start, end


def _sample_id(video: str, start: float | None, end: float | None) -> str:
    if start is None and end is None:
        return video
    return f"{video}#{'' if start is None else f'{start:.10g}'}-{'' if end is None else f'{end:.10g}'}"
