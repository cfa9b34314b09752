"""Real processes that are really killed (SIGKILL), at three points, and go on with another number of them."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sightline.relevance.ranking import rank_units
from sightline.relevance.table import read_manifest, read_scores
from tests.sightline.relevance.score_process import NAMES

ROOT = Path(__file__).resolve().parents[3]


def start(folder: Path, world: int, *options: str) -> list[subprocess.Popen]:
    store = folder.parent / f"store{time.monotonic_ns()}"
    command = [sys.executable, "-m", "tests.sightline.relevance.score_process", str(folder), "--world", str(world)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return [
        subprocess.Popen(
            [*command, "--rank", str(rank), "--store", str(store), *options],
            cwd=ROOT,
            env=environment,
            stderr=subprocess.DEVNULL,
        )
        for rank in range(world)
    ]


def finish(processes: list[subprocess.Popen]) -> None:
    assert [process.wait(timeout=120) for process in processes] == [0] * len(processes)


def kill_after(processes: list[subprocess.Popen], folder: Path, parts: int) -> None:
    """Kill all processes as soon as this many parts are on disk."""
    deadline = time.monotonic() + 120
    while len(list(folder.glob("heads.parts/*.parquet"))) < parts:
        assert time.monotonic() < deadline, "the processes wrote no parts"
        assert all(process.poll() is None for process in processes), "finished before it could be killed"
        time.sleep(0.01)
    for process in processes:
        process.kill()
    for process in processes:
        process.wait()


def assert_same(found: pd.DataFrame, expected: pd.DataFrame, floor: float) -> None:
    keys = ["sample_id", "label", "predicted", "group", "layer", "site", "head"]
    pd.testing.assert_frame_equal(found[keys], expected[keys])
    numbers = ["p_true", "p_true_ablated", "dprob", "jsd", "r"]
    pd.testing.assert_frame_equal(found[numbers], expected[numbers], rtol=0, atol=1e-5)
    # The same ranking, except among units whose means are closer than the noise floor.
    means = rank_units(expected).set_index(["layer", "site", "head"])["mean"]
    order = rank_units(found).set_index(["layer", "site", "head"]).index
    assert (np.diff(means.loc[order]) > -2 * max(floor, 1e-7)).all()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_three_times_and_finished_by_others(tmp_path):
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    finish(start(alone, 1, "--batch", "4", "--stack", "3"))
    expected = read_scores(alone, "heads")
    assert expected["sample_id"].drop_duplicates().tolist() == NAMES

    slow = ["--seconds", "0.5"]
    kill_after(start(killed, 2, *slow), killed, 2)
    with pytest.raises(FileNotFoundError, match="unfinished"):
        read_scores(killed, "heads")
    kill_after(start(killed, 1, *slow, "--stack", "1"), killed, 6)
    kill_after(start(killed, 2, *slow, "--batch", "2", "--stack", "3"), killed, 9)
    before = {path.name for path in killed.glob("heads.parts/*.parquet")}
    finish(start(killed, 2))
    assert len(before) >= 9
    floor = read_manifest(killed)["tables"]["heads"]["noise_floor"]
    assert_same(read_scores(killed, "heads"), expected, floor)
    assert not (killed / "heads.parts").exists()
