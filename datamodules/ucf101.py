"""UCF101, and any other data set in its layout: class folders of .avi files, and lists that say which is for what.

A file is named v_<Class>_g<group>_c<clip>.avi; the clips of one group were cut from one recording, so a group must
never be in two splits. Group numbers start anew in every class.
"""

from __future__ import annotations

import dataclasses
import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from datamodules.clip_data_module import ClipDataModule
from datamodules.clip_lists import open_list
from datamodules.splits import subject_disjoint_split
from sightline.video.clips import Clip

log = logging.getLogger(__name__)

_CLASS = re.compile(r"v_(.+)_g\d+_c\d+\.\w+$", re.IGNORECASE)
_GROUP = re.compile(r"_g(\d+)_c\d+\.\w+$", re.IGNORECASE)
_ENTRY = re.compile(r"(?P<name>.+?)(?:\s+(?P<number>\d+))?$")
_PARTS = ("train", "val")


class UCF101(ClipDataModule):
    """UCF101 or a data set in its layout; a validation split is cut from the training groups."""

    def __init__(
        self,
        root: str,
        annotations: str | None = None,
        fold: int = 1,
        val_fraction: float = 0.15,
        groups_span_classes: bool = False,
        **kwargs: Any,
    ) -> None:
        """Store the settings; the lists are read when they are first needed.

        Args:
            root: Folder that holds one folder of clips per class.
            annotations: Folder of classInd.txt, trainlist01.txt and the other lists; by default root, or
                ucfTrainTestlist in it or beside it.
            fold: Which of the numbered lists to use (UCF101 has 1, 2 and 3).
            val_fraction: Share of the training clips that becomes the validation split, in whole groups; 0 for none.
            groups_span_classes: Whether a group number means the same recording in every class. In UCF101 it does not.
            kwargs: Settings of ClipDataModule.
        """
        super().__init__(**kwargs)
        if not 0 <= val_fraction < 1:
            raise ValueError(f"Expected 0 <= val_fraction < 1, got {val_fraction}.")
        self.root = Path(root)
        self.annotations = annotations
        self.fold = fold
        self.val_fraction = val_fraction
        self.groups_span_classes = groups_span_classes

    def read_clips(self) -> tuple[list[str], list[Clip]]:
        """Read the lists, find their files, and cut the validation split."""
        if not self.root.is_dir():
            raise FileNotFoundError(f"Expected class folders in {self.root}, which does not exist. Set data.root.")
        folder = self._annotation_folder()
        names = read_class_names(folder / "classInd.txt")
        lists = {
            part: read_list(_existing(folder / f"{part}list{self.fold:02d}.txt"), names) for part in ("train", "test")
        }
        files = _find_files([name for part in lists.values() for name, _ in part], self.root)
        clips = {
            part: [_clip(name, label, files[name], names, part) for name, label in rows] for part, rows in lists.items()
        }
        self._check_groups(clips["train"], clips["test"])
        return names, self._cut_validation(clips["train"], names) + clips["test"]

    def stated_classes(self, clip: Clip) -> Mapping[str, str]:
        """The class of the clip's folder, and the one in its file name."""
        path = Path(clip.path)
        named = _CLASS.match(path.name)
        return {"folder": path.parent.name} | ({"file name": named[1]} if named else {})

    def _annotation_folder(self) -> Path:
        if self.annotations is not None:
            places = [Path(self.annotations)]
        else:
            places = [self.root, self.root.parent / "ucfTrainTestlist", self.root / "ucfTrainTestlist"]
        for place in places:
            if (place / "classInd.txt").is_file():
                return place
        raise FileNotFoundError(
            f"Expected classInd.txt in {' or '.join(map(str, places))}, found none. Set data.annotations to its folder."
        )

    def _recording(self, clip: Clip) -> str:
        """What no two splits may share: the group, or only its number where that means one recording in all classes."""
        return clip.group.rsplit("_", 1)[1] if self.groups_span_classes else clip.group

    def _check_groups(self, train: list[Clip], test: list[Clip]) -> None:
        shared = {self._recording(clip) for clip in train} & {self._recording(clip) for clip in test}
        if shared:
            raise ValueError(
                f"Expected no group in both lists of fold {self.fold}, found {len(shared)}: "
                f"{', '.join(sorted(shared)[:5])}{', ...' if len(shared) > 5 else ''}. Their clips show one recording: "
                "move each group to one list."
            )

    def _cut_validation(self, clips: list[Clip], names: list[str]) -> list[Clip]:
        """The training clips with some groups marked as validation: of each class by itself, or of all together."""
        if not self.val_fraction or not clips:
            return clips
        blocks: dict[int, list[Clip]] = defaultdict(list)
        for clip in clips:
            blocks[0 if self.groups_span_classes else clip.label].append(clip)
        part_of: dict[str, str] = {}
        for label, block in sorted(blocks.items()):
            groups = [self._recording(clip) for clip in block]
            if len(set(groups)) == 1:
                continue
            fractions = (1 - self.val_fraction, self.val_fraction)
            # Another seed for each class, so that classes with the same groups do not all give away the same ones.
            parts = subject_disjoint_split(
                [clip.label for clip in block], groups, fractions, seed=self.seed * 1000 + label, names=_PARTS
            )
            part_of.update((clip.sample_id, part) for clip, part in zip(block, parts, strict=True))
        cut = [dataclasses.replace(clip, split=part_of.get(clip.sample_id, "train")) for clip in clips]
        validated = {clip.label for clip in cut if clip.split == "val"}
        missing = [name for label, name in enumerate(names) if label not in validated]
        if missing:
            log.warning("Too few groups to give all classes validation clips; without any: %s", ", ".join(missing))
        return cut


