"""The check of a data set: every clip of every split is opened and decoded, and what is wrong is listed as a CSV."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from tqdm.auto import tqdm

from datamodules.clip_check import KINDS, Contents, Finding, examine, findings
from datamodules.clip_data_module import ClipDataModule
from datamodules.dataset import SPLITS
from datamodules.isolated_workers import Lost, run_isolated
from sightline.run.csv_table import write_rows
from sightline.video.clips import Clip

COLUMNS = ("kind", "split", "sample_id", "path", "reason", "other_split", "other_sample_id", "other_path")
_SHOWN = 3


def check_data(
    data: ClipDataModule,
    out: str | None = None,
    workers: int | None = None,
    min_frames: int | None = None,
    seconds_per_clip: float = 600.0,
    folder: str | Path = ".",
) -> int:
    """Open and decode every clip of every split, and list what is wrong; exit code 1 if anything is.

    Findings are clips that are unreadable; damaged, so that frames are not what was recorded; too short for the model,
    so that frames are repeated; labelled otherwise than their folder or file name says; of a class whose name differs
    from another's in nothing but case or white space; duplicated within a split; or leaking from one split to another.

    Args:
        data: The data.
        out: The CSV file to write, one row per finding; by default data_check.csv in the tables of the run that --run
            names, else in the current folder.
        workers: Processes that decode; by default one per core.
        min_frames: Frames below which a clip is too short; by default as many as the model takes (data.frames).
        seconds_per_clip: A clip whose decoding takes longer counts as unreadable.
        folder: Where to write if ``out`` does not say.

    Returns:
        The number of findings.
    """
    workers = _cores() if workers is None else workers
    min_frames = data.frames if min_frames is None else min_frames
    if workers < 1 or min_frames < 1 or seconds_per_clip <= 0:
        raise ValueError(
            f"Expected workers >= 1, min_frames >= 1 and seconds_per_clip > 0, got workers={workers}, "
            f"min_frames={min_frames} and seconds_per_clip={seconds_per_clip:g}."
        )
    path = _writable(Path(folder) / "data_check.csv" if out is None else Path(out))
    data.prepare_data()
    clips = [clip for split in SPLITS for clip in data.clips(split)]
    contents = _examine_all(clips, workers, seconds_per_clip)
    found = findings(clips, contents, data.class_names, data.stated_classes, min_frames)
    write_findings(found, path)
    _print_summary(found, len(clips), path)
    return len(found)


def _writable(path: Path) -> Path:
    """The path, if a file can be written there: better said now than after an hour."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        usable = os.access(path.parent, os.W_OK) and not path.is_dir()
    except OSError:
        usable = False
    if not usable:
        raise ValueError(f"Expected --out to name a file that can be written, got {path}. Name another.")
    return path


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _examine_all(clips: Sequence[Clip], workers: int, seconds_per_clip: float) -> dict[str, Contents]:
    """What every clip's file holds, by sample_id."""
    contents: dict[str, Contents] = {}
    tasks: list[tuple[Clip, bool]] = []
    # Parts of one file one after the other: its timeline is remembered for a while, and its digest is taken once.
    for clip in sorted(clips, key=lambda clip: (clip.path, clip.frame_range or (0, 0), clip.start or 0.0)):
        tasks.append((clip, not tasks or tasks[-1][0].path != clip.path))
    results = run_isolated(examine, tasks, workers, seconds_per_clip)
    # smoothing: the mean rate so far tells the time left better than the last few clips, long or short.
    for (clip, _), result in tqdm(results, "Checking", len(tasks), unit="clip", mininterval=1.0, smoothing=0.05):
        contents[clip.sample_id] = Contents(reason=result.reason) if isinstance(result, Lost) else result
    return contents


def write_findings(found: Sequence[Finding], path: Path) -> None:
    """Write one row per finding; the file appears only when it is whole."""
    rows = []
    for finding in found:
        clip, other = finding.clip, finding.other
        its = (other.split, other.sample_id, str(other.path)) if other is not None else ("", "", "")
        rows.append((finding.kind, clip.split, clip.sample_id, str(clip.path), finding.reason, *its))
    write_rows(path, COLUMNS, rows)


def _print_summary(found: Sequence[Finding], num_clips: int, path: Path) -> None:
    if not found:
        print(f"No findings among {num_clips} clips (written to {path}).")
        return
    table = Table(title=f"{len(found)} findings among {num_clips} clips", title_justify="left")
    table.add_column("finding")
    table.add_column("count", justify="right")
    table.add_column("for example", overflow="fold")
    for kind in KINDS:
        of_kind = [finding for finding in found if finding.kind == kind]
        shown = [f"{f.clip.split}  {f.clip.sample_id}: {f.reason}" for f in of_kind[:_SHOWN]]
        more = ["..."] if len(of_kind) > _SHOWN else []
        table.add_row(kind, str(len(of_kind)), escape("\n".join([*shown, *more])))
    console = Console(width=max(Console().width, 110))
    console.print(table)
    console.print(f"All findings: {escape(str(path))}", highlight=False, soft_wrap=True)
