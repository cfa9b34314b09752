"""The section with attention galleries: pictures and clips of a run's ``attention/``, embedded up to a limit."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from sightline.report.page.blocks import Block, Gallery, Medium, Missing, Section, Text
from sightline.report.stored.run_results import RunResults

TYPES = {".png": "image/png", ".mp4": "video/mp4"}
KEPT = "_kept"
"""What the names of pictures and clips of kept tokens end with; they have a section of their own."""


class Embedding:
    """What becomes part of a page of all the files that it shows: the first ones, up to a limit.

    Attributes:
        embed_mb: The limit in megabytes.
    """

    def __init__(self, page: Path, embed_mb: float) -> None:
        """Begin a page.

        Args:
            page: Where it will lie; files that are not embedded are linked from there.
            embed_mb: How many megabytes of files are embedded at most.
        """
        self.embed_mb = embed_mb
        self._page, self._room = page, embed_mb * 1e6

    def take(self, files: list[Path]) -> tuple[dict[Path, Medium], list[Path]]:
        """Turn files into media; also return those of them that are linked."""
        media: dict[Path, Medium] = {}
        linked: list[Path] = []
        for path in files:
            self._room -= path.stat().st_size
            if self._room >= 0:
                source = f"data:{TYPES[path.suffix]};base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"
            else:
                linked.append(path)
                source = quote(Path(os.path.relpath(path.resolve(), self._page.resolve().parent)).as_posix())
            media[path] = Medium(source, path.suffix == ".mp4", path.name)
        return media, linked


def gallery_section(run: RunResults, embedding: Embedding) -> Section:
    """Show what single heads look at."""
    section = Section(
        "attention",
        "What heads look at",
        "Attention of single heads over the frames of a clip: the brighter a place, the more weight the head gives it.",
    )
    captions = read_captions(run.paths.captions)
    files = [path for path in gallery_files(run.paths.attention, captions) if not path.stem.endswith(KEPT)]
    if files:
        section.blocks += gallery_blocks(files, run.paths.attention, captions, embedding)
    else:
        section.blocks.append(Missing("No attention was drawn yet. Draw it with", run.command("explain")))
    return section


def gallery_blocks(files: list[Path], folder: Path, captions: Mapping[str, str], embedding: Embedding) -> list[Block]:
    """Show pictures and clips of a folder, those of one name together, and say what is not embedded."""
    media, linked = embedding.take(files)
    groups: dict[str, list[Path]] = {}
    for file in files:
        groups.setdefault(str(file.relative_to(folder).with_suffix("")), []).append(file)
    blocks: list[Block] = [
        Gallery(
            [
                (_caption(captions, folder, paths) or name, [media[path] for path in paths])
                for name, paths in groups.items()
            ]
        )
    ]
    if len(files) > len(linked):
        blocks.append(
            Text("This page contains frames of clips. Share it only where the clips may be shared.", note=True)
        )
    if linked:
        blocks.append(
            Text(
                f"{len(linked)} of {len(files)} files are linked and not part of this page, which embeds at most "
                f"{embedding.embed_mb:g} MB: they show only while {folder.name}/ stays where it is.",
                note=True,
            )
        )
    return blocks


def gallery_files(folder: Path, captions: Mapping[str, str]) -> list[Path]:
    """Return the pictures and clips of a gallery: in the order of its captions, then by name."""
    found = [path for path in folder.rglob("*") if path.suffix in TYPES and not path.name.startswith(".")]
    order = {name: place for place, name in enumerate(captions)}
    # A picture and a clip of one name belong together, wherever only one of them has a caption.
    stems: dict[str, int] = {}
    for name, place in order.items():
        stems.setdefault(str(Path(name).with_suffix("")), place)

    def key(path: Path) -> tuple[int, str, str]:
        stem = str(path.relative_to(folder).with_suffix(""))
        return stems.get(stem, len(order)), stem, (path.suffix == ".mp4" and "1") or "0"

    return sorted(found, key=key)


def read_captions(path: Path) -> dict[str, str]:
    """Read the captions: file name (within the folder) -> caption; empty where there are none.

    Raises:
        ValueError: If it holds anything else.
    """
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}). Restore it, or delete it.") from error
    if not isinstance(content, dict) or not all(isinstance(caption, str) for caption in content.values()):
        raise ValueError(
            f'{path} should hold one object of file names and captions, {{"clip.png": "What it shows"}}. '
            "Restore it, or delete it."
        )
    return content


def _caption(captions: Mapping[str, str], folder: Path, paths: list[Path]) -> str:
    told = [captions.get(path.relative_to(folder).as_posix(), "") for path in paths]
    return next((text for text in told if text), "")
