"""ablate on a finished run."""

import json
from pathlib import Path

import pandas as pd
import torch

import train
from sightline.backbones.parts import linear_kernels
from sightline.backbones.parts.linear_kernels import LinearKernels
from sightline.run.paths import RunFolder
from tests.commands.calling import error_of


def test_ablate_and_prune_start_from_a_finished_run(own_run: Path):
    before = (own_run / "config.yaml").read_text()
    train.main(["ablate", "--run", str(own_run), "--split", "test"])
    test_clips = pd.read_csv(own_run / "splits.csv").query("split == 'test'")["sample_id"]
    scores = pd.read_parquet(own_run / "relevance/test/layers.parquet")
    assert scores["sample_id"].drop_duplicates().tolist() == test_clips.tolist()
    old = pd.read_csv(own_run / "tables/pruning.csv")
    (own_run / "tables/pruning.csv").unlink()
    train.main(["prune", "--run", str(own_run)])
    new = pd.read_csv(own_run / "tables/pruning.csv")
    same = ["plan_id", "removed_layers", "top1", "params", "macs"]
    pd.testing.assert_frame_equal(new[same], old[same])
    assert (own_run / "config.yaml").read_text() == before


def test_what_is_no_run_is_refused(tmp_path, capsys):
    assert "has no config.yaml" in error_of(capsys, "ablate", "--run", str(tmp_path))


def test_scores_of_other_weights_are_noticed(own_run, tmp_path, capsys):
    content = torch.load(own_run / "checkpoints/best.ckpt", weights_only=True)
    content["state_dict"]["backbone.head.bias"] += 1
    torch.save(content, tmp_path / "other.ckpt")
    arguments = ["--run", str(own_run), "--ckpt_path", str(tmp_path / "other.ckpt")]
    assert "another model" in error_of(capsys, "ablate", *arguments)
    assert "made with other weights" in error_of(capsys, "prune", *arguments)


def test_ablate_can_race(own_run: Path, capsys):
    again = ["ablate", "--run", str(own_run), "--sampling", "racing", "--race.ks", "[1,2]"]
    assert "another sampling" in error_of(capsys, *again)
    assert "needs no minimum" in error_of(capsys, *again, "--race.min_samples", "30")
    train.main([*again, "--overwrite", "true"])
    assert "guaranteed with a probability of at least 0.99" in capsys.readouterr().out
    entry = json.loads((own_run / "relevance/train/manifest.json").read_text())["tables"]["layers"]
    assert {(members["mode"], members["k"]) for members in entry["race"]["sets"]} == {
        ("lowest", 1), ("lowest", 2), ("highest", 1), ("highest", 2)
    }  # fmt: skip
    assert "racing for lowest and highest 1 2 by r" in entry["sampling"]
    # The run prunes at depths that the race did not decide.
    assert "The race decided the sets" in error_of(capsys, "prune", "--run", str(own_run))


def test_heads_can_be_screened_by_gradient(own_run: Path, capsys):
    callbacks = "[{class_path: callbacks.GradientScreening, init_args: {exact_samples: 5}}]"
    train.main(["ablate", "--run", str(own_run), "--trainer.callbacks", callbacks])
    assert "on 5 clips" in capsys.readouterr().out
    screened = pd.read_csv(own_run / "tables/screening_train.csv")
    exact = pd.read_csv(own_run / "tables/relevance_train_heads.csv")
    assert len(screened) == len(exact)
    assert screened["mean"].is_monotonic_increasing
    assert (screened["exact_samples"] == 5).all()
    assert not list((own_run / "tables").glob(".screening*"))


def test_later_commands_run_by_the_stored_kernels(own_run: Path, monkeypatch):
    """As a new process would: nothing is measured again, and the scores are the same to the last digit."""
    written = RunFolder(own_run).kernels.read_bytes()

    def measured_again() -> LinearKernels:
        raise AssertionError("the run knows which kernels to use")

    monkeypatch.setattr(linear_kernels, "measure", measured_again)
    tables = []
    for _ in range(2):
        monkeypatch.setattr(linear_kernels, "_CHOSEN", None)
        train.main(["ablate", "--run", str(own_run), "--split", "val", "--overwrite", "true"])
        tables.append((own_run / "relevance/val/heads.parquet").read_bytes())
        (own_run / "relevance/val/heads.parquet").unlink()
    assert tables[0] == tables[1]
    assert RunFolder(own_run).kernels.read_bytes() == written
