"""The section on kept tokens: means over clips, and the pictures apart from those of heads."""

import json

import pandas as pd
import pytest

from sightline.report.page.blocks import Gallery, Missing, Table, Text
from sightline.report.page.gallery_section import Embedding, gallery_section
from sightline.report.page.kept_section import kept_section
from sightline.report.stored.run_results import RunResults


@pytest.fixture
def run(tmp_path) -> RunResults:
    (tmp_path / "tables").mkdir()
    (tmp_path / "attention").mkdir()
    (tmp_path / "config.yaml").write_text("model: {}\ndata: {}\ntrainer: {}\n")
    return RunResults(tmp_path)


def rows() -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "sample_id": clip, "class": "a", "tokens": "sta", "predicted": said, "predicted_all": "a",
                "kept_pct": 60, "trajectory_sum": total, "trajectory_random": 3, "trajectory_all": 4, "place": place,
                "grid": "4x8x8", "tokens_pct": share, "cells_pct": share, "gradnorm_pct": mass,
            }
            for clip, said, total in (("x", "a", 1), ("y", "b", 2))
            for place, share, mass in (("layer 0", 50, 70 if clip == "x" else 80), ("layer 2", 25, 40))
        ]
    )  # fmt: skip


def test_means_over_clips_per_reduction_and_place(run):
    rows().to_csv(run.paths.table("kept_tokens_test"), index=False)
    methods, places = kept_section(run, Embedding(run.paths.report, 1)).blocks
    assert isinstance(methods, Table)
    assert methods.rows == [["sta", "2", "60", "50", "1.50", "3.00", "4.00"]]
    assert "On 2 test clips" in methods.caption
    assert isinstance(places, Table)
    assert places.rows == [
        ["sta", "layer 0", "4x8x8", "50.0", "50.0", "75.0", "50.0"],
        ["sta", "layer 2", "4x8x8", "25.0", "25.0", "40.0", "25.0"],
    ]


def test_merged_tokens_are_held_against_as_many_cells(run):
    """Where all is merged and nothing dropped, all cells are held: that is no merit."""
    rows().assign(cells_pct=100, gradnorm_pct=100).to_csv(run.paths.table("kept_tokens_test"), index=False)
    _, places = kept_section(run, Embedding(run.paths.report, 1)).blocks
    assert isinstance(places, Table)
    assert [row[3:] for row in places.rows] == [
        ["50.0", "100.0", "100.0", "100.0"],
        ["25.0", "100.0", "100.0", "100.0"],
    ]


def test_each_picture_is_in_one_section_and_both_share_the_limit(run):
    folder = run.paths.attention
    for name in ("a_heads.png", "a_sta_kept.png", "a_sta_kept.mp4"):
        (folder / name).write_bytes(b"x" * 400_000)
    run.paths.captions.write_text(json.dumps({"a_sta_kept.png": "What sta keeps", "a_heads.png": "Heads"}))
    embedding = Embedding(run.paths.report, 1)
    heads, kept = gallery_section(run, embedding), kept_section(run, embedding)
    [shown] = [block for block in heads.blocks if isinstance(block, Gallery)]
    assert [(caption, [medium.name for medium in media]) for caption, media in shown.items] == [
        ("Heads", ["a_heads.png"])
    ]
    [shown] = [block for block in kept.blocks if isinstance(block, Gallery)]
    [(caption, media)] = shown.items
    assert caption == "What sta keeps"
    assert [medium.source[:5] for medium in media] == ["data:", "atten"]  # the third file is beyond the limit
    assert any(isinstance(block, Text) and "1 of 2 files are linked" in block.text for block in kept.blocks)


def test_what_is_missing_can_be_made(run):
    [missing] = kept_section(run, Embedding(run.paths.report, 1)).blocks
    assert isinstance(missing, Missing)
    assert missing.command.endswith("--tokens random --tokens.kept 0.5")
    rows().drop(columns="grid").to_csv(run.paths.table("kept_tokens_val"), index=False)
    with pytest.raises(ValueError, match="lacks the columns grid"):
        kept_section(run, Embedding(run.paths.report, 1))
