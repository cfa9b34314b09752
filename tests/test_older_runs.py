"""What older versions wrote is read and gives what it gave: tests/old_run, of 0.1.0; its make.py says how it was made.

Only the command line and files are used here, nothing of the modules, which later versions may arrange otherwise. Every
test works on a copy, in a folder of its own, and compares what it gets with the files of the fixture.
"""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

import train

OLD = Path(__file__).resolve().parent / "old_run"
FULL, LOWEST, BESIDE = "relevance-r-none-k0", "relevance-r-lowest-k1", "layers1_heads-r-lowest-k3"
FAMILIES = sorted(path.name for path in (OLD / "families").iterdir())
VIDEOS = pd.read_json(OLD / "expected/videos.jsonl", lines=True)
SCORES = ["p_true", "p_true_ablated", "dprob", "jsd", "r"]
# Probabilities and scores; another machine adds in another order.
TOLERANCE = 1e-5


@pytest.fixture(autouse=True)
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shutil.copytree(OLD, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SIGHTLINE_RUN_FOLDER", raising=False)
    monkeypatch.setenv("SIGHTLINE_TRACEBACK", "1")
    yield
    os.environ.pop("SIGHTLINE_RUN_FOLDER", None)


def run(command: str, *words: str) -> None:
    try:
        train.main([*command.split(), *words])
    except SystemExit as ended:
        if ended.code:
            raise


def read(path: Path) -> pd.DataFrame:
    return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)


def forget(*paths: str) -> None:
    """Delete what a command shall write again."""
    for name in paths:
        path = Path(name)
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def assert_still(name: str, by: list[str], columns: list[str] | None = None, exactly: bool = True) -> None:
    """Compare a table with the fixture's: no row of it is gone, no column, and no value differs; others may be new."""
    then, now = (read(folder / name).set_index(by).sort_index() for folder in (OLD, Path()))
    columns = list(then.columns) if columns is None else columns
    assert set(columns) <= set(now.columns)
    assert now.index.equals(then.index) if exactly else then.index.isin(now.index).all()
    pd.testing.assert_frame_equal(now.loc[then.index, columns], then[columns], rtol=0, atol=TOLERANCE)


def assert_tested(folder: str, suffix: str = "") -> None:
    """Compare the results of `test` with the fixture's."""
    assert_still(f"{folder}/tables/test{suffix}.csv", ["metric"])
    assert_still(f"{folder}/tables/confusion{suffix}.csv", ["true"])


def assert_scored(folder: str) -> None:
    """Compare the scores of heads and layers with the fixture's, clip by clip."""
    assert_still(f"{folder}/heads.parquet", ["sample_id", "layer", "site", "head"], SCORES)
    assert_still(f"{folder}/layers.parquet", ["sample_id", "layer"], SCORES)


def assert_videos(folders: list[str]) -> None:
    """Classify the fixture's videos with exports, and compare with what they told."""
    then = VIDEOS[VIDEOS["exported"].isin(folders)]
    assert set(then["exported"]) == set(folders)
    for folder, told in then.groupby("exported"):
        run(f"predict --exported {folder} --device cpu --out told.jsonl --video", *told["video"])
        now = pd.read_json("told.jsonl", lines=True)
        assert now[["video", "start", "end"]].to_numpy().tolist() == told[["video", "start", "end"]].to_numpy().tolist()
        for new, old in zip(now["classes"], told["classes"], strict=True):
            assert [entry["name"] for entry in new] == [entry["name"] for entry in old]
            probabilities = [[entry["probability"] for entry in classes] for classes in (new, old)]
            np.testing.assert_allclose(*probabilities, rtol=0, atol=TOLERANCE)


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


def assert_pruning(folder: str = "run", rows: list[str] | None = None) -> None:
    """Compare the table of models with the fixture's, but for the speed, which is measured anew."""
    then, now = (pd.read_csv(f / folder / "tables/pruning.csv").set_index("plan_id") for f in (OLD, Path()))
    assert set(then.columns) <= set(now.columns)
    rows = then.index.tolist() if rows is None else rows
    same = [column for column in then.columns if column not in ("latency_ms_b1", "clips_per_s", "batch")]
    pd.testing.assert_frame_equal(now.loc[rows, same], then.loc[rows, same], check_dtype=False, rtol=0, atol=TOLERANCE)


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
        for told in (f" {row.top1:.1f} ", f" {row.macs / 1e3:.1f} ", f" {row.plan_id} " if row.k else " unpruned "):
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


