"""Render clips of the synthetic cabin and write them as a data set in the layout of `datamodules.driver_clips`.

    root/  videos/s03/steering_002.mp4   clips.csv   boxes.parquet   digests.csv   cabin.json

``clips.csv`` has the columns video, label, subject, start, end (the last two empty: the whole file). ``boxes.parquet``
has one row per frame and object (head, right_hand, left_hand, key_object): video, frame, object, name (which says what
the key object is), x0, y0, x1, y1 in pixels, visible.
``digests.csv`` says of every clip what was rendered and what the file decodes to (see `datamodules.cabin.digests`).
``cabin.json`` holds the settings and comes last: a folder without it is not whole and is completed by the next call.

This module imports neither torch nor Lightning.
"""

from __future__ import annotations

import csv
import gc
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from tqdm.auto import tqdm

from datamodules.cabin.actions import ACTIONS, act
from datamodules.cabin.canvas import Canvas
from datamodules.cabin.digests import ClipDigests, read_digests, tell_differences, versions, write_digests
from datamodules.cabin.encoding import intact_digest, write_video
from datamodules.cabin.pose import Appearance, Pose
from datamodules.cabin.scene import camera_of, draw_clip, expose
from sightline.run.atomic import replacing, write_json

# Raise it with every change that alters pixels or files, and renew what `datamodules.cabin.digests` expects: folders
# rendered by another version are refused.
FORMAT_VERSION = 2
# Whole folders of this version are used on, so that older runs find the clips that they were trained on.
OLDER_VERSION = 1
DONE, STARTED = "cabin.json", "cabin.incomplete.json"
OBJECTS = ("head", "right_hand", "left_hand", "key_object")
# Below this, starting processes takes longer than rendering.
_CLIPS_WORTH_A_POOL = 100

log = logging.getLogger(__name__)

_Result = TypeVar("_Result")

ClipName = tuple[int, str, int]
"""Subject, action, repetition."""


class Box(NamedTuple):
    """Where one object is in one frame, clipped to the frame; all zero where it is not in the picture.

    Attributes:
        frame: Index of the frame.
        object: One of `OBJECTS`; right and left are the driver's, who faces the camera.
        name: What the key object is, e.g. ``phone``; otherwise the same as ``object``.
        x0: Left edge in pixels.
        y0: Upper edge.
        x1: Right edge.
        y1: Lower edge.
        visible: Whether at least a quarter of it is inside the frame, be it hidden behind something else or not.
    """

    frame: int
    object: str
    name: str
    x0: float
    y0: float
    x1: float
    y1: float
    visible: bool


@dataclass(frozen=True)
class CabinSettings:
    """Everything that the content of a rendered data set depends on.

    Attributes:
        actions: Names of the actions, out of `ACTIONS`.
        subjects: Number of drivers.
        clips_per_action: Clips of every action by every driver.
        frames: Frames per clip; an action fills its clip, however long.
        fps: Frames per second that the files state.
        height: Height in pixels, even.
        width: Width in pixels, even.
        seed: Source of all appearances and performances.
        zoom: Magnification; above 1 the camera comes closer to driver and console, for small frames.
    """

    actions: tuple[str, ...] = ACTIONS
    subjects: int = 20
    clips_per_action: int = 6
    frames: int = 16
    fps: float = 8.0
    height: int = 112
    width: int = 112
    seed: int = 0
    zoom: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "actions", tuple(self.actions))
        check_actions(self.actions)
        for name in ("subjects", "clips_per_action", "frames"):
            if getattr(self, name) < 1:
                raise ValueError(f"Expected {name} of the synthetic cabin to be at least 1, got {getattr(self, name)}.")
        if not self.fps > 0 or self.seed < 0:
            raise ValueError(f"Expected fps > 0 and seed >= 0, got fps={self.fps}, seed={self.seed}.")
        if min(self.height, self.width) < 32 or self.height % 2 or self.width % 2:
            raise ValueError(
                f"Expected even height and width of at least 32 pixels (H.264 halves them for colour), got "
                f"{self.height}x{self.width}."
            )

    def names(self) -> Iterator[ClipName]:
        """Yield every clip of the data set, subject by subject."""
        for subject in range(self.subjects):
            for action in self.actions:
                for repetition in range(self.clips_per_action):
                    yield subject, action, repetition

    def record(self, version: int | None = None) -> dict:
        """Return what ``cabin.json`` holds."""
        return {
            "format": version or FORMAT_VERSION,
            **asdict(self),
            "actions": list(self.actions),
            "fps": float(self.fps),
        }

    def folder(self, version: int | None = None) -> str:
        """Return a folder name that differs wherever the content would, also by the version that rendered it."""
        digest = hashlib.sha256(json.dumps(self.record(version), sort_keys=True).encode()).hexdigest()[:8]
        counts = f"{len(self.actions)}actions-{self.subjects}subjects-{self.clips_per_action}clips"
        return f"{counts}-{self.frames}x{self.height}x{self.width}-{digest}"


