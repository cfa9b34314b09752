"""What is said before layers are cut."""

from __future__ import annotations

import json
import logging

import numpy as np
import pandas as pd
import pytest
import torch

from sightline.backbones.fingerprint import weights_sha256
from sightline.pruning.choosing import PlanChooser
from sightline.pruning.request import PruningRequest
from sightline.pruning.scored_model import ScoredModel
from sightline.relevance.race_settings import RaceSettings
from sightline.relevance.racing import Race
from sightline.relevance.table import read_manifest
from sightline.run.atomic import write_json
from sightline.tokens import TokenReduction
from sightline.types import Unit
from tests.sightline.relevance.tables import score_table

MEANS = np.array([0.3, 0.1, 0.1 + 1e-9, 0.6])


def model_of(tmp_path, backbone, values: np.ndarray, race: dict | None = None, clips=None) -> ScoredModel:
    """A run's folder with these scores of the backbone's four layers, and perhaps three clips, all in one batch."""
    folder = tmp_path / "relevance" / "train"
    folder.mkdir(parents=True)
    score_table(values).to_parquet(folder / "layers.parquet")
    entry = {
        "format_version": 1, "data_sha256": "d", "weights_sha256": weights_sha256(backbone), "noise_floor": 1e-8,
    }  # fmt: skip
    if race is not None:
        entry["race"] = race
    write_json(folder / "manifest.json", {"tables": {"layers": entry}})
    names = list("abc")
    batch = {"clip": clips, "label": torch.tensor([0, 1, 2]), "sample_id": names, "group": ["g"] * 3, "unreadable": []}
    return ScoredModel(backbone, "best.ckpt", "train", folder, names, lambda places: [batch], "d")


def plans_of(model, **request):
    return [choice.plan for choice in PlanChooser(model, PruningRequest(**request)).choose()]


def test_a_gap_below_the_noise_floor_is_warned_of(tmp_path, tiny_swin, caplog):
    model = model_of(tmp_path, tiny_swin, np.repeat(MEANS[:, None], 5, axis=1))
    with caplog.at_level(logging.WARNING):
        plans = plans_of(model, depths=[1, 2])
    assert [plan.removed_layers for plan in plans] == [(1,), (1, 2), (3,), (0, 3)]
    (record,) = caplog.records
    assert "The 1 lowest: layer 1 is cut and layer 2 kept for a gap of 1e-09" in record.getMessage()


def test_further_scores_have_plans_of_their_own(tmp_path, tiny_swin):
    model = model_of(tmp_path, tiny_swin, np.repeat(MEANS[:, None], 5, axis=1))
    path = model.folder / "layers.parquet"
    table = pd.read_parquet(path)
    table.assign(jsd=1 - table["r"]).to_parquet(path)
    plans = {plan.plan_id: plan.removed_layers for plan in plans_of(model, depths=[1], scores=["jsd", "r"])}
    assert plans == {
        "relevance-r-lowest-k1": (1,), "relevance-r-highest-k1": (3,),
        "relevance-jsd-lowest-k1": (3,), "relevance-jsd-highest-k1": (1,),
    }  # fmt: skip


@pytest.mark.parametrize(("method", "warned"), [("guaranteed", []), ("approximate", [True])])
def test_a_race_prunes_what_it_decided_and_nothing_else(tmp_path, tiny_swin, caplog, method, warned):
    values = np.array([[0.3], [0.1], [0.2], [0.6]]) + 0.05 * np.random.default_rng(0).random((4, 300))
    race = Race(4, 300, RaceSettings(ks=(1,), method=method))
    race.replay(values)
    assert (race.n < 300).all()
    for unit, n in enumerate(race.n):
        values[unit, race.order[n:]] = np.nan
    values[3] *= 0.0  # so that only the race knows that layer 3 is the highest
    model = model_of(tmp_path, tiny_swin, values, race.record([Unit(i) for i in range(4)]))
    plans = plans_of(model, depths=[1])
    assert [plan.removed_layers for plan in plans] == [(1,), (3,)]
    assert [record.getMessage().startswith("The race was approximate") for record in caplog.records] == warned
    with pytest.raises(ValueError, match="decided the sets highest 1, lowest 1, not lowest 2"):
        plans_of(model, depths=[1, 2])


