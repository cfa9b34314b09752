"""Pruning with token reductions, on a tiny untrained model."""

from __future__ import annotations

import dataclasses
import shutil
from types import SimpleNamespace

import lightning as L
import numpy as np
import pandas as pd
import pytest
import torch
import yaml

import sightline
import train
from callbacks import HeadAblation, LayerAblation, PrunedCheckpoints, RunRecords
from callbacks.analysis import COUNTED_CLIPS, Context
from datamodules import SyntheticCabin
from lightning_modules import VideoClassifier
from sightline.export.counting import count_cost
from sightline.export.reading import load_exported
from sightline.pruning.targets import Targets, UnmetTargetsError
from sightline.report.comparison.compare import compare_runs
from sightline.report.page.html import write_report
from sightline.report.tables.pruning import pruning_rows, read_pruning_table, reference_rows
from sightline.run.ranks import Ranks
from sightline.tokens import TokenReduction
from tests.conftest import CABIN, TINY_SWIN, randomise

HALF = {"name": "random", "options": {"kept": 0.5}}
FEW = {"name": "random", "options": {"kept": 0.2, "layer": 2}}


@pytest.fixture(scope="module")
def pruned(cabin_root, tmp_path_factory) -> Context:
    """A run's folder whose untrained model was pruned in layers and tokens."""
    data = SyntheticCabin(root=str(cabin_root), **CABIN)
    options = {key: value for key, value in TINY_SWIN.items() if key not in ("frames", "size")}
    names = data.class_names
    module = VideoClassifier(2, names, backbone="video_swin_demo", frames=4, size=32, options=options)
    folder = tmp_path_factory.mktemp("pruned") / "run"
    folder.mkdir()
    context = Context(folder, "train", module, randomise(module.backbone), "none", data, Ranks(), [])
    init = {"backbone": "video_swin_demo", "options": options}
    config = {
        "data": {"class_path": "datamodules.SyntheticCabin", "init_args": {"root": str(cabin_root), **CABIN}},
        "model": {"class_path": "lightning_modules.VideoClassifier", "init_args": init},
        "trainer": {"accelerator": "cpu"},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    data.split_table().to_csv(folder / "splits.csv", index=False)
    LayerAblation().analyse(context)
    PrunedCheckpoints(
        depths=[1], modes=["lowest"], methods=["relevance"], tokens=[HALF, FEW], tokens_without_layers=[1],
        latency_repeats=1, latency_batch=2,
    ).analyse(context)  # fmt: skip
    return context


@pytest.fixture
def copied(pruned, tmp_path) -> Context:
    """The same in a folder that a test may change."""
    shutil.copytree(pruned.folder, tmp_path / "run")
    return dataclasses.replace(pruned, folder=tmp_path / "run")


PLANS = [
    "relevance-r-none-k0", "relevance-r-lowest-k1", "tokens-none-reduced-k0-random",
    "tokens-none-reduced-k0-random_kept0.2_layer2", "relevance-r-lowest-k1-random",
    "relevance-r-lowest-k1-random_kept0.2_layer2",
]  # fmt: skip


def test_tokens_run_alone_and_with_layers_removed(pruned):
    table = read_pruning_table(pruned.folder / "tables" / "pruning.csv")
    assert table["plan_id"].tolist() == PLANS
    assert reference_rows(table).tolist() == [True, *[False] * 5]
    rows = {row.plan_id: row for row in pruning_rows(table)}
    full, half = rows["relevance-r-none-k0"], rows["tokens-none-reduced-k0-random"]
    # The second of two stages begins dense; each has two layers.
    assert (half.tokens, half.tokens_kept_pct, half.format) == ("random", 75.0, "fp32")
    assert (half.params, half.params_change_pct) == (full.params, 0.0)
    assert half.macs < full.macs
    assert len({row.timing_run for row in rows.values()}) == 1
    assert full.timing_run is not None
    few = rows["tokens-none-reduced-k0-random_kept0.2_layer2"]
    clips = pruned.some_clips("test", COUNTED_CLIPS)
    model = load_exported(pruned.folder / "pruned" / few.plan_id)
    assert few.macs == count_cost(model.backbone, model.reducer, clips).macs
    assert few.tokens_kept_pct == pytest.approx(
        100 * (3 + 7 / 32) / 4
    )  # a fifth of 32 tokens, rounded up, enter layer 3
    # What the table says of accuracy is what the exported file gives on the test clips.
    loader = pruned.data.evaluation_loader(pruned.data.clips("test"), 4)
    with torch.no_grad():
        right = [
            (model.backbone(batch["clip"], reducer=model.reducer).argmax(1) == batch["label"]).float()
            for batch in loader
        ]
    assert few.top1 == pytest.approx(100 * torch.cat(right).mean().item(), abs=1e-4)
    by_class = pd.read_csv(pruned.folder / "tables" / "pruning_by_class.csv", keep_default_na=False)
    assert set(by_class["plan_id"]) == set(PLANS)


def test_the_checkpoint_is_tested_with_its_tokens(pruned):
    plan = "tokens-none-reduced-k0-random_kept0.2_layer2"
    path = pruned.folder / "pruned" / plan / "model.ckpt"
    module = VideoClassifier.load_from_checkpoint(path, weights_only=True).eval()
    assert module.tokens == TokenReduction.from_plain(FEW)
    clips = pruned.some_clips("test", 2)
    with torch.no_grad():
        wanted = pruned.backbone(clips, reducer=module.tokens.build())
        torch.testing.assert_close(module(clips), wanted, rtol=0, atol=1e-5)
        assert (pruned.backbone(clips) - wanted).abs().max() > 1e-3
    train.main(["test", "--run", str(pruned.folder), "--ckpt_path", str(path)])
    tested = pd.read_csv(pruned.folder / "tables" / f"test-{plan}.csv").set_index("metric")["value"]
    table = pd.read_csv(pruned.folder / "tables" / "pruning.csv").set_index("plan_id")
    assert 100 * tested["test/top1"] == pytest.approx(table.loc[plan, "top1"], abs=1e-3)
    loss = torch.nn.functional.cross_entropy
    with torch.no_grad():
        batches = list(pruned.data.evaluation_loader(pruned.data.clips("test"), 4))
        logits = torch.cat([pruned.backbone(batch["clip"], reducer=module.tokens.build()) for batch in batches])
    labels = torch.cat([batch["label"] for batch in batches])
    assert tested["test/loss"] == pytest.approx(loss(logits, labels).item(), abs=1e-4)


def test_a_loaded_export_classifies_with_its_tokens(pruned):
    plan = "tokens-none-reduced-k0-random_kept0.2_layer2"
    model = sightline.load(pruned.folder / "pruned" / plan, device="cpu")
    clips = pruned.some_clips("test", 2)
    with torch.no_grad():
        wanted = pruned.backbone(clips, reducer=TokenReduction.from_plain(FEW).build()).double().softmax(-1)
    torch.testing.assert_close(model.classify(clips), wanted, rtol=0, atol=1e-6)


def test_report_and_comparison_tell_the_plans_apart(pruned, tmp_path):
    page = write_report(pruned.folder).read_text(encoding="utf-8")
    assert "relevance + tokens random_kept0.2_layer2" in page or "relevance r + tokens random_kept0.2_layer2" in page
    compare_runs([str(pruned.folder)], str(tmp_path / "out"))
    table = pd.read_csv(tmp_path / "out" / "accuracy.csv", keep_default_na=False)
    assert table[["k", "tokens"]].values.tolist() == [
        [0, ""], [1, ""], [0, "random"], [0, "random_kept0.2_layer2"], [1, "random"], [1, "random_kept0.2_layer2"],
    ]  # fmt: skip
    assert "tokens random" in (pruned.folder / "tables" / "pruning.md").read_text()


def test_rows_of_an_earlier_pruning_stay_and_are_timed_again_with_the_new_ones(copied):
    path = copied.folder / "tables" / "pruning.csv"
    before = read_pruning_table(path)
    path.write_text(path.read_text().replace(before["timing_run"][0], "long ago"))
    step = PrunedCheckpoints(tokens=[HALF], latency_repeats=1, latency_batch=2)
    assert step.request.depths == []  # tokens alone were asked for
    step.analyse(copied)
    after = read_pruning_table(path)
    assert after["plan_id"].tolist() == PLANS  # in their order, whichever were new
    assert len(set(after["timing_run"])) == 1
    assert "long ago" not in path.read_text()
    assert after["clips_per_s"].gt(0).all()
    assert "compare only those of one" not in path.with_suffix(".md").read_text()


def test_without_times_of_their_own_new_rows_leave_the_others_with_theirs(copied):
    path = copied.folder / "tables" / "pruning.csv"
    path.write_text(path.read_text().replace(read_pruning_table(path)["timing_run"][0], "long ago"))
    PrunedCheckpoints(tokens=[HALF], latency_repeats=0).analyse(copied)
    after = read_pruning_table(path).set_index("plan_id")
    new = ["relevance-r-none-k0", "tokens-none-reduced-k0-random"]
    assert after.loc[new, "clips_per_s"].isna().all()
    assert (after["timing_run"].drop(new) == "long ago").all()


def test_retime_measures_times_and_nothing_else(copied):
    path = copied.folder / "tables" / "pruning.csv"
    before = read_pruning_table(path)
    path.write_text(path.read_text().replace(before["timing_run"][0], "long ago"))
    exported = {file: file.stat().st_mtime_ns for file in (copied.folder / "pruned").rglob("*") if file.is_file()}
    PrunedCheckpoints(retime=True, score="jsd", latency_repeats=2, latency_batch=2).analyse(copied)
    after = read_pruning_table(path)
    times = ["latency_ms_b1", "clips_per_s", "timing_run", "latency_iqr_ms_b1", "clips_per_s_iqr", "timing_waited_pct"]
    pd.testing.assert_frame_equal(after.drop(columns=times), before.drop(columns=times))
    assert len(set(after["timing_run"])) == 1
    assert "long ago" not in path.read_text()
    assert after[["latency_iqr_ms_b1", "clips_per_s_iqr"]].notna().all(axis=None)
    assert {file: file.stat().st_mtime_ns for file in exported} == exported

    with pytest.raises(ValueError, match=r"latency_repeats 0 measures none"):
        PrunedCheckpoints(retime=True, latency_repeats=0).analyse(copied)
    path.unlink()
    with pytest.raises(ValueError, match=r"Expected .*pruning.csv, whose models are to be timed again"):
        PrunedCheckpoints(retime=True).analyse(copied)


def test_a_model_that_runs_with_tokens_is_neither_ablated_nor_pruned(pruned):
    structure = dict(pruned.module.hparams)
    module = VideoClassifier(**{key: structure[key] for key in structure if key != "tokens"}, tokens=HALF)
    for step in (HeadAblation(), PrunedCheckpoints()):
        step.check(pruned.module)
        with pytest.raises(ValueError, match=f"{type(step).__name__} works on models that run with all tokens.*random"):
            step.check(module)


def test_targets_that_nothing_meets_are_told_after_the_rest_was_made(copied):
    shutil.rmtree(copied.folder / "pruned")
    targets = Targets(max_gmacs=1e-9)
    step = PrunedCheckpoints(depths=[1], modes=["lowest"], targets=targets, latency_repeats=0)
    with pytest.raises(
        UnmetTargetsError, match=r"No depth meets the targets .* The other models are exported and tested"
    ):
        step.analyse(copied)
    tried = pd.read_csv(copied.folder / "tables" / "targets.csv")
    assert tried["k"].tolist() == [1, 2, 3, 4]
    assert not tried["meets"].any()
    table = read_pruning_table(copied.folder / "tables" / "pruning.csv")
    assert table["plan_id"].tolist() == ["relevance-r-none-k0", "relevance-r-lowest-k1"]  # others have no export now
    with pytest.raises(UnmetTargetsError, match="No depth meets the targets"):
        PrunedCheckpoints(targets=targets).analyse(copied)


def test_after_a_fit_unmet_targets_are_a_warning_and_what_follows_goes_on(copied, monkeypatch, caplog):
    monkeypatch.setattr("callbacks.analysis.make_context", lambda *args, **more: copied)
    trainer = SimpleNamespace(fast_dev_run=False, default_root_dir=copied.folder, is_global_zero=True)
    PrunedCheckpoints(targets=Targets(max_gmacs=1e-9)).on_fit_end(trainer, copied.module)
    assert "No depth meets the targets (max_gmacs 1e-09" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tokens": [{"name": "gone"}]}, "Unknown token reduction 'gone'"),
        ({"tokens": [{"name": "random", "options": {"kept": 2.0}}]}, "above 0 and at most 1"),
        ({"tokens": [HALF], "programs": ["torch_export"]}, r"No program \(torch_export\) can hold random: its draw"),
    ],
)
def test_impossible_tokens_are_refused_when_the_callback_is_made(options, message):
    with pytest.raises(ValueError, match=message):
        PrunedCheckpoints(**options)


