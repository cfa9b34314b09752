"""The model of a run's checkpoint is the one that was saved: structure, weights, record."""

import pytest
import torch

from sightline.checkpoints.files import CheckpointError
from sightline.checkpoints.structure import describe_misfit, structure_of
from sightline.checkpoints.trained import (
    build_structure,
    built_as,
    load_trained,
    model_of,
    trained_checkpoint,
)
from sightline.run.paths import RunFolder
from sightline.types import Unit
from tests.conftest import TINY_SWIN, randomise

STRUCTURE = {
    "backbone": "video_swin_demo",
    "frames": 4,
    "size": 32,
    "options": {key: value for key, value in TINY_SWIN.items() if key not in ("frames", "size")},
    "num_classes": 2,
    "class_names": ["a", "b"],
    "removed_layers": [2],
    "removed_heads": [[3, "attention", 1]],
}


@pytest.fixture
def saved(tmp_path):
    """A checkpoint as a run writes it, and the model that it was written from."""
    backbone = randomise(build_structure(STRUCTURE))
    content = {
        "hyper_parameters": STRUCTURE,
        "state_dict": {**{f"backbone.{k}": v for k, v in backbone.state_dict().items()}, "train_loss.x": torch.ones(1)},
        "config": repr(backbone.config),
        "record": {**backbone.record.plain(), "mean": [0.1, 0.2, 0.3]},
    }
    path = tmp_path / "best.ckpt"
    torch.save(content, path)
    return path, content, backbone


def test_the_model_is_the_one_that_was_saved(saved, tiny_clips):
    path, _, backbone = saved
    state = torch.random.get_rng_state()
    loaded = load_trained(path)
    assert torch.equal(torch.random.get_rng_state(), state)
    backbone.set_record(loaded.record)
    with torch.no_grad():
        assert torch.equal(loaded(tiny_clips), backbone(tiny_clips))
    assert [info.index for info in loaded.layers] == [0, 1, 3]
    assert Unit(3, "attention", 1) not in loaded.units("heads")
    assert (loaded.record.mean, loaded.record.class_names) == ((0.1, 0.2, 0.3), ("a", "b"))
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_weights_of_half_precision_become_float32(saved):
    path, content, _ = saved
    half = {key: value.half() for key, value in content["state_dict"].items()}
    torch.save({**content, "state_dict": half}, path)
    assert {parameter.dtype for parameter in load_trained(path).parameters()} == {torch.float32}


def test_what_was_saved_otherwise_is_refused(saved):
    path, content, _ = saved
    for changes, message in (
        ({"config": "VideoSwinConfig(old=1)"}, "was built as .*; this version builds it as"),
        ({"hyper_parameters": {"learning_rate": 1}}, "does not say which backbone it holds"),
        ({"hyper_parameters": {**STRUCTURE, "removed_layers": None}}, "does not fit the video_swin_demo .* missing"),
    ):
        torch.save({**content, **changes}, path)
        with pytest.raises(ValueError, match=message):
            load_trained(path)


def test_a_model_that_runs_with_fewer_tokens_is_not_taken_for_one_that_runs_with_all(saved):
    path, content, backbone = saved
    tokens = {"name": "random", "options": {"kept": 0.5}}
    reduced = {**content, "hyper_parameters": {**STRUCTURE, "tokens": tokens}, "config": built_as(backbone, tokens)}
    torch.save(reduced, path)
    with pytest.raises(CheckpointError, match=r"runs with tokens .*random.*\. Pass one that runs with all"):
        load_trained(path)
    assert model_of(reduced, path).depth == 4  # for whoever passes the tokens on
    torch.save({**reduced, "hyper_parameters": STRUCTURE}, path)  # as a version reads it that knows no tokens
    with pytest.raises(ValueError, match=r"was built as .* with tokens"):
        load_trained(path)


def test_older_checkpoints_need_not_say_everything():
    told = {key: value for key, value in STRUCTURE.items() if key not in ("removed_heads", "removed_layers")}
    structure = structure_of({"hyper_parameters": told})
    assert structure["removed_heads"] is None
    assert len(build_structure(structure).layers) == 4


def test_the_best_weights_go_before_the_last(tmp_path):
    run = RunFolder(tmp_path)
    with pytest.raises(CheckpointError, match=r"no checkpoint in .*checkpoints"):
        trained_checkpoint(run)
    run.checkpoints.mkdir()
    for path in (run.last_checkpoint, run.best_checkpoint):
        path.touch()
        assert trained_checkpoint(run) == path


def test_a_misfit_is_told_in_one_line():
    expected = {"a": torch.zeros(2), "b": torch.zeros(3), **{f"c{i}": torch.zeros(1) for i in range(5)}}
    came = {"a": torch.zeros(2), "b": torch.zeros(4), "d": torch.zeros(1)}
    assert describe_misfit(expected, expected) == ""
    assert describe_misfit(expected, came) == (
        "5 missing (c0, c1, c2 and 2 more); 1 not expected (d); 1 of another shape (b is (4,) instead of (3,))"
    )
