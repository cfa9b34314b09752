"""Token reductions compared on a tiny untrained model: table, resumption, what cannot be tested."""

from __future__ import annotations

import copy
import dataclasses
import json
import shutil

import pandas as pd
import pytest
import torch

from callbacks import PrunedCheckpoints, TokenComparison
from callbacks.analysis import Context
from callbacks.tokens import comparison
from datamodules import SyntheticCabin
from lightning_modules import VideoClassifier
from sightline.export import evaluation
from sightline.export.counting import count_cost
from sightline.report.tables.pruning import read_pruning_table
from sightline.report.tables.tokens import COLUMNS, averaged, read_token_table
from sightline.run.ranks import Ranks
from sightline.statistics.top1_interval import top1_interval
from sightline.tokens import TokenReduction, kept_share
from sightline.tokens.equal_kept import at_kept
from tests.conftest import CABIN, TINY_SWIN, randomise
from tests.sightline.run.threads import in_threads

COUNTED = 2
LATE = "random:layer=2"
"""Drops after the third of four layers: it can keep 3/4 of the tokens at least."""


@pytest.fixture(scope="module", autouse=True)
def few_clips_are_counted():
    """Counting is what takes longest of such a small model."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparison, "COUNTED_CLIPS", COUNTED)
        yield


class Logger:
    """Takes figures and tables, and keeps their names."""

    def __init__(self) -> None:
        self.experiment, self.figures, self.tables = self, [], []

    def add_figure(self, name, figure, close) -> None:
        self.figures.append(name)

    def add_text(self, name, text) -> None:
        self.tables.append(name)


@pytest.fixture(scope="module")
def compared(cabin_root, tmp_path_factory, few_clips_are_counted) -> Context:
    """A run's folder whose untrained model was pruned, and then tested with two reductions at two shares."""
    data = SyntheticCabin(root=str(cabin_root), **CABIN)
    options = {key: value for key, value in TINY_SWIN.items() if key not in ("frames", "size")}
    module = VideoClassifier(2, data.class_names, backbone="video_swin_demo", frames=4, size=32, options=options)
    folder = tmp_path_factory.mktemp("compared") / "run"
    context = Context(folder, "train", module, randomise(module.backbone), "none", data, Ranks(), [Logger()])
    PrunedCheckpoints(depths=[], tokens=[{"name": "random", "options": {"kept": 0.5}}], latency_repeats=0).analyse(
        context
    )
    step().analyse(context)
    return context


def step(**changes) -> TokenComparison:
    given = {"methods": ["random", LATE], "kept": [0.5, 0.75], "draws": 2, "latency_repeats": 1, "latency_batch": 2}
    return TokenComparison(**given | changes)


@pytest.fixture
def copied(compared, tmp_path, monkeypatch) -> Context:
    """The same in a folder that a test may change; no figure is drawn there."""
    monkeypatch.setattr(comparison, "save_figure", lambda figure, folder, name: [folder / f"{name}.png"])
    shutil.copytree(compared.folder, tmp_path / "run")
    return dataclasses.replace(compared, folder=tmp_path / "run")


def table_of(context: Context) -> pd.DataFrame:
    return read_token_table(context.run.table("tokens"))


def test_there_is_a_row_per_method_share_and_draw(compared):
    table = table_of(compared)
    assert tuple(table) == COLUMNS
    found = list(zip(table["method"], table["options"], table["seed"].fillna(-1), table["kept_asked_pct"], strict=True))
    wanted = [("all", "", -1, 100.0)]
    for options in ("", "layer=2"):
        wanted += [("random", options, seed, kept) for kept in (75.0, 50.0) for seed in (0, 1)]
    assert found == wanted
    assert table["timing_run"][table["top1"].notna()].nunique() == 1


def test_the_reference_is_that_of_the_pruned_models(compared):
    row, pruned = table_of(compared).iloc[0], read_pruning_table(compared.run.pruning_table).iloc[0]
    for name in ("plan_id", "top1", "top1_low", "top1_high", "mean_class_acc", "params", "macs", "subjects"):
        assert row[name] == pruned[name], name
    assert row["kept_pct"] == 100
    assert row["macs_change_pct"] == 0