def folder_in(root: str | Path, settings: CabinSettings) -> Path:
    """Return where a data set lies or will lie below ``root``: what an older version rendered is used on."""
    folder, older = (Path(root) / settings.folder(version) for version in (FORMAT_VERSION, OLDER_VERSION))
    return older if (older / DONE).is_file() and not (folder / DONE).is_file() else folder


def check_actions(actions: tuple[str, ...] | list[str]) -> None:
    """Raise unless ``actions`` are different, known names."""
    unknown = [name for name in actions if name not in ACTIONS]
    if unknown:
        raise ValueError(f"Unknown action(s) {', '.join(map(repr, unknown))}. The cabin knows {', '.join(ACTIONS)}.")
    if not actions or len(set(actions)) != len(actions):
        raise ValueError(f"Expected at least one action and none twice, got {', '.join(actions) or 'none'}.")


def video_name(name: ClipName) -> str:
    """Return a clip's path relative to the data set's root."""
    subject, action, repetition = name
    return f"videos/s{subject:02d}/{action}_{repetition:03d}.mp4"


def perform(settings: CabinSettings, subject: int, action: str, repetition: int) -> tuple[Pose, np.random.Generator]:
    """Return the pose of a clip over time, and the random numbers that its rendering goes on with."""
    check_actions([action])
    # The action's place among all 20 enters, not its place in the settings: a clip is the same in every selection.
    key = (1, subject, ACTIONS.index(action), repetition)
    rng = np.random.default_rng(np.random.SeedSequence(settings.seed, spawn_key=key))
    return act(Appearance.draw(settings.seed, subject), action, settings.frames, rng), rng


def render_clip(
    settings: CabinSettings, subject: int, action: str, repetition: int
) -> tuple[NDArray[np.uint8], list[Box]]:
    """Render one clip: frames (T, H, W, 3) and the boxes of `OBJECTS` in every frame."""
    pose, rng = perform(settings, subject, action, repetition)
    canvas = draw_clip(pose, camera_of(pose.appearance, settings.height, settings.width, settings.zoom))
    grey = np.rint(expose(canvas, pose, rng) * 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1), _boxes(canvas, pose)


def clip_boxes(settings: CabinSettings, subject: int, action: str, repetition: int) -> list[Box]:
    """Return the boxes that `render_clip` returns, without rendering."""
    pose, _ = perform(settings, subject, action, repetition)
    return _boxes(
        draw_clip(pose, camera_of(pose.appearance, settings.height, settings.width, settings.zoom), raster=False), pose
    )


def _boxes(canvas: Canvas, pose: Pose) -> list[Box]:
    height, width = canvas.camera.height, canvas.camera.width
    boxes = []
    for kind in OBJECTS:
        name = pose.key if kind == "key_object" else kind
        extents = np.nan_to_num(canvas.boxes[name].astype(float), posinf=1e9, neginf=-1e9)
        clipped = np.clip(extents, 0, [width, height, width, height])
        area, kept = ((e[:, 2:] - e[:, :2]).clip(0).prod(axis=1) for e in (extents, clipped))
        painted = extents[:, 0] < extents[:, 2]
        for frame in range(pose.frames):
            edges = clipped[frame] if painted[frame] and kept[frame] > 0 else np.zeros(4)
            visible = bool(painted[frame] and kept[frame] >= 0.25 * area[frame])
            x0, y0, x1, y1 = np.round(edges, 2).tolist()
            boxes.append(Box(frame, kind, name, x0, y0, x1, y1, visible))
    return boxes


def _produce(root: Path, settings: CabinSettings, name: ClipName) -> tuple[list[Box], ClipDigests]:
    """Write one clip unless it is there and intact; returns its boxes and digests either way."""
    path = root / video_name(name)
    if found := intact_digest(path):
        return clip_boxes(settings, *name), ClipDigests(found, found)
    frames, boxes = render_clip(settings, *name)
    return boxes, ClipDigests(*write_video(path, frames[..., 0], settings.fps))


