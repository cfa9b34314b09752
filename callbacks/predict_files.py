"""``predict --exported``: classes of plain video files from an exported model's folder, without a run or a data set."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TextIO

import torch
from jsonargparse import ArgumentParser
from rich.console import Console
from rich.table import Table
from torch import Tensor

from sightline.backbones import Backbone
from sightline.export.depth import layers_to_skip
from sightline.export.reading import DESCRIPTION, ExportError, load_exported, read_description
from sightline.video.clips import Clip, ClipSettings, load_clip
from sightline.video.decoding import UnreadableClip
from sightline.video.windows import sliding_windows, video_seconds

_Classes = list[tuple[str, float]]


@dataclass(frozen=True)
class Part:
    """What is classified as one: a video, or a window of it.

    Attributes:
        video: The file.
        start: Where the part begins, in seconds.
        end: Where it ends.
    """

    video: str
    start: float
    end: float


def predict_command(arguments: Sequence[str]) -> int:
    """Run ``predict`` on an exported model with the command line's arguments; return the exit code."""
    explanation = (predict_files.__doc__ or "").partition("Args:")[0]
    parser = ArgumentParser(prog="train.py predict", description=explanation)
    parser.add_function_arguments(predict_files, as_group=False, skip={"video"})
    parser.add_argument("--video", nargs="+", action="extend", required=True, help="Video files; may be repeated.")
    return predict_files(**parser.parse_args(list(arguments)).as_dict())


def predict_files(
    exported: str,
    video: list[str],
    window: float | None = None,
    stride: float | None = None,
    out: str | None = None,
    top: int = 5,
    depth: int = 0,
    batch: int = 8,
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> int:
    """Classify video files with an exported model: a table on a terminal, JSON lines elsewhere.

    Frames are taken, resized and cut as in the evaluation of the run that exported the model. A file that cannot be
    read gives one line on stderr; the others go on, and the exit code is 1.

    Args:
        exported: The model's folder, e.g. runs/demo/pruned/relevance-r-lowest-k2.
        video: Video files.
        window: Seconds of a window that slides over each video; the whole video is one clip if not given. Gives JSON
            lines with start and end in seconds.
        stride: Seconds from one window's start to the next one's; the window's length if not given.
        out: File to write the JSON lines to.
        top: How many classes to tell, the most probable first.
        depth: How many of the least relevant layers to leave out of an unpruned export
            (PrunedCheckpoints' export_full).
        batch: Clips per forward pass.
        device: Where to compute; auto takes a GPU where there is one.

    Returns:
        The exit code.
    """
    _check_options(video, window, stride, top, batch)
    chosen = _device(device)
    settings, names = _preprocessing(exported)
    skip = layers_to_skip(exported, depth)
    backbone = load_exported(exported).to(chosen)
    failed: list[str] = []
    clips = _clips(video, window, stride if stride is not None else window, settings, failed)
    results = _classified(backbone, clips, batch, skip, names, top)
    with ExitStack() as stack:
        if out is None and window is None and sys.stdout.isatty():
            _print_table(results)
        else:
            stream: TextIO = sys.stdout if out is None else stack.enter_context(open(out, "w", encoding="utf-8"))
            _write_lines(results, stream)
    return int(bool(failed))


def _check_options(videos: list[str], window: float | None, stride: float | None, top: int, batch: int) -> None:
    if not videos:
        raise ValueError("Expected at least one file with --video, got none.")
    if top < 1 or batch < 1:
        raise ValueError(f"Expected top and batch of at least 1, got {top} and {batch}.")
    if stride is not None and window is None:
        raise ValueError("--stride goes with --window: say how many seconds a window lasts.")
    if window is not None:
        sliding_windows(0.0, window, window if stride is None else stride)


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda was asked for, but PyTorch sees no CUDA device. Use --device auto.")
    return torch.device("cuda" if name == "auto" and torch.cuda.is_available() else name.replace("auto", "cpu"))


def _preprocessing(folder: str) -> tuple[ClipSettings, list[str]]:
    """Return how a clip becomes the model's input, and the names of its classes."""
    description = read_description(folder)
    try:
        told = description["sampling"]
        settings = ClipSettings(**{key: told[key] for key in ("frames", "size", "short_side", "antialias")})
        spec = description["input"]
        if (settings.frames, settings.size, settings.size) != (spec["frames"], spec["height"], spec["width"]):
            raise ValueError(f"{told} gives other clips than {spec}")
        count = int(description["num_classes"])
        names = list(map(str, description["classes"])) or list(map(str, range(count)))
    except (KeyError, TypeError, ValueError) as error:
        raise ExportError(
            f"{Path(folder) / DESCRIPTION} does not say how clips are made (sampling: {error}). Export the model again."
        ) from error
    return settings, names


def _clips(
    videos: list[str], window: float | None, stride: float | None, settings: ClipSettings, failed: list[str]
) -> Iterator[tuple[Part, Tensor]]:
    """Read one clip after the other; of a file that cannot be read, say so, note it and leave the rest out."""
    for path in videos:
        try:
            duration = video_seconds(path)
            if window is None or stride is None:
                yield Part(path, 0.0, duration), load_clip(Clip(path, path, 0, ""), settings)
                continue
            for start, end in sliding_windows(duration, window, stride):
                clip = Clip(path, path, 0, "", start=start, end=end)
                yield Part(path, start, end), load_clip(clip, settings)
        except UnreadableClip as error:
            failed.append(path)
            print(f"error: {error}", file=sys.stderr)


@torch.no_grad()
def _classified(
    backbone: Backbone,
    clips: Iterator[tuple[Part, Tensor]],
    batch: int,
    skip: Collection[int],
    names: list[str],
    top: int,
) -> Iterator[tuple[Part, _Classes]]:
    """Give every clip's most probable classes, running ``batch`` of them at a time."""
    device = next(backbone.parameters()).device
    while some := list(islice(clips, batch)):
        frames = torch.stack([frames for _, frames in some]).to(device)
        probabilities = backbone(frames, skip=skip).cpu().double().softmax(dim=-1)
        best = probabilities.topk(min(top, len(names)), dim=-1)
        for (part, _), values, places in zip(some, best.values.tolist(), best.indices.tolist(), strict=True):
            yield part, [(names[place], value) for place, value in zip(places, values, strict=True)]


def _write_lines(results: Iterator[tuple[Part, _Classes]], stream: TextIO) -> None:
    for part, classes in results:
        line: dict[str, Any] = {"video": part.video, "start": round(part.start, 6), "end": round(part.end, 6)}
        line["classes"] = [{"name": name, "probability": round(p, 6)} for name, p in classes]
        print(json.dumps(line, ensure_ascii=False), file=stream, flush=True)


def _print_table(results: Iterator[tuple[Part, _Classes]]) -> None:
    table = Table()
    table.add_column("video", overflow="fold")
    table.add_column("class")
    table.add_column("probability", justify="right")
    for part, classes in results:
        for number, (name, p) in enumerate(classes):
            table.add_row("" if number else part.video, name, f"{p:.3f}", end_section=number + 1 == len(classes))
    if table.row_count:
        Console().print(table)
