"""Which frames a rendered data set holds, and whether they are the ones that the same settings gave before.

``digests.csv`` has one row per clip: video, rendered (digest of the frames before encoding), decoded (digest of the
frames that the finished file decodes to). Files are lossless, so the two are equal wherever a file is intact.

``expected.json`` beside this module holds the digests of settings that the repository's own figures come from, and the
versions that drew them. `datamodules.cabin.renew_expected` writes it.

This module imports neither torch nor Lightning.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

from sightline.run.csv_table import read_rows, write_rows

log = logging.getLogger(__name__)

DIGESTS = "digests.csv"
EXPECTED = Path(__file__).with_name("expected.json")
# 24 bits per clip: of 1,200 other clips, less than one in 10,000 sets has one that is taken for the expected one.
_DIGITS = 6


class ClipDigests(NamedTuple):
    """What was drawn and what the file holds; see `datamodules.cabin.encoding.digest`."""

    rendered: str
    decoded: str


def versions() -> dict[str, str]:
    """Return the versions of what draws, encodes and decodes."""
    return {"numpy": np.__version__, "pyav": av.__version__, "ffmpeg": av.ffmpeg_version_info}


def write_digests(root: Path, digests: dict[str, ClipDigests]) -> None:
    """Write ``digests.csv`` of a data set; ``digests`` has every video in the data set's order."""
    write_rows(root / DIGESTS, ["video", *ClipDigests._fields], ((video, *pair) for video, pair in digests.items()))


def read_digests(root: Path) -> dict[str, ClipDigests]:
    """Return what ``digests.csv`` of a data set says, by video; nothing where it is missing."""
    if not (root / DIGESTS).is_file():
        return {}
    return {row["video"]: ClipDigests(row["rendered"], row["decoded"]) for row in read_rows(root / DIGESTS)}


def tell_differences(folder: str, digests: dict[str, ClipDigests]) -> list[str]:
    """Warn where clips are not those that the repository expects of these settings; returns their videos.

    Args:
        folder: The settings' folder name (`CabinSettings.folder`), which `EXPECTED` is keyed by.
        digests: Of every clip, in the data set's order.

    Returns:
        The differing videos; none where nothing is expected of these settings.
    """
    expected = json.loads(EXPECTED.read_text()).get(folder)
    if expected is None:
        return []
    known = dict(zip(digests, " ".join(expected["clips"].values()).split(), strict=True))
    differing = [video for video, pair in digests.items() if pair.decoded[:_DIGITS] != known[video]]
    if differing:
        ours = versions()
        others = [
            f"{name} {ours[name]} instead of {old}" for name, old in expected["versions"].items() if ours[name] != old
        ]
        log.warning(
            "%d of %d clips of the synthetic cabin differ from those behind the documented figures, the first is %s. "
            "%s. Results from these clips repeat on this machine, but may differ a little from the documented ones.",
            len(differing),
            len(digests),
            differing[0],
            f"They were drawn by {', '.join(others)}" if others else "Another processor rounds differently",
        )
    return differing


def expected_of(digests: dict[str, ClipDigests]) -> dict:
    """Return the entry of `EXPECTED` for a data set: versions, and per subject the first digits of its clips."""
    subjects = groupby(digests.items(), key=lambda item: item[0].split("/")[1])
    clips = {subject: _short(pair.decoded for _, pair in items) for subject, items in subjects}
    return {"versions": versions(), "clips": clips}


def _short(digests: Iterable[str]) -> str:
    return " ".join(digest[:_DIGITS] for digest in digests)
