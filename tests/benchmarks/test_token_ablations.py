"""The ablations of STA's paper: which rows there are, what is tested, and what is told of it."""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

from benchmarks import token_ablations, tokens
from benchmarks.result_files import read_result
from benchmarks.token_ablations import (
    AMOUNTS,
    amount_rows,
    check_backbone,
    random_as_sta,
    results_of,
    rows_of,
    scaled,
    shares_of,
    sta,
    table_rows,
)
from benchmarks.write_results import table
from sightline.backbones import Backbone, build_backbone
from sightline.tokens import STA, TokenReduction, trace
from sightline.tokens.trajectory import trajectory_sums
from tests.conftest import CABIN, TINY_SWIN, randomise

TINY_VIT = {"frames": 4, "size": 32, "patch": (1, 8, 8), "width": 16, "heads": 2, "depth": 3}


@pytest.fixture(scope="module")
def demo() -> Backbone:
    """Grid 4 x 8 x 8, as in a run on the cabin."""
    return randomise(build_backbone("vit_demo", 20, {"width": 16, "heads": 2, "depth": 3}))


def tiny(classes: int = 7) -> Backbone:
    """Grid 4 x 4 x 4."""
    return randomise(build_backbone("vit_demo", classes, TINY_VIT))


def clips_of(backbone: Backbone, count: int) -> torch.Tensor:
    spec = backbone.input_spec
    shape = (count, 3, spec.frames, spec.height, spec.width)
    return torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


def predictions(right: list[int], top5: list[int] | None = None, trajectory: float = 1.0) -> pd.DataFrame:
    """Results on clips of which some are right."""
    count = len(right)
    return pd.DataFrame(
        {
            "sample_id": [f"clip{place}" for place in range(count)],
            "label": 0,
            "predicted": [0 if good else 1 for good in right],
            "group": "",
            "top5": [bool(good) for good in top5 or right],
            "trajectory": trajectory,
        }
    )


def test_numbers_are_scaled_to_the_tokens_of_a_frame(demo):
    assert [scaled(r, demo) for r in AMOUNTS] == [5, 10, 16, 21, 26, 31]  # r / 196 of 64
    assert [scaled(number, demo) for number in (27, 54, 108, 196)] == [9, 18, 35, 64]


def test_the_default_row_is_sta_with_its_defaults(demo):
    assert sta(demo).build().fitted(demo).plans == STA().fitted(demo).plans
    named = {row.name: row for row in rows_of(demo) if row.table != "6b, frame by frame"}
    for name in ("STA", "first tome", "order fbf", "similarity keys", "score both", "authors' code"):
        assert named[name].draws == (sta(demo),)
    assert named["schedule decreasing from 21"].draws == (sta(demo),)


def test_there_is_a_row_for_everything_that_the_paper_prints(demo):
    found = [(row.table, row.name, row.printed) for row in rows_of(demo)]
    assert found == [
        ("1", "all tokens", 85.1), ("1", "random", None), ("1", "STA", 84.96),
        ("6a", "first random", 84.78), ("6a", "first grid", 84.85), ("6a", "first tome", 84.96),
        ("6b", "order fbf", 84.96), ("6b", "order bfb", 84.97), ("6b", "order fff", 84.26), ("6b", "order bbb", 84.35),
        ("6c", "similarity keys", 84.96), ("6c", "similarity queries", 84.83), ("6c", "similarity values", 84.84),
        ("6c", "similarity mlp", 84.94),
        ("6d", "schedule 16,16,16", 84.68), ("6d", "schedule decreasing from 21", 84.96),
        ("6d", "schedule 9,18,35", 77.68),
        ("6e", "score semantics", 84.87), ("6e", "score accumulation", 84.69), ("6e", "score both", 84.96),
        *(("6b, frame by frame", f"order {order}", None) for order in ("fbf", "bfb", "fff", "bbb")),
        ("readings", "authors' code", None), ("readings", "as printed", None),
    ]  # fmt: skip
    assert [row.printed_trajectory for row in rows_of(demo)[:4]] == [5.07, 4.95, 4.28, None]


