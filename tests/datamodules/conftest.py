"""Fixtures of the data tests: small data sets on disk, written once per session."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.sightline.video.video_files import write_video


@pytest.fixture(scope="session")
def driver_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four subjects with three classes, one short AVI each, and clips.csv with a split column."""
    root = tmp_path_factory.mktemp("driver")
    rows = ["video,label,subject,split"]
    for subject, split in (("anna", "train"), ("ben", "train"), ("cleo", "val"), ("dan", "test")):
        for label in ("drinking", "driving", "texting"):
            name = f"{subject}/{label}.avi"
            write_video(root / name, num_frames=12)
            rows.append(f"{name},{label},{subject},{split}")
    (root / "clips.csv").write_text("\n".join(rows) + "\n")
    return root