def test_baselines_are_plans_beside_relevance(tmp_path, tiny_swin, tiny_clips):
    model = model_of(tmp_path, tiny_swin, np.repeat(MEANS[:, None], 5, axis=1), clips=tiny_clips)
    methods = ["relevance", "last", "random", "block_influence", "gradient"]
    request = PruningRequest(depths=[2], modes=["lowest"], methods=methods, random_seeds=[4, 0])
    choices = {choice.plan.plan_id: choice for choice in PlanChooser(model, request).choose()}
    assert list(choices) == [
        "relevance-r-lowest-k2", "last-from_end-lowest-k2", "random-draw-lowest-k2-seed4",
        "random-draw-lowest-k2-seed0", "block_influence-cosine-lowest-k2", "gradient-taylor-lowest-k2",
    ]  # fmt: skip
    assert choices["last-from_end-lowest-k2"].plan.removed_layers == (2, 3)
    stored = json.loads((tmp_path / "relevance/train/baselines.json").read_text())
    influence = stored["scores"]["block_influence"]
    lowest = sorted(influence, key=influence.get)[:2]
    chosen = choices["block_influence-cosine-lowest-k2"]
    assert chosen.plan.removed_layers == tuple(sorted(map(int, lowest)))
    assert chosen.scores == influence
    assert {choice.ranking["weights_sha256"] for choice in choices.values()} == {weights_sha256(tiny_swin)}


def test_a_depth_beyond_the_model_is_refused_for_every_method(tmp_path, tiny_swin):
    model = model_of(tmp_path, tiny_swin, np.repeat(MEANS[:, None], 5, axis=1))
    with pytest.raises(ValueError, match="Cannot remove 5 layers: 4 of 4"):
        plans_of(model, depths=[5], methods=["last"])


def test_greedy_starts_from_the_table_and_goes_on_with_the_smaller_model(tmp_path, tiny_swin, tiny_clips):
    model = model_of(tmp_path, tiny_swin, np.repeat(MEANS[:, None], 5, axis=1), clips=tiny_clips)
    request = PruningRequest(depths=[1, 3], modes=["lowest", "highest"], methods=["greedy"])
    choices = PlanChooser(model, request).choose()
    assert [choice.plan.plan_id for choice in choices] == [
        "greedy-r-lowest-k1", "greedy-r-lowest-k3", "greedy-r-highest-k1", "greedy-r-highest-k3",
    ]  # fmt: skip
    assert choices[0].plan.removed_layers == (1,)  # the lowest in the table
    assert choices[2].plan.removed_layers == (3,)
    for shallow, deep in (choices[:2], choices[2:]):
        assert set(shallow.plan.removed_layers) < set(deep.plan.removed_layers)
        order = deep.ranking["order"]
        assert list(deep.scores) == [str(layer) for layer in order]
        step = pd.read_parquet(tmp_path / f"relevance/train/greedy/without-{order[0]}/layers.parquet")
        means = step.groupby("layer")["r"].mean()
        assert order[1] == (means.idxmin() if deep.plan.mode == "lowest" else means.idxmax())


def with_head_scores(model, means: dict[Unit, float]) -> None:
    """Add a table of heads in which every clip has a unit's mean."""
    folder = model.folder
    rows = [(f"c{i}", u.layer, u.site, u.head, mean, mean, mean) for i in range(3) for u, mean in means.items()]
    columns = ["sample_id", "layer", "site", "head", "r", "jsd", "dprob"]
    pd.DataFrame(rows, columns=columns).to_parquet(folder / "heads.parquet")
    manifest = read_manifest(folder)
    manifest["tables"]["heads"] = dict(manifest["tables"]["layers"])
    write_json(folder / "manifest.json", manifest)


