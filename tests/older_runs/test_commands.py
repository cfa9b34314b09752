"""Commands on the run, exports and weights of an older version."""

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from tests.older_runs.fixture import (
    BESIDE,
    FULL,
    LOWEST,
    OLD,
    TOLERANCE,
    VIDEOS,
    assert_pruning,
    assert_scored,
    assert_still,
    assert_tested,
    assert_videos,
    forget,
    run,
)


def test_the_best_weights_are_tested_as_they_were():
    forget("run/tables/test.csv", "run/tables/confusion.csv")
    run("test --run run")
    assert_tested("run")
    tested = pd.read_csv("run/tables/test.csv").set_index("metric")["value"]
    table = pd.read_csv(OLD / "run/tables/pruning.csv").set_index("plan_id")
    assert 100 * tested["test/top1"] == pytest.approx(table.loc[FULL, "top1"])
    commands = [entry["command"] for entry in json.loads(Path("run/provenance.json").read_text())["commands"]]
    assert commands[0] == "python train.py fit --config main.yaml --run run"
    assert commands[-1] == "python train.py test --run run"


def test_an_old_run_reads_its_own_clips_and_leaves_its_configuration(capsys):
    run("check-data --run run")
    assert "No findings among 48 clips" in capsys.readouterr().out
    # Rendered clips lie in a folder that is named by what they depend on: none was rendered anew, elsewhere.
    clips = {path.relative_to(OLD): path.read_bytes() for path in (OLD / "clips").rglob("*") if path.is_file()}
    assert {path: path.read_bytes() for path in Path("clips").rglob("*") if path.is_file()} == clips
    assert Path("run/config.yaml").read_bytes() == (OLD / "run/config.yaml").read_bytes()


@pytest.mark.parametrize("plan", [LOWEST, BESIDE])
def test_pruned_checkpoints_are_tested_as_they_were(plan: str):
    forget(f"run/tables/test-{plan}.csv", f"run/tables/confusion-{plan}.csv")
    run(f"test --run run --ckpt_path run/pruned/{plan}/model.ckpt")
    assert_tested("run", f"-{plan}")
    tested = pd.read_csv(f"run/tables/test-{plan}.csv").set_index("metric")["value"]
    table = pd.read_csv(OLD / "run/tables/pruning.csv").set_index("plan_id")
    assert 100 * tested["test/top1"] == pytest.approx(table.loc[plan, "top1"])


@pytest.mark.parametrize(
    "weights", ["run/checkpoints/best.ckpt", f"run/pruned/{FULL}", f"run/pruned/{FULL}/model.ckpt"]
)
def test_weights_are_taken_from_old_files(weights: str):
    forget("run/tables/test.csv", "run/tables/confusion.csv")
    run(f"test --run run --model.weights {weights}")
    assert_tested("run")


def test_predictions_are_the_same():
    forget("run/tables/predict.csv")
    run("predict --run run")
    assert_still("run/tables/predict.csv", ["sample_id"])


def test_exports_tell_the_same_of_videos():
    exports = sorted(f"run/pruned/{path.name}" for path in (OLD / "run/pruned").iterdir())
    assert len(exports) == 4
    assert_videos(exports)


def test_an_unpruned_export_still_serves_other_depths():
    told = VIDEOS[VIDEOS["exported"] == f"run/pruned/{LOWEST}"]
    run(f"predict --exported run/pruned/{FULL} --depth 1 --device cpu --out told.jsonl --video", *told["video"])
    now = pd.read_json("told.jsonl", lines=True)
    for new, old in zip(now["classes"], told["classes"], strict=True):
        assert {entry["name"]: pytest.approx(entry["probability"], abs=TOLERANCE) for entry in new} == {
            entry["name"]: entry["probability"] for entry in old
        }


def test_finished_scores_are_accepted_and_kept():
    """Scores name weights and data by digests: neither counts as another one because the code changed."""
    forget("run/tables/relevance_train_heads.csv", "run/tables/specialised_heads_train.csv")
    run("ablate --run run")
    run("ablate --run run --split test")
    for name in ("train/heads", "train/layers", "test/heads", "test/layers"):
        path = Path("run/relevance", f"{name}.parquet")
        assert path.read_bytes() == (OLD / path).read_bytes(), path
    assert_still("run/tables/relevance_train_heads.csv", ["score", "layer", "site", "head"])
    assert_still("run/tables/specialised_heads_train.csv", ["site", "class"])


def test_ablation_gives_the_same_scores():
    # With --overwrite alone, scores of the same weights, data and settings are kept.
    forget("run/relevance/test", "run/relevance/train")
    run("ablate --run run --split test")
    run("ablate --run run --overwrite true")
    for split in ("test", "train"):
        assert_scored(f"run/relevance/{split}")
        then, now = (json.loads((f / f"run/relevance/{split}/manifest.json").read_text()) for f in (OLD, Path()))
        for kind in ("heads", "layers"):
            for key in ("weights_sha256", "data_sha256", "class_names", "samples", "left_out"):
                assert now["tables"][kind][key] == then["tables"][kind][key], key