def test_a_row_says_what_the_model_does_with_that_reduction(compared):
    table = table_of(compared)
    row = table[(table["kept_asked_pct"] == 75) & (table["options"] == "") & (table["seed"] == 1)].iloc[0]
    # The first stage runs with all tokens, the second of two equal ones with half of them.
    assert row["kept_pct"] == 75
    clips = compared.some_clips("test", COUNTED)
    tokens, _ = at_kept(TokenReduction.of("random", {"seed": 1}), compared.backbone, 0.75, clips)
    assert row["tokens"] == tokens.label
    reducer = tokens.build()
    assert row["macs"] == count_cost(compared.backbone, reducer, clips).macs
    right, full_right, subjects = [], [], []
    with torch.no_grad():
        for batch in compared.data.evaluation_loader(compared.data.clips("test"), 4):
            right += (compared.backbone(batch["clip"], reducer=reducer).argmax(1) == batch["label"]).tolist()
            full_right += (compared.backbone(batch["clip"]).argmax(1) == batch["label"]).tolist()
            subjects += batch["group"]
    interval = top1_interval(right, subjects)
    share = sum(right) / len(right)
    assert row["top1"] == pytest.approx(100 * share)
    assert (row["top1_low"], row["top1_high"]) == pytest.approx((interval.low, interval.high))
    assert row["change"] == pytest.approx(100 * (share - sum(full_right) / len(full_right)))
    assert row["change_low"] <= row["change"] <= row["change_high"]
    assert row["clips_per_s_b1"] == pytest.approx(1000 / row["latency_ms_b1"])
    assert row["batch"] == 2


def test_a_share_out_of_reach_is_said_and_not_tested(compared, capsys):
    table = table_of(compared)
    late = table[(table["options"] == "layer=2") & (table["kept_asked_pct"] == 50)]
    least = TokenReduction.of("random", {"kept": 0.01, "layer": 2}).build()
    nearest = kept_share(compared.backbone, compared.some_clips("test", 1), least).item()
    assert late["kept_pct"].tolist() == pytest.approx([100 * nearest] * 2)
    assert late[["top1", "macs", "clips_per_s"]].isna().all(axis=None)
    text = compared.run.table("tokens").with_suffix(".md").read_text()
    assert f"random layer=2 cannot keep 50 % of the tokens of this model: the nearest is {100 * nearest:.1f} %." in text


def test_classes_and_subjects_add_up_to_the_whole(compared):
    table = table_of(compared)
    tested = table[table["top1"].notna()].drop_duplicates("plan_id").set_index("plan_id")
    for key, column in (("class", "class"), ("subject", "group")):
        by = pd.read_csv(compared.run.table(f"tokens_by_{key}"), keep_default_na=False, na_values={"seed": [""]})
        assert set(by["plan_id"]) == set(tested.index)
        for plan_id, rows in by.groupby("plan_id"):
            assert rows["clips"].sum() == len(compared.data.clips("test"))
            whole = (rows["top1"] * rows["clips"]).sum() / rows["clips"].sum()
            assert whole == pytest.approx(tested.loc[plan_id, "top1"], abs=1e-3)
            change = (rows["change"] * rows["clips"]).sum() / rows["clips"].sum()
            wanted = tested.loc[plan_id, "change"]
            assert change == pytest.approx(0 if pd.isna(wanted) else wanted, abs=1e-3)
        assert column in by


def test_what_is_finished_is_not_tested_again(copied, monkeypatch, capsys):
    before, batches = table_of(copied), []
    real = evaluation.predict_batch
    monkeypatch.setattr(evaluation, "predict_batch", lambda *args: batches.append(args[2]) or real(*args))
    step().analyse(copied)
    assert batches == []
    told = capsys.readouterr()
    assert "All of it was tested before" in told.out
    assert "reduction" not in told.err  # no bar of nothing
    again = table_of(copied)
    same = [name for name in COLUMNS if "latency" not in name and "clips_per_s" not in name and "timing" not in name]
    pd.testing.assert_frame_equal(before[same], again[same])
    # A method that is added is tested alone, and stands beside the earlier ones, timed with them.
    step(methods=["random:seed=7"], kept=[0.6]).analyse(copied)
    assert {batch.seed for batch in batches} == {7}
    more = table_of(copied)
    assert len(more) == len(before) + 1
    assert more["timing_run"][more["top1"].notna()].nunique() == 1
    # Of other weights nothing stays.
    batches.clear()
    with torch.no_grad():
        next(copied.backbone.parameters()).mul_(1.5)
    try:
        step(methods=["random"], kept=[0.5], draws=1, latency_repeats=0).analyse(copied)
    finally:
        with torch.no_grad():
            next(copied.backbone.parameters()).div_(1.5)
    assert table_of(copied)["method"].tolist() == ["all", "random"]
    assert {batch and batch.seed for batch in batches} == {None, 0}