def test_heads_go_alone_and_beside_layers(tmp_path, tiny_swin):
    model = model_of(tmp_path, tiny_swin, np.repeat(MEANS[:, None], 5, axis=1))
    units = tiny_swin.units("heads")  # two each in layers 0 and 1, four each in layers 2 and 3
    with_head_scores(model, {unit: 0.05 * place for place, unit in enumerate(units)})
    request = PruningRequest(depths=[], methods=[], heads=[3, 0.25], heads_without_layers=[1])
    choices = PlanChooser(model, request).choose()
    plans = {choice.plan.plan_id: choice.plan for choice in choices}
    # A quarter of 12 heads is 3 again; without layer 1, which is the lowest, a quarter of 10 is 2 (rounded to even).
    assert list(plans) == [
        "heads-r-lowest-k3", "heads-r-highest-k3", "layers1_heads-r-lowest-k4", "layers1_heads-r-lowest-k3",
        "layers1_heads-r-highest-k4", "layers1_heads-r-highest-k3",
    ]  # fmt: skip
    assert plans["heads-r-lowest-k3"].removed_heads == tuple(units[:3])
    beside = plans["layers1_heads-r-lowest-k4"]
    assert (beside.removed_layers, beside.removed_heads) == ((1,), (units[0], units[1], units[4]))
    assert plans["layers1_heads-r-highest-k3"].removed_heads == (units[6], units[7])  # layer 3 took its own along
    assert choices[0].scores["0:attention:1"] == pytest.approx(0.05)


SOME = TokenReduction.of("random", {"kept": 0.3})


def test_tokens_alone_need_no_scores_and_go_with_the_lowest_layers(tmp_path, tiny_swin):
    model = model_of(tmp_path, tiny_swin, np.repeat(MEANS[:, None], 5, axis=1))
    both = [SOME, TokenReduction.of("random")]
    plans = plans_of(model, depths=[], methods=[], tokens=[*both, SOME], tokens_without_layers=[2, 2])
    assert len(plans) == 4, "what is named twice is made once"
    assert {plan.plan_id: plan.removed_layers for plan in plans} == {
        "tokens-none-reduced-k0-random_kept0.3": (), "tokens-none-reduced-k0-random": (),
        "relevance-r-lowest-k2-random_kept0.3": (1, 2), "relevance-r-lowest-k2-random": (1, 2),
    }  # fmt: skip
    assert [plan.tokens for plan in plans[2:]] == both
    (model.folder / "layers.parquet").unlink()
    (choice,) = PlanChooser(model, PruningRequest(depths=[], methods=[], tokens=[SOME])).choose()
    assert choice.ranking == {"weights_sha256": weights_sha256(tiny_swin)}


def test_tokens_go_with_the_lowest_heads(tmp_path, tiny_swin):
    model = model_of(tmp_path, tiny_swin, np.repeat(MEANS[:, None], 5, axis=1))
    units = tiny_swin.units("heads")
    with_head_scores(model, {unit: 0.05 * place for place, unit in enumerate(units)})
    plans = plans_of(model, depths=[], methods=[], tokens=[SOME], tokens_without_heads=[3, 0.25])
    assert [plan.plan_id for plan in plans] == [
        "tokens-none-reduced-k0-random_kept0.3", "heads-r-lowest-k3-random_kept0.3"
    ]  # fmt: skip
    assert (plans[1].removed_heads, plans[1].tokens) == (tuple(units[:3]), SOME)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"depths": []}, "nothing to prune"),
        ({"heads": [12]}, "whole number from 1 to 11"),
        ({"heads": [1.5]}, "got 1.5"),
        ({"heads_without_layers": [1]}, "needs heads"),
        ({"heads": [1], "heads_without_layers": [5]}, "Cannot remove 5 layers"),
        ({"tokens_without_layers": [1]}, "needs tokens"),
        ({"tokens_without_heads": [1]}, "tokens_without_heads needs tokens"),
        ({"tokens": [SOME], "tokens_without_heads": [12]}, "whole number from 1 to 11"),
        ({"tokens": [SOME], "tokens_without_layers": [5]}, "Cannot remove 5 layers"),
        ({"tokens": [TokenReduction.of("random", {"layer": 9})]}, "has layers 0 to 3"),
    ],
)
def test_what_cannot_be_cut_is_refused(tiny_swin, asked, message):
    with pytest.raises(ValueError, match=message):
        PruningRequest(**asked).check(tiny_swin)
