"""What is said before layers are cut."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import numpy as np
import pytest

from callbacks.pruned_checkpoints import PrunedCheckpoints
from sightline.backbones.fingerprint import weights_sha256
from sightline.ranks import Ranks
from sightline.relevance.racing import Race
from sightline.relevance.table import write_json
from sightline.types import Unit
from tests.sightline.relevance.tables import score_table

MEANS = np.array([0.3, 0.1, 0.1 + 1e-9, 0.6])


def context_of(tmp_path, backbone, values: np.ndarray, race: dict | None = None) -> SimpleNamespace:
    """A run's folder with these scores of the backbone's four layers."""
    folder = tmp_path / "relevance" / "train"
    folder.mkdir(parents=True)
    score_table(values).to_parquet(folder / "layers.parquet")
    entry = {
        "format_version": 1, "data_sha256": "d", "weights_sha256": weights_sha256(backbone), "noise_floor": 1e-8,
    }  # fmt: skip
    if race is not None:
        entry["race"] = race
    write_json(folder / "manifest.json", {"tables": {"layers": entry}})
    return SimpleNamespace(
        relevance_folder=folder, split="train", backbone=backbone, checkpoint="best.ckpt", ranks=Ranks(),
        module=SimpleNamespace(hparams={"removed_layers": []}), data=SimpleNamespace(data_hash=lambda split: "d"),
    )  # fmt: skip


def test_a_gap_below_the_noise_floor_is_warned_of(tmp_path, tiny_swin, caplog):
    context = context_of(tmp_path, tiny_swin, np.repeat(MEANS[:, None], 5, axis=1))
    with caplog.at_level(logging.WARNING):
        plans = PrunedCheckpoints(depths=[1, 2])._plan(context)
    assert [plan.removed_layers for plan in plans] == [(1,), (1, 2), (3,), (0, 3)]
    (record,) = caplog.records
    assert "The 1 lowest: layer 1 is cut and layer 2 kept for a gap of 1e-09" in record.getMessage()


def test_a_race_prunes_what_it_decided_and_nothing_else(tmp_path, tiny_swin):
    values = np.array([[0.3], [0.1], [0.2], [0.6]]) + 0.05 * np.random.default_rng(0).random((4, 300))
    race = Race(4, 300, ks=(1,), modes=("lowest", "highest"))
    race.replay(values)
    assert race.n.tolist() == [100] * 4
    values[:, 100:] = np.nan
    values[3, :100] = 0.0  # so that only the race knows that layer 3 is the highest
    context = context_of(tmp_path, tiny_swin, values, race.record([Unit(i) for i in range(4)], "r"))
    plans = PrunedCheckpoints(depths=[1])._plan(context)
    assert [plan.removed_layers for plan in plans] == [(1,), (3,)]
    with pytest.raises(ValueError, match="decided the sets highest 1, lowest 1, not lowest 2"):
        PrunedCheckpoints(depths=[1, 2])._plan(context)