def test_a_row_differs_from_the_defaults_in_what_it_is_called(demo):
    named = {row.name: row.draws for row in rows_of(demo) if row.table != "6b, frame by frame"}
    assert named["all tokens"] == (None,)
    for option, value in (("first", "grid"), ("order", "bbb"), ("similarity", "mlp"), ("score", "semantics")):
        assert named[f"{option} {value}"] == (TokenReduction.of("sta", {"r": 21, option: value}),)
    assert named["schedule 9,18,35"] == (TokenReduction.of("sta", {"schedule": "9,18,35"}),)
    draws = tuple(TokenReduction.of("sta", {"r": 21, "first": "random", "seed": seed}) for seed in range(5))
    assert named["first random"] == draws
    printed = {"r": 21, "frames": "single", "previous": "kept"}
    assert named["as printed"] == (TokenReduction.of("sta", printed),)
    single = [row.draws for row in rows_of(demo) if row.table == "6b, frame by frame"]
    assert single[1] == (TokenReduction.of("sta", {"r": 21, "frames": "single", "order": "bfb"}),)


@pytest.mark.parametrize(
    ("r", "left"), [(16, [236, 226, 221]), (64, [172, 130, 109]), (96, [132, 70, 39])], ids=["16", "64", "96"]
)
def test_random_dropping_leaves_as_many_at_every_place(demo, r, left):
    clips = clips_of(demo, 2)
    control = random_as_sta(demo, r)
    assert len({dict(draw.options).get("seed", 0) for draw in control}) == 5
    for reduction in (sta(demo, r=r), control[0], control[4]):
        assert [at.after.tolist() for at in trace(demo, clips, reduction.build())] == [[count] * 2 for count in left]


@torch.no_grad()
def test_what_is_tested_is_what_the_model_says_clip_by_clip():
    backbone = tiny()
    clips, labels = clips_of(backbone, 5), torch.tensor([0, 1, 2, 3, 4])
    names, groups = [f"clip{place}" for place in range(5)], ["a", "a", "b", "b", "b"]

    def batches(*sizes):
        start = 0
        for size in sizes:
            part = slice(start, start + size)
            yield {"clip": clips[part], "label": labels[part], "sample_id": names[part], "group": groups[part]}
            start += size

    ways = [None, sta(backbone), random_as_sta(backbone)[1], sta(backbone)]
    found = results_of(backbone, batches(2, 0, 3), ways)
    assert list(found) == ways[:3]
    for way, frame in found.items():
        assert (frame["sample_id"].tolist(), frame["group"].tolist()) == (names, groups)
        for place, row in frame.iterrows():
            reducer = None if way is None else way.build()
            clip = clips[place : place + 1]
            order = backbone(clip, reducer=reducer)[0].argsort(descending=True).tolist()
            assert row["predicted"] == order[0]
            assert row["top5"] == (place in order[:5])
            # A float32 sum over three frames; batches of other sizes round otherwise.
            assert row["trajectory"] == pytest.approx(trajectory_sums(backbone, clip, reducer).item(), abs=1e-5)
    assert 0 < found[None]["top5"].sum() < 5


def test_shares_are_those_of_the_layers():
    backbone = tiny()
    # r is 5 of 16: the first layer sees 64 tokens, the second 44, the third 34.
    shares = shares_of(backbone, [None, sta(backbone), *random_as_sta(backbone)])
    assert shares.pop(None) == 1
    assert list(shares.values()) == pytest.approx([(64 + 44 + 34) / (3 * 64)] * 6)


def test_draws_are_averaged_and_differences_are_against_the_defaults(demo):
    rows = rows_of(demo)
    results = {way: predictions([1, 1, 0, 0]) for row in rows for way in row.draws}
    for way, right in zip(random_as_sta(demo), ([1, 0, 0, 0], [0] * 4, [0] * 4, [1, 1, 1, 1], [0] * 4), strict=True):
        results[way] = predictions(right, [1, 1, 1, right[0]], trajectory=sum(right) / 2)
    results[None] = predictions([1, 1, 1, 1])
    table = table_rows(rows, results, dict.fromkeys(results, 0.25))
    assert [(row["table"], row["row"], row["printed"]) for row in table] == [
        (row.table, row.name, row.printed) for row in rows
    ]
    made = {row["row"]: row for row in table if row["table"] != "6b, frame by frame"}
    random = made["random"]
    assert random["top1"] == pytest.approx(25)
    assert random["top1_sd"] == pytest.approx(statistics.stdev([25, 0, 0, 100, 0]))
    assert random["top5"] == pytest.approx((100 + 75 + 75 + 100 + 75) / 5)
    assert (random["trajectory"], random["kept_pct"]) == (pytest.approx(0.5), 25)
    assert random["change"] == pytest.approx(-25)
    assert random["change_low"] < -25 < random["change_high"]
    assert made["all tokens"]["change"] == pytest.approx(50)
    assert made["all tokens"]["top1_sd"] is None
    assert [name for name, row in made.items() if row["change"] is None] == [
        "STA", "first tome", "order fbf", "similarity keys", "schedule decreasing from 21", "score both",
        "authors' code",
    ]  # fmt: skip