def test_tokens_alone_need_neither_scores_nor_layers(copied, capsys):
    """As a configuration asks for it, on a checkpoint of the full model; there is no figure over depth then."""
    config = yaml.safe_load((copied.folder / "config.yaml").read_text())
    step = {"class_path": "callbacks.PrunedCheckpoints", "init_args": {"tokens": [HALF], "latency_repeats": 0}}
    config["trainer"]["callbacks"] = [step]
    (copied.folder / "config.yaml").write_text(yaml.safe_dump(config))
    checkpoint = {"state_dict": {f"backbone.{key}": value for key, value in copied.backbone.state_dict().items()}}
    checkpoint |= {"hyper_parameters": dict(copied.module.hparams), "pytorch-lightning_version": "2.6.0"}
    torch.save(checkpoint, copied.folder / "full.ckpt")
    for name in ("tables", "figures", "relevance", "pruned"):
        shutil.rmtree(copied.folder / name)
    train.main(["prune", "--run", str(copied.folder), "--ckpt_path", str(copied.folder / "full.ckpt")])
    assert "Scores:" not in capsys.readouterr().out  # a folder that is not there
    table = read_pruning_table(copied.folder / "tables" / "pruning.csv")
    assert table["plan_id"].tolist() == ["relevance-r-none-k0", "tokens-none-reduced-k0-random"]
    assert table["clips_per_s"].isna().all()
    assert (table["timing_run"] == "").all()
    assert {path.name for path in (copied.folder / "figures").iterdir()} == {
        "accuracy_against_cost.png", "accuracy_against_cost.svg"
    }  # fmt: skip