def test_a_kill_loses_no_finished_test(copied, monkeypatch):
    shutil.rmtree(copied.run.token_predictions)
    real, plans = evaluation.predict_batch, []

    def killed(*args):
        plans.append(args[2])
        if len(set(plans)) == 4:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(evaluation, "predict_batch", killed)
    with pytest.raises(KeyboardInterrupt):
        step(latency_repeats=0).analyse(copied)
    first, done = set(plans), len(json.loads(copied.run.token_record.read_text())["tests"])
    assert done == 3
    plans.clear()
    monkeypatch.setattr(evaluation, "predict_batch", lambda *args: plans.append(args[2]) or real(*args))
    step(latency_repeats=0).analyse(copied)
    assert len(first & set(plans)) == 1  # the one that was interrupted
    assert len(table_of(copied)) == len(table_of(copied).drop_duplicates(["plan_id", "kept_asked_pct"])) == 9


def test_loggers_get_tables_and_figure(compared):
    (logger,) = compared.loggers
    assert {"tokens", "tokens/by_class", "tokens/by_subject"} <= set(logger.tables)
    assert "tokens/accuracy" in logger.figures


def test_two_processes_share_the_tests(compared, copied):
    shutil.rmtree(copied.run.token_predictions)
    backbones = [copied.backbone, copy.deepcopy(copied.backbone)]

    def job(ranks: Ranks) -> None:
        context = dataclasses.replace(copied, ranks=ranks, backbone=backbones[ranks.rank])
        step(draws=1, latency_repeats=0).analyse(context)

    in_threads(2, job)
    alone, both = table_of(compared), table_of(copied)
    names = ["plan_id", "kept_asked_pct", "top1", "top1_low", "mean_class_acc", "macs", "kept_pct"]
    alone = alone[alone["seed"].isna() | (alone["seed"] == 0)]
    pd.testing.assert_frame_equal(both[names], alone[names].reset_index(drop=True))


def test_draws_are_averaged(compared):
    rows = averaged(table_of(compared))
    row = rows[(rows["options"] == "") & (rows["kept_asked_pct"] == 75)].iloc[0]
    table = table_of(compared)
    draws = table[(table["options"] == "") & (table["kept_asked_pct"] == 75)]["top1"]
    assert row["draws"] == 2
    assert row["top1"] == pytest.approx(draws.mean())
    assert (row["low"], row["high"]) == (draws.min(), draws.max())


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"methods": ["rendom"]}, r"Unknown token reduction 'rendom'; known are random"),
        ({"methods": ["random:depth=2"]}, r"random has no option 'depth'"),
        ({"methods": ["random:layer"]}, r"Expected an option of random as name=value, got 'layer'"),
        ({"methods": []}, "Name at least one token reduction"),
        ({"kept": [0.5, 1.5]}, r"above 0 and at most 1; got 0.5, 1.5"),
        ({"kept": []}, r"at most 1; got none"),
        ({"draws": 0}, "at least one draw"),
    ],
)
def test_what_cannot_be_asked_for(given, told):
    with pytest.raises(ValueError, match=told):
        step(**given)


def test_a_method_that_cannot_work_with_the_model_is_refused_before_anything_runs(compared):
    with pytest.raises(ValueError, match="has layers 0 to 3; tokens cannot be dropped after layer 9"):
        step(methods=["random:layer=9"]).check(compared.module)


@pytest.mark.parametrize(
    "method", ["random:kept=0.3", "sta:r=1", "rlt:threshold=0.2", "tome:r=2", "rlt:fixed=share:kept=0.2"]
)
def test_a_method_with_an_amount_of_its_own_is_refused(method, compared):
    name = method.split(":")[0]
    option = method.split(":")[-1].split("=")[0]
    with pytest.raises(ValueError, match=rf"How many tokens {name} keeps is chosen here.*Leave {option} out"):
        step(methods=[method]).check(compared.module)


@pytest.mark.parametrize("method", ["random:seed=3", "sta:schedule=1", "rlt:fixed=share", "tome:compared=random"])
def test_other_options_are_not_amounts(method, compared):
    step(methods=[method]).check(compared.module)


def test_of_a_model_that_drops_tokens_already_it_is_said(compared, caplog):
    options = {key: value for key, value in TINY_SWIN.items() if key not in ("frames", "size")}
    tokens = {"name": "random", "options": {"kept": 0.5}}
    module = VideoClassifier(2, backbone="video_swin_demo", frames=4, size=32, options=options, tokens=tokens)
    step().check(module)
    assert "The model is one that runs with random." in caplog.text
    caplog.clear()
    step().check(compared.module)
    assert not caplog.text