def test_amounts_stand_beside_random_dropping_of_as_many(demo):
    ways = [way for r in AMOUNTS for way in (sta(demo, r=r), *random_as_sta(demo, r))]
    results = dict.fromkeys(ways, predictions([1, 0, 0, 0]))
    results[sta(demo, r=32)] = predictions([1, 1, 1, 0])
    results[random_as_sta(demo, 32)[2]] = predictions([1, 1, 0, 0])
    rows = amount_rows(demo, results, dict.fromkeys(ways, 0.5))
    assert [(row["papers_r"], row["r"], row["printed"]) for row in rows] == [
        (16, 5, None), (32, 10, 85.2), (48, 16, 85.1), (64, 21, 85.0), (80, 26, None), (96, 31, None),
    ]  # fmt: skip
    row = rows[1]
    assert (row["top1"], row["random_top1"]) == (75, pytest.approx(30))  # (4 x 25 + 50) / 5
    assert (row["random_lowest"], row["random_highest"]) == (25, 50)
    assert row["change"] == pytest.approx(45)
    assert rows[0]["change"] == 0


def test_models_that_the_tables_say_nothing_of_are_refused():
    with pytest.raises(ValueError, match=r"drops tokens at three places for good.*has grids 2x4x4.* run of vit_demo"):
        check_backbone(build_backbone("vit_demo", 2, {"frames": 4, "size": 32, "width": 16, "heads": 2, "depth": 3}))
    with pytest.raises(ValueError, match="this video_swin has grids"):
        check_backbone(build_backbone("video_swin_demo", 2, TINY_SWIN))


def test_the_command_writes_tables_and_figure(cabin_root, tmp_path, monkeypatch, capsys):
    """On an untrained model, whose run was stored by hand."""
    run = tmp_path / "run"
    run.mkdir()
    data = {"class_path": "datamodules.SyntheticCabin", "init_args": {"root": str(cabin_root), **CABIN}}
    (run / "config.yaml").write_text(yaml.safe_dump({"data": data}))
    monkeypatch.setattr(token_ablations, "trained_checkpoint", lambda folder: folder.best_checkpoint)
    monkeypatch.setattr(token_ablations, "load_trained", lambda path: tiny(2))
    words = ["tokens.py", "--ablations", "--run", str(run), "--results", str(tmp_path / "found.json")]
    monkeypatch.setattr(sys, "argv", [*words, "--figures", str(tmp_path)])
    threads = torch.get_num_threads()
    try:
        tokens.main()
    finally:
        torch.set_num_threads(threads)  # the command takes one
    assert (tmp_path / "token_amounts.png").stat().st_size > 10_000
    content = read_result("found", Path(tmp_path))
    assert (content["grid"], content["classes"]) == ([4, 4, 4], 2)
    assert len(content["rows"]) == len(rows_of(tiny(2)))
    assert {row["top5"] for row in content["rows"]} == {100}  # of two classes
    dense, _, default = content["rows"][:3]
    lines = table("token_ablations", content).splitlines()
    assert len(lines) == 4 + len(content["rows"])
    change = f"{dense['change']:+.1f} ({dense['change_low']:.1f} to {dense['change_high']:.1f})"
    assert lines[4] == (
        f"| 1 | all tokens | 100.0 % | {dense['top1']:.1f} |  | 100.0 | {change} | {dense['trajectory']:.2f} of 3 | "
        "85.10 | 5.07 of 7 |"
    )
    assert lines[6].startswith(f"| 1 | STA | 74.0 % | {default['top1']:.1f} |  | 100.0 |  | ")
    # r is 64 of 196 here 5 of 16.
    assert table("token_amounts", content).splitlines()[-3].startswith(f"| 64 | 5 | 74.0 % | {default['top1']:.1f} | ")


def test_ablations_need_a_run(monkeypatch, capsys):
    for words in (["--ablations"], ["--run", "runs/x"]):
        monkeypatch.setattr(sys, "argv", ["tokens.py", *words])
        with pytest.raises(SystemExit):
            tokens.main()
        assert "--ablations and --run RUN go together" in capsys.readouterr().err
