"""``predict --exported``: classes of plain video files from an exported model's folder, without a run or a data set."""

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, TextIO

from sightline.commands.options import call_with_options

# Annotations are not postponed here: to read such, jsonargparse would import what follows, and --help take seconds.
if TYPE_CHECKING:
    from torch import Tensor

    from sightline.export.model import Model
    from sightline.export.prediction import Part, Prediction


def run(name: str, arguments: list[str]) -> int:
    """Run ``predict`` on an exported model; return the exit code."""
    return call_with_options(predict_files, name, arguments, words={"video": "Video files; may be repeated."})


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
    read, or windows of it that cannot, give one line on stderr; the others go on, and the exit code is 1.

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
    from sightline.export.model import load  # not needed for --help
    from sightline.export.prediction import check_windows, classify_parts

    if not video:
        raise ValueError("Expected at least one file with --video, got none.")
    if top < 1:
        raise ValueError(f"Expected top of at least 1, got {top}.")
    check_windows(window, stride, batch)
    model = load(exported, device=device, depth=depth)
    failed: list[str] = []
    parts = _readable_parts(model, video, window, stride, failed)
    predictions = classify_parts(model.classify, parts, model.classes, batch)
    with ExitStack() as stack:
        if out is None and window is None and sys.stdout.isatty():
            _print_table(predictions, top)
        else:
            stream: TextIO = sys.stdout if out is None else stack.enter_context(open(out, "w", encoding="utf-8"))
            _write_lines(predictions, top, stream)
    return int(bool(failed))


def _readable_parts(
    model: "Model", videos: list[str], window: float | None, stride: float | None, failed: list[str]
) -> "Iterator[tuple[Part, Tensor]]":
    """Read one clip after the other; of what cannot be read, say so, note the file and go on with the rest."""
    from sightline.export.prediction import read_parts
    from sightline.video.sources import VideoFile
    from sightline.video.video_file import UnreadableClip

    for path in videos:
        left_out: list[tuple[Part, UnreadableClip]] = []
        try:
            yield from read_parts(VideoFile(path), model.preprocessing, window, stride, left_out)
        except UnreadableClip as error:
            failed.append(path)
            print(f"error: {error}", file=sys.stderr)
            continue
        if left_out:
            failed.append(path)
            part, first = left_out[0]
            what = f"{len(left_out)} window(s) left out, the first from {part.start:g} s on"
            print(f"error: {path}: {what}: {first.reason}", file=sys.stderr)


def _write_lines(predictions: "Iterable[Prediction]", top: int, stream: TextIO) -> None:
    for found in predictions:
        assert found.start is not None
        assert found.end is not None
        line: dict[str, Any] = {"video": found.video, "start": round(found.start, 6), "end": round(found.end, 6)}
        line["classes"] = [{"name": name, "probability": round(p, 6)} for name, p in _best(found, top)]
        print(_writable(json.dumps(line, ensure_ascii=False)), file=stream, flush=True)


def _print_table(predictions: "Iterable[Prediction]", top: int) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table()
    table.add_column("video", overflow="fold")
    table.add_column("class")
    table.add_column("probability", justify="right")
    for found in predictions:
        best = _best(found, top)
        for number, (name, p) in enumerate(best):
            table.add_row(
                "" if number else _writable(found.video), name, f"{p:.3f}", end_section=number + 1 == len(best)
            )
    if table.row_count:
        Console().print(table)


def _writable(text: str) -> str:
    r"""The text, where names of files are no UTF-8 with escapes such as ``\udcff``; JSON is read back as it was."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _best(found: "Prediction", top: int) -> list[tuple[str, float]]:
    return list(islice(found.probabilities.items(), top))
