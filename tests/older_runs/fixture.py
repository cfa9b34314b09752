"""What older versions wrote is read and gives what it gave: tests/old_run, of 0.1.0; its make.py says how it was made.

Only the command line and files are used here, nothing of the modules, which later versions may arrange otherwise. Every
test works on a copy, in a folder of its own, and compares what it gets with the files of the fixture.
"""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd

import train

OLD = Path(__file__).resolve().parents[1] / "old_run"
FULL, LOWEST, BESIDE = "relevance-r-none-k0", "relevance-r-lowest-k1", "layers1_heads-r-lowest-k3"
FAMILIES = sorted(path.name for path in (OLD / "families").iterdir())
VIDEOS = pd.read_json(OLD / "expected/videos.jsonl", lines=True)
SCORES = ["p_true", "p_true_ablated", "dprob", "jsd", "r"]
# Probabilities and scores; another machine adds in another order.
TOLERANCE = 1e-5


def run(command: str, *words: str) -> None:
    try:
        train.main([*command.split(), *words])
    except SystemExit as ended:
        if ended.code:
            raise


def read(path: Path) -> pd.DataFrame:
    return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)


def forget(*paths: str) -> None:
    """Delete what a command must write again."""
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
    assert_still(f"{folder}/tables/test{suffix}.csv", ["metric"], exactly=False)
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


def assert_pruning(folder: str = "run", rows: list[str] | None = None) -> None:
    """Compare the table of models with the fixture's, but for the speed, which is measured anew."""
    then, now = (pd.read_csv(f / folder / "tables/pruning.csv").set_index("plan_id") for f in (OLD, Path()))
    assert set(then.columns) <= set(now.columns)
    rows = then.index.tolist() if rows is None else rows
    same = [column for column in then.columns if column not in ("latency_ms_b1", "clips_per_s", "batch")]
    pd.testing.assert_frame_equal(now.loc[rows, same], then.loc[rows, same], check_dtype=False, rtol=0, atol=TOLERANCE)