def test_training_goes_on_where_it_was():
    old = (OLD / "run/tables/metrics.csv").read_bytes()
    run("fit --config run/config.yaml --ckpt_path run/checkpoints/last.ckpt --trainer.callbacks null "
        "--trainer.max_epochs 17")  # fmt: skip
    assert Path("run/tables/metrics-part1.csv").read_bytes() == old
    # The same steps on the same clips with the optimiser's old state; losses of one epoch, each step of which rounds.
    then, now = (pd.read_csv(path).sort_values("train/loss") for path in (OLD / "expected/resumed.csv",
                                                                          "run/tables/metrics.csv"))  # fmt: skip
    assert set(then["epoch"]) == set(now["epoch"]) == {16}
    assert now["step"].tolist() == then["step"].tolist()
    for name in ("train/loss", "val/loss"):
        assert now[name].dropna().tolist() == pytest.approx(then[name].dropna().tolist(), abs=1e-4)
    # The best weights are of an earlier epoch, which this one does not reach.
    assert Path("run/checkpoints/best.ckpt").read_bytes() == (OLD / "run/checkpoints/best.ckpt").read_bytes()
    assert Path("run/checkpoints/last.ckpt").read_bytes() != (OLD / "run/checkpoints/last.ckpt").read_bytes()
    assert not Path("run-2").exists()


def test_what_follows_a_finished_training_runs_again():
    """With all callbacks of the old configuration; the training itself has ended."""
    forget("run/tables/pruning.csv", "run/relevance/train/heads.parquet")
    run("fit --config run/config.yaml --ckpt_path run/checkpoints/last.ckpt")
    assert_scored("run/relevance/train")
    assert_pruning()
    assert Path("run/report.html").is_file()
    assert Path("run/checkpoints/best.ckpt").read_bytes() == (OLD / "run/checkpoints/best.ckpt").read_bytes()


def test_a_recovered_run_is_tested_and_exported_as_it_was():
    forget("recovered/tables/test.csv", "recovered/tables/confusion.csv", "recovered/tables/recovery.csv")
    run("test --run recovered")
    assert_tested("recovered")
    run("prune --run recovered")
    assert_still("recovered/tables/recovery.csv", ["model"])
    assert_still("recovered/tables/predictions/recovered.csv", ["sample_id"])


def test_old_exports_are_recovered():
    """The student, the teacher and the configuration are old; the training is new."""
    run("fit --config recovery.yaml --run new --trainer.max_epochs 1")
    table = pd.read_csv("new/tables/recovery.csv").set_index("model")
    old = pd.read_csv(OLD / "recovered/tables/recovery.csv").set_index("model")
    both = ["full", "pruned"]
    pd.testing.assert_frame_equal(table.loc[both], old.loc[both, table.columns], check_dtype=False)
    assert table.loc["recovered", "params"] == table.loc["pruned", "params"]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_other_families_give_the_same(family: str):
    folder = f"families/{family}"
    full, beside = f"{folder}/pruned/{FULL}", f"{folder}/pruned/layers1_heads-r-lowest-k2"
    assert_videos([full, beside])
    for export in (full, beside):
        suffix = f"-{Path(export).name}"
        forget(f"{folder}/tables/test{suffix}.csv", f"{folder}/tables/confusion{suffix}.csv")
        run(f"test --run {folder} --ckpt_path {export}/model.ckpt")
        assert_tested(folder, suffix)
    checkpoint = f"{OLD / full}/model.ckpt"
    run(f"ablate --run {folder} --ckpt_path {checkpoint}")  # accepted, and so kept
    for kind in ("heads", "layers"):
        path = Path(folder, "relevance/train", f"{kind}.parquet")
        assert path.read_bytes() == (OLD / path).read_bytes()
    forget(f"{folder}/relevance/train/heads.parquet", f"{folder}/relevance/train/layers.parquet",
           f"{folder}/tables/pruning.csv", f"{folder}/pruned")  # fmt: skip
    run(f"ablate --run {folder} --ckpt_path {checkpoint}")
    assert_scored(f"{folder}/relevance/train")
    run(f"prune --run {folder} --ckpt_path {checkpoint}")
    assert_pruning(folder)


@pytest.mark.parametrize("folder", ["run", "recovered", *(f"families/{family}" for family in FAMILIES)])
def test_old_configurations_are_still_whole(folder: str, capsys):
    """Every setting that a run's configuration names is known, and keeps its value."""
    with pytest.raises(SystemExit) as ended:
        train.main(["fit", "--config", f"{folder}/config.yaml", "--print_config"])
    assert not ended.value.code
    now, then = yaml.safe_load(capsys.readouterr().out), yaml.safe_load(Path(folder, "config.yaml").read_text())

    def kept(old: object, new: object) -> bool:
        if isinstance(old, dict) and isinstance(new, dict):
            return all(key in new and kept(value, new[key]) for key, value in old.items())
        if isinstance(old, list) and isinstance(new, list):
            return len(old) == len(new) and all(map(kept, old, new))
        return old == new

    assert kept(then, now)