def write_cabin(root: str | Path, settings: CabinSettings, workers: int | None = None) -> None:
    """Write the data set into ``root``; what is already there from the same settings is kept.

    Args:
        root: Folder of the data set.
        settings: What to render.
        workers: Processes that render; by default one for small data sets, else one per core. The result is the same.

    Raises:
        ValueError: Where the folder holds something else.
    """
    root = Path(root)
    if workers is not None and workers < 1:
        raise ValueError(f"Expected workers >= 1 or none for a default, got {workers}.")
    whole = _check_root(root, settings)
    if whole and json.loads((root / DONE).read_text())["format"] == OLDER_VERSION:
        log.warning(
            "The clips in %s were rendered by an older version, which renders a few of them differently now and then. "
            "They are used as they are; delete the folder to have them rendered anew, as the documented figures need.",
            root,
        )
        return
    names = list(settings.names())
    if not whole or not _intact(root, names, workers):
        root.mkdir(parents=True, exist_ok=True)
        write_json(root / STARTED, settings.record())
        done = _run(partial(_produce, root, settings), names, workers)
        done = tqdm(done, "Rendering the cabin", len(names), unit="clip", mininterval=1)
        boxes, digests = zip(*done, strict=True)
        _write_tables(root, names, boxes)
        write_digests(root, dict(zip(map(video_name, names), digests, strict=True)))
        # Concurrent writers of the same settings write the same files; whoever comes second finds the mark moved
        # already.
        write_json(root / DONE, {**settings.record(), "versions": versions()})
        (root / STARTED).unlink(missing_ok=True)
    tell_differences(settings.folder(), read_digests(root))


def _intact(root: Path, names: list[ClipName], workers: int | None) -> bool:
    """Return whether every file of a whole data set still decodes to what it was written from; say so where not."""
    known = read_digests(root)
    videos = [video_name(name) for name in names]
    found = _run(intact_digest, [root / video for video in videos], workers)
    changed = [
        video
        for video, digest in zip(videos, found, strict=True)
        if digest is None or known.get(video) != ClipDigests(digest, digest)
    ]
    if changed:
        log.warning(
            "%d of %d clips in %s are missing or no longer hold the frames that they were written with, the first is "
            "%s. They are rendered again.",
            len(changed),
            len(names),
            root,
            changed[0],
        )
    for video in changed:
        (root / video).unlink(missing_ok=True)  # an intact file of another clip would be kept otherwise
    return not changed


def _run(produce: Callable[[Any], _Result], items: list[Any], workers: int | None) -> Iterator[_Result]:
    if workers is None:
        workers = _cores() if len(items) >= _CLIPS_WORTH_A_POOL else 1
    if workers == 1:
        yield from map(produce, items)
        return
    # The platform's own way to start processes, as loaders do it: spawning would run a user's script again. Forked
    # processes must not collect what the parent left behind, e.g. PyAV objects that own threads.
    pool = ProcessPoolExecutor(max_workers=workers, mp_context=get_context(), initializer=gc.freeze)
    try:
        yield from pool.map(produce, items, chunksize=8)
    finally:
        pool.shutdown(cancel_futures=True)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check_root(root: Path, settings: CabinSettings) -> bool:
    """Return whether ``root`` holds the whole data set already; raise where it holds another one."""
    for mark in (DONE, STARTED):
        if not (root / mark).is_file():
            continue
        found, wanted = json.loads((root / mark).read_text()), settings.record()
        if mark == DONE and found.get("format") == OLDER_VERSION:
            wanted = settings.record(OLDER_VERSION)
        differing = [key for key in wanted if found.get(key) != wanted[key]]
        if differing:
            listed = "; ".join(f"{key} is {found.get(key)!r}, expected {wanted[key]!r}" for key in differing)
            raise ValueError(
                f"{root} holds a synthetic cabin rendered with other settings: {listed}. "
                "Choose another folder, or delete this one to have it rendered again."
            )
        return mark == DONE
    if (root / "clips.csv").exists() or (root / "videos").exists():
        raise ValueError(
            f"Expected {root} to be empty or a synthetic cabin, but it holds clips of its own and no {DONE}. "
            "Choose another folder; nothing was written."
        )
    return False


def _write_tables(root: Path, names: list[ClipName], boxes: Sequence[list[Box]]) -> None:
    with replacing(root / "clips.csv") as unfinished, unfinished.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["video", "label", "subject", "start", "end"])
        writer.writerows((video_name(name), name[1], f"s{name[0]:02d}", "", "") for name in names)
    rows = [(video_name(name), *box) for name, clip in zip(names, boxes, strict=True) for box in clip]
    columns = dict(zip(("video", *Box._fields), zip(*rows, strict=True), strict=True))
    with replacing(root / "boxes.parquet") as unfinished:
        pq.write_table(pa.table({key: pa.array(values) for key, values in columns.items()}), unfinished)