def test_scores_of_other_weights_are_replaced():
    last = "--ckpt_path run/checkpoints/last.ckpt"
    with pytest.raises(ValueError, match="another model"):
        run(f"ablate --run run {last}")
    run(f"ablate --run run {last} --overwrite true")
    old, new = (pd.read_parquet(folder / "run/relevance/train/layers.parquet") for folder in (OLD, Path()))
    assert new["sample_id"].tolist() == old["sample_id"].tolist()
    assert abs(new["r"] - old["r"]).max() > 0.01


def test_pruning_makes_the_same_models():
    """From the old scores, also those of greedy and of the baselines; all exports are made again and tested."""
    predictions = sorted(path.name for path in (OLD / "run/tables/predictions").glob("*.csv"))
    forget("run/tables/pruning.csv", "run/tables/predictions", "run/pruned")
    run("prune --run run")
    assert_pruning()
    for name in predictions:
        assert_still(f"run/tables/predictions/{name}", ["sample_id"])
    exports = [f"run/pruned/{path.name}" for path in (OLD / "run/pruned").iterdir()]
    assert_videos(exports)
    for export in exports:
        then, now = (json.loads((folder / export / "model.json").read_text()) for folder in (OLD, Path()))
        for key in ("name", "num_classes", "classes", "plan", "removed_layers", "removed_heads", "input", "sampling"):
            assert now[key] == then[key], key
        assert now["provenance"]["ranking"]["weights_sha256"] == then["provenance"]["ranking"]["weights_sha256"]


def test_rows_of_old_exports_stay_beside_new_ones():
    step = "--trainer.callbacks"
    run(f"prune --run run {step} null {step} callbacks.PrunedCheckpoints {step}.depths [2] {step}.modes [lowest] "
        f"{step}.latency_repeats 0")  # fmt: skip
    table = pd.read_csv("run/tables/pruning.csv").set_index("plan_id")
    assert table.loc["relevance-r-lowest-k2", "removed_layers"] == "0 1"
    kept = [LOWEST, "relevance-r-highest-k1", BESIDE]
    assert set(table.index) == {FULL, "relevance-r-lowest-k2", *kept}  # those without an export go
    assert_pruning(rows=[FULL, *kept])
    old = pd.read_csv(OLD / "run/tables/pruning.csv").set_index("plan_id")
    assert table.loc[kept, "clips_per_s"].tolist() == pytest.approx(old.loc[kept, "clips_per_s"].tolist())


def test_heads_look_at_the_same():
    forget("run/tables/pointing_test.csv", "run/tables/attention_test.csv")
    run("explain --run run --split test")
    assert_still("run/tables/pointing_test.csv", ["target", "layer", "site", "head"])
    shown = pd.read_csv("run/tables/attention_test.csv")
    pd.testing.assert_frame_equal(shown, pd.read_csv(OLD / "run/tables/attention_test.csv"), rtol=0, atol=TOLERANCE)
    pictures = json.loads(Path("run/attention/index.json").read_text())
    assert set(pictures) < {path.name for path in Path("run/attention").iterdir()}


def test_two_old_runs_are_looked_at_side_by_side():
    shutil.copytree("run", "again")
    step = "--trainer.callbacks"
    gallery = f"{step} callbacks.SideBySideGallery {step}.other again {step}.max_clips 1"
    run(f"explain --run run {step} null {gallery}")
    # The same model twice.
    assert pd.read_csv("run/tables/side_by_side.csv")["spearman"].tolist() == pytest.approx([1.0])
    assert list(Path("run/attention").glob("*.png"))


def test_the_report_shows_an_old_run():
    run("report --run run")
    page = re.sub(r"<[^>]+>", " ", Path("run/report.html").read_text())
    for row in pd.read_csv(OLD / "run/tables/pruning.csv").itertuples():
        for told in (
            f" {row.top1:.1f} ",
            f" {row.macs / 1e3:.1f} ",
            f" pruned/{row.plan_id} " if row.k else " unpruned ",
        ):
            assert told in page, told
    for told in ("video_swin_demo", "texting-on-phone", "python train.py fit --config main.yaml --run run", "0.1.0"):
        assert told in page, told
    # What is not there names the command that makes it.
    assert "train.py prune" not in page


def test_old_runs_are_compared():
    run("compare --runs run families/mvit_demo --out comparison")
    table = pd.read_csv("comparison/accuracy.csv")
    for name in ("run", "families/mvit_demo"):
        old = pd.read_csv(OLD / name / "tables/pruning.csv")
        new = table[table["backbone"] == old.loc[0, "backbone"]]
        for column in ("top1", "mean_class_acc", "params", "macs"):
            assert sorted(new[column]) == pytest.approx(sorted(old[column]), rel=1e-5)
    assert "relevance highest" in Path("comparison/comparison.md").read_text()