class MoreNames(SyntheticCabin):
    """The cabin as data of five classes, of which two have test clips."""

    class_names = ("a", "b", "absent", "also absent", "nowhere")

    def read_clips(self):
        _, clips = super().read_clips()
        labels = [clip.label if clip.split == "test" else i % 5 for i, clip in enumerate(clips)]
        clips = [dataclasses.replace(clip, label=label) for clip, label in zip(clips, labels, strict=True)]
        return list(self.class_names), clips


def test_test_and_prune_agree_where_classes_have_no_clips(cabin_root, tmp_path, capsys):
    data = MoreNames(root=str(cabin_root), **CABIN)
    options = {key: value for key, value in TINY_SWIN.items() if key not in ("frames", "size")}
    module = VideoClassifier(5, list(data.class_names), backbone="video_swin_demo", frames=4, size=32, options=options)
    context = Context(tmp_path, "train", module, randomise(module.backbone, 6), "none", data, Ranks(), [])
    LayerAblation().analyse(context)
    PrunedCheckpoints(depths=[1], modes=["lowest"], latency_repeats=0).analyse(context)
    row = read_pruning_table(tmp_path / "tables" / "pruning.csv").iloc[0]
    predictions = pd.read_csv(tmp_path / "tables" / "predictions" / "relevance-r-none-k0.csv")
    assert set(predictions["predicted"]) == {0, 4}  # right ones, and a class that no test clip has
    trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=tmp_path, callbacks=[RunRecords()],
    )  # fmt: skip
    [tested] = trainer.test(module, data, verbose=False)
    right = predictions["label"] == predictions["predicted"]
    # The cabin's test split is of one subject.
    assert (row["subjects"], row["interval_over"]) == (1, "clips")
    assert 0 < row["mean_class_acc"] == pytest.approx(100 * right.groupby(predictions["label"]).mean().mean())
    assert 100 * tested["test/mean_class_acc"] == pytest.approx(row["mean_class_acc"], abs=1e-4)  # logged in float32
    assert 100 * tested["test/top1"] == pytest.approx(row["top1"], abs=1e-4)
    assert (tested["test/subjects"], tested["test/interval_over_subjects"]) == (1, 0)
    assert 100 * tested["test/top1_low"] == pytest.approx(row["top1_low"], abs=1e-4)
    assert "1 subject: the interval is over clips and too narrow for new subjects" in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "tables" / "test.csv").set_index("metric")["value"]
    assert 100 * table["test/top1_high"] == pytest.approx(row["top1_high"], abs=1e-4)


def test_the_unpruned_model_is_tested_with_one_frame_repeated(pruned):
    found = pd.read_csv(pruned.folder / "tables" / "predictions" / "one-frame.csv")
    (batch,) = pruned.data.evaluation_loader(pruned.data.clips("test"), len(found))
    middle = batch["clip"][:, :, 2:3].repeat(1, 1, 4, 1, 1)  # of four frames
    with torch.no_grad():
        wanted = pruned.backbone(middle).softmax(1)
    assert found["sample_id"].tolist() == batch["sample_id"]
    assert found["predicted"].tolist() == wanted.argmax(1).tolist()
    true = wanted.gather(1, batch["label"][:, None])[:, 0]
    np.testing.assert_allclose(found["p_true"], true, atol=1e-5)
    assert "one-frame" not in set(read_pruning_table(pruned.folder / "tables" / "pruning.csv")["plan_id"])