def read_class_names(path: Path) -> list[str]:
    """Read classInd.txt: a number from 1 on and a name in each line, in any order; the numbers fix the labels."""
    names: dict[int, str] = {}
    for line_number, line in _lines(path):
        number, _, name = line.partition(" ")
        if not number.isdigit() or not name.strip():
            raise ValueError(f"{path}, line {line_number}: expected '<number> <class>', got {line!r}.")
        if int(number) in names:
            raise ValueError(f"{path}, line {line_number}: expected every number once, got {number} again.")
        names[int(number)] = name.strip()
    if not names or sorted(names) != list(range(1, len(names) + 1)):
        raise ValueError(f"{path}: expected classes numbered 1, 2, 3 and so on, got {sorted(names)[:10]}.")
    return [names[number] for number in sorted(names)]


def read_list(path: Path, class_names: list[str]) -> list[tuple[str, int]]:
    """Read a list of clips: ``<Class>/<file>``, and a number from 1 on where the list has one, which must agree."""
    label_of = {name.lower(): label for label, name in enumerate(class_names)}
    rows = []
    for line_number, line in _lines(path):
        entry = _ENTRY.match(line)
        assert entry is not None, line
        name, number = entry["name"], entry["number"]
        where = f"{path}, line {line_number}"
        label = label_of.get(PurePosixPath(name).parent.name.lower())
        if label is None:
            raise ValueError(f"{where}: expected '<Class>/<file>' with a class of classInd.txt, got {line!r}.")
        if number is not None and int(number) != label + 1:
            raise ValueError(
                f"{where}: expected the number {label + 1} of {class_names[label]}, got {number}. "
                "Take lists and classInd.txt from the same source."
            )
        rows.append((name, label))
    return rows


def _existing(path: Path) -> Path:
    if path.is_file():
        return path
    found = sorted(file.name for file in path.parent.glob("*list*.txt"))
    raise FileNotFoundError(
        f"Expected {path.name} in {path.parent}, found {found}. Set data.fold to a list that exists."
    )


def _lines(path: Path) -> Iterable[tuple[int, str]]:
    """Numbered lines without their ends (CRLF in the published lists) and without the empty ones."""
    with open_list(path) as file:
        for number, line in enumerate(file.read().splitlines(), start=1):
            if line.strip():
                yield number, line.strip()


def _find_files(names: list[str], root: Path) -> dict[str, Path]:
    """The file of each listed name, matched without case: UCF101's HandstandPushups holds v_HandStandPushups_*."""
    folders = {folder.name.lower(): folder for folder in root.iterdir() if folder.is_dir()}
    wanted = {PurePosixPath(name).parent.name.lower() for name in names}
    present = {(key, file.name.lower()): file for key in wanted if key in folders for file in folders[key].iterdir()}
    found, missing = {}, []
    for name in names:
        pure = PurePosixPath(name)
        file = present.get((pure.parent.name.lower(), pure.name.lower()))
        if file is None:
            missing.append(name)
        else:
            found[name] = file
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of the {len(names)} listed clips do not exist in {root}: {', '.join(missing[:5])}"
            f"{', ...' if len(missing) > 5 else ''}. Correct data.root, the lists, or the folder."
        )
    return found


def _clip(name: str, label: int, file: Path, class_names: list[str], split: str) -> Clip:
    match = _GROUP.search(name)
    if match is None:
        raise ValueError(f"Expected clips named v_<Class>_g<group>_c<clip>.avi, got {name!r}: its group is unknown.")
    return Clip(name, str(file), label, group=f"{class_names[label]}_g{match[1]}", split=split)
