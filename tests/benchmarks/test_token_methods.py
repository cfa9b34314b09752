"""The benchmark of token reductions: what it configures and computes, by hand, and one tiny turn of all of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks import token_methods  # noqa: E402
from benchmarks.reproduce_tables import arguments_of  # noqa: E402
from benchmarks.token_methods import PLACED, Outcomes, at_equal_kept, at_equal_macs, between, by_movement  # noqa: E402
from sightline.tokens.asked import read_methods  # noqa: E402
from tests.benchmarks.test_reproduce_tables import tiny  # noqa: E402

CLIPS = pd.MultiIndex.from_product([[0, 1], ["a", "b", "c"]], names=["run", "sample_id"])


def made(**changes) -> Outcomes:
    """Two runs of three clips each: of six clips all tokens get four right, random three on average, STA five."""
    right = {
        ("all", 1.0): [1, 1, 0, 1, 1, 0],
        ("random", 0.5): [1, 0.5, 0, 0.5, 1, 0],
        (PLACED, 0.5): [0, 0, 0, 0, 1, 0],
        ("sta", 0.5): [1, 1, 1, 1, 1, 0],
    }
    clips = pd.DataFrame(
        {"group": ["x", "x", "y", "y", "z", "z"], "action": ["drowsy", "talking"] * 3, "moves": [1, 2, 3, 4, 5, 6.0]},
        index=CLIPS,
    )
    macs = {("all", 1.0): 1.0, ("random", 0.5): 0.4, (PLACED, 0.5): 0.5, ("sta", 0.5): 0.6}
    series = {way: pd.Series(values, index=CLIPS, dtype=float) for way, values in right.items()}
    return Outcomes(**{"backbone": "vit_demo", "clips": clips, "right": series, "macs": macs, "kept": macs, **changes})


def test_methods_and_configurations_are_known():
    args = arguments_of([], token_methods.__doc__, "tokens")
    assert args.out.name == "tokens-small"
    for family, controls in {"vit": 2, "timesformer": 2, "mvit": 1, "video_swin": 1}.items():
        config = token_methods.configure(args, family, 1)
        (compare,) = config["trainer"]["callbacks"]
        names = [method.name for method in read_methods(compare["init_args"]["methods"])]
        assert names.count("random") == controls
        assert config["seed_everything"] == 1
    assert token_methods.configure(args, "vit", 0)["model"]["init_args"]["options"] == {}


def test_at_equal_kept_tokens():
    rows = {row["method"]: row for row in at_equal_kept(made())}
    sta = rows["sta"]
    assert (sta["top1_by_run"], sta["clips"]) == ("100.0 66.7", 6)
    assert sta["change"] == pytest.approx(100 / 6)
    assert sta["vs_random"] == pytest.approx(100 * 2 / 6)
    assert sta["vs_random_low"] < sta["vs_random"] < sta["vs_random_high"]
    assert (sta["vs_random_at_places"], sta["vs_random_runs_ahead"]) == (pytest.approx(100 * 4 / 6), 2)
    assert rows["random"]["vs_random"] is None
    assert rows["random"]["vs_random_at_places"] == pytest.approx(100 * 2 / 6)
    assert rows["all"]["change"] is None


def test_between_two_amounts_lies_a_mix_of_both():
    found = between(made(), "random", 0.7)  # halfway from 0.4 to 1
    assert found is not None
    assert found.tolist() == pytest.approx([1, 0.75, 0, 0.75, 1, 0])
    assert between(made(), "sta", 0.5) is None
    exact = between(made(), "sta", 0.6)
    assert exact is not None
    assert exact.tolist() == [1, 1, 1, 1, 1, 0]
    rows = {(row["method"], row["macs_pct"]): row for row in at_equal_macs(made())}
    assert rows["sta", 70]["vs_random"] == pytest.approx(100 * (0.75 * 5 + 0.25 * 4 - 3.5) / 6)
    assert ("sta", 50) not in rows
    assert rows["random", 50]["vs_random"] is None


def test_clips_that_move_little_and_much_are_told_apart():
    rows = {(row["kind"], row["method"]): row for row in by_movement(made())}
    assert {kind: rows[kind, "sta"]["clips"] for kind in ("still", "fast", "drowsy")} == {
        "still": 2, "fast": 2, "drowsy": 3,
    }  # fmt: skip
    assert (rows["still", "sta"]["moves_from"], rows["still", "sta"]["moves_to"]) == (1, 2)
    assert rows["still", "sta"]["vs_random"] == pytest.approx(25)
    assert rows["drowsy", "sta"]["vs_random"] == pytest.approx(100 / 3)
    no_action = made().clips.assign(action="walk")
    assert {row["kind"] for row in by_movement(made(clips=no_action))} == {"still", "fast"}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_whole_benchmark_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(token_methods, "METHODS", ["sta", "random"])
    monkeypatch.setattr(token_methods, "KEPT", [0.7])
    results = tmp_path / "r.json"
    token_methods.main([*tiny(tmp_path), "--results", str(results), "--", "--trainer.max_epochs", "1"])
    content = json.loads(results.read_text())
    rows = {(row["backbone"], row["method"]): row for row in content["rows"]}
    assert {("vit_demo", "all"), ("vit_demo", "sta"), ("vit_demo", "random"), ("vit_demo", PLACED)} <= set(rows)
    row = rows["vit_demo", "sta"]
    assert row["kept_pct"] == pytest.approx(70, abs=5)
    table = pd.read_csv(tmp_path / "out" / "vit" / "seed0" / "tables" / "tokens.csv")
    assert row["top1"] == pytest.approx(table.loc[table["method"] == "sta", "top1"].item())
    assert row["vs_random"] == pytest.approx(table.loc[table["method"] == "sta", "vs_random"].item())
    assert content["by_macs"]
    assert content["by_movement"]
