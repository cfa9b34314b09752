"""Exported models that run with fewer tokens: read back with their reducer, and never taken for dense ones."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from sightline.backbones import build_backbone
from sightline.checkpoints.trained import built_as
from sightline.export.evaluation import predict_batch
from sightline.export.latency import compare_latency
from sightline.export.reading import ExportError, exported_plan, load_exported, read_description
from sightline.export.writing import export_model
from sightline.pruning.plan import PruningPlan, unpruned_plan, unremoved_plan
from sightline.tokens import KeepRandom, TokenReduction
from sightline.types import Unit
from tests.conftest import DEMO_VARIANTS, TINY_SWIN, randomise

SOME = TokenReduction.of("random", {"kept": 0.4, "seed": 3})
CUT = PruningPlan("relevance", "r", "lowest", 2, (1,), (Unit(0, "attention", 1),), tokens=SOME)


def export(backbone, folder, plan, name="video_swin_demo", options=TINY_SWIN, **changes):
    smaller = backbone.without(plan.removed_layers).without_heads(plan.removed_heads)
    given = {"provenance": {}, "sampling": {}, "hyper_parameters": {"backbone": name}, **changes}
    return export_model(smaller, folder, name=name, options=options, plan=plan, **given)


def rewrite(folder, **changes):
    told = json.loads((folder / "model.json").read_text())
    told = {key: value for key, value in {**told, **changes}.items() if value != "drop"}
    (folder / "model.json").write_text(json.dumps(told))


@pytest.mark.parametrize("name", DEMO_VARIANTS)
def test_the_model_comes_back_with_its_reducer(name, tmp_path):
    backbone = randomise(build_backbone(name, 3))
    spec = backbone.input_spec
    clips = torch.randint(256, (2, 3, spec.frames, spec.height, spec.width), dtype=torch.uint8)
    plan = replace(CUT, k=1, removed_layers=(), removed_heads=(Unit(0, backbone.layers[0].sites[0].name, 1),))
    if backbone.dropped_tokens == "refused":
        with pytest.raises(ValueError, match="needs all of its tokens"):
            export(backbone, tmp_path / "x", plan, name, {})
        assert not (tmp_path / "x").exists()
        return
    model = load_exported(export(backbone, tmp_path / "x", plan, name, {}))
    assert model.reducer == KeepRandom(kept=0.4, seed=3)
    whole = backbone.without_heads(plan.removed_heads)
    with torch.no_grad():
        found = model.backbone(clips, reducer=model.reducer)
        torch.testing.assert_close(found, whole(clips, reducer=model.reducer), rtol=0, atol=0)
        assert (found - whole(clips)).abs().max() > 1e-4


def test_the_description_says_tokens_and_format(tiny_swin, tmp_path):
    reduced = export(tiny_swin, tmp_path / CUT.plan_id, CUT)
    told = read_description(reduced)
    options = {"attention": "sparse", "kept": 0.4, "layer": -1, "at": "own", "seed": 3}
    assert told["tokens"] == {"name": "random", "options": options}
    assert told["format"] == "fp32"
    assert told["plan"]["plan_id"] == reduced.name == "relevance-r-lowest-k2-random_kept0.4_seed3"
    assert exported_plan(told) == CUT
    dense = export(tiny_swin, tmp_path / "dense", unpruned_plan())
    told = read_description(dense)
    assert (told["tokens"], told["format"]) == (None, "fp32")
    assert exported_plan(told) == unpruned_plan()
    # A version that reads format 1 alone knows no tokens: it has to refuse the one, and can read the other.
    versions = [json.loads((folder / "model.json").read_text())["format_version"] for folder in (reduced, dense)]
    assert versions == [2, 1]


def test_a_file_of_an_older_version_has_all_tokens_and_fp32(tiny_swin, tmp_path):
    folder = export(tiny_swin, tmp_path / "old", unpruned_plan())
    rewrite(folder, tokens="drop", format="drop")
    assert load_exported(folder).reducer is None
    assert exported_plan(read_description(folder)) == unpruned_plan()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokens": {"name": "gone", "options": {}}}, "Unknown token reduction 'gone'"),
        ({"tokens": {"name": "random", "options": {"share": 1}}}, "random has no option 'share'"),
        ({"tokens": {"name": "random", "options": {"kept": 0.0}}}, "above 0"),
        ({"tokens": "random"}, "Expected tokens as"),
        ({"format": "fp8"}, "Unknown number format 'fp8'; known are fp32, bf16, int8"),
        ({"format": None}, "Unknown number format None"),
        ({"format": ["fp32"]}, "Unknown number format"),
    ],
)
def test_unknown_tokens_and_formats_are_refused_in_one_line(changes, message, tiny_swin, tmp_path):
    folder = export(tiny_swin, tmp_path / "x", CUT)
    rewrite(folder, **changes)
    for read in (read_description, load_exported):
        with pytest.raises(ExportError, match=message) as caught:
            read(folder)
        assert str(folder) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_known_format_that_cannot_run_yet_is_refused(tiny_swin, tmp_path):
    for form in ("int8", "bf16"):
        with pytest.raises(ExportError, match=f"Exports exist in fp32 only; {form} cannot be written"):
            export(tiny_swin, tmp_path / "x", unremoved_plan(format=form))
    assert not (tmp_path / "x").exists()
    folder = export(tiny_swin, tmp_path / "x", unremoved_plan(SOME))
    rewrite(folder, format="int8")
    assert read_description(folder)["format"] == "int8"
    with pytest.raises(ExportError, match="int8 cannot be written or run yet"):
        load_exported(folder)


def test_a_plan_that_does_not_hold_together_is_refused(tiny_swin, tmp_path):
    folder = export(tiny_swin, tmp_path / "x", CUT)
    for changes in ({"plan": None}, {"plan": {"method": "relevance"}}, {"tokens": None, "removed_layers": []}):
        kept = (folder / "model.json").read_text()
        rewrite(folder, **changes)
        with pytest.raises(ExportError, match="holds no plan"):
            exported_plan(read_description(folder))
        (folder / "model.json").write_text(kept)


def test_what_cannot_be_exported_with_tokens_is_said_before_anything_is_written(tiny_swin, tmp_path):
    with pytest.raises(ValueError, match=r"Programs \(onnx\) run with all tokens"):
        export(tiny_swin, tmp_path / "x", CUT, programs=["onnx"])
    far = TokenReduction.of("random", {"layer": 9})
    with pytest.raises(ValueError, match="has layers 0 to 3"):
        export(tiny_swin, tmp_path / "x", unremoved_plan(far))
    assert not (tmp_path / "x").exists()


def test_a_checkpoint_with_tokens_is_not_what_a_version_without_them_builds(tiny_swin, tmp_path):
    """The released version refuses a ``config`` that is not the repr of the configuration that it builds."""
    checkpoint = torch.load(export(tiny_swin, tmp_path / "x", CUT) / "model.ckpt", weights_only=True)
    assert checkpoint["config"] == built_as(tiny_swin, SOME.plain()) != repr(tiny_swin.config)
    dense = torch.load(export(tiny_swin, tmp_path / "y", unpruned_plan()) / "model.ckpt", weights_only=True)
    assert "config" not in dense


def test_predictions_are_those_with_the_reducer(tiny_swin, tiny_clips):
    names = list("abc")
    batch = {"clip": tiny_clips, "label": torch.tensor([0, 1, 2]), "sample_id": names, "group": names, "unreadable": []}
    reducer = SOME.build()
    found = predict_batch(tiny_swin, batch, reducer)["p_true"].to_pylist()
    wanted = tiny_swin(tiny_clips, reducer=reducer).double().softmax(-1)
    assert found == pytest.approx([wanted[i, i].item() for i in range(3)], abs=1e-6)
    assert found != predict_batch(tiny_swin, batch)["p_true"].to_pylist()


def test_time_is_measured_with_each_model_s_reducer_on_the_clips_given(tiny_swin, tiny_clips):
    seen = []

    class Spy(KeepRandom):
        def reduce(self, place, state):
            seen.append(state.require_pixels("Spy").clone())
            return super().reduce(place, state)

    models = {"all": tiny_swin, "some": tiny_swin}
    found = compare_latency(models, batch=4, repeats=1, warmup=1, reducers={"some": Spy()}, clips=tiny_clips)
    assert set(found) == {"all", "some"}
    assert len(seen) == 2
    assert torch.equal(seen[0], tiny_clips[[0, 1, 2, 0]])  # three clips, repeated to a batch of four
