"""What a file says of a model's structure is checked before memory is given to a model."""

import pytest
import torch

from sightline.checkpoints.files import CheckpointError
from sightline.checkpoints.structure import misfit_of, removed_units, structure_of
from sightline.checkpoints.trained import model_of
from sightline.types import Unit
from tests.sightline.checkpoints.test_trained import STRUCTURE


def content(**changes):
    told = {**STRUCTURE, "removed_layers": None, "removed_heads": None, **changes}
    return {"hyper_parameters": told, "state_dict": {"backbone.head.weight": torch.zeros(2, 32)}}


@pytest.mark.parametrize(
    "changes",
    [
        {"options": {"depths": [10**9, 2]}},
        {"options": {"width": 10**9}},
        {"options": {"mlp_ratio": 1e300}},
        {"options": {"width": 60000, "heads": [2, 4], "depths": [400, 400]}},  # within all limits: petabytes
        {"options": {"width": "wide"}},
        {"frames": -4},
        {"size": 10**12},
        {"num_classes": 10**9, "class_names": None},
        {"num_classes": True},
        {"frames": "4"},
        {"options": ["width"]},
        {"class_names": "ab"},
        {"class_names": ["a", "b", "c"]},
        {"class_names": [None, None]},
        {"options": {"patch": []}},
        {"removed_layers": [999]},
        {"removed_layers": [-1]},
        {"removed_layers": ["x"]},
        {"removed_layers": 3},
        {"removed_heads": [[0, "attention", -1]]},
        {"removed_heads": [[0, "attention", 99]]},
        {"removed_heads": [[0, "attention"]]},
        {"removed_heads": [3]},
        {"backbone": 7},
        {"backbone": "resnet"},
        {"tokens": "sta"},
    ],
    ids=str,
)
def test_structures_that_cannot_be_are_refused(changes):
    with pytest.raises(CheckpointError) as caught:
        model_of(content(**changes), "some.ckpt")
    assert len(str(caught.value).splitlines()) == 1


def test_the_shapes_in_the_file_decide_before_memory_is_given():
    """A model of petabytes is not built to find out that the file holds another."""
    with pytest.raises(CheckpointError, match=r"does not fit .*\d+ missing"):
        model_of(content(options={"width": 60000, "heads": [2, 4], "depths": [400, 400], "window": [2, 4, 4]}), "x")


def test_what_no_file_holds_is_limited_too(monkeypatch):
    from sightline.backbones import build_backbone
    from sightline.checkpoints import structure

    monkeypatch.setattr(structure, "MOST_BUFFER_BYTES", 1000)
    with pytest.raises(ValueError, match=r"own tables would take"):
        misfit_of(lambda: build_backbone("video_swin_demo", 2), {})


def test_what_was_cut_out_is_read():
    assert removed_units([3, 1], [[0, "attention", 2]]) == ((3, 1), (Unit(0, "attention", 2),))
    assert removed_units((), ()) == ((), ())


@pytest.mark.parametrize(("layers", "heads"), [([1.0], []), ([True], []), (None, []), ([], [[1, 2, 3]]), ([], "abc")])
def test_what_is_no_unit_is_refused(layers, heads):
    with pytest.raises(CheckpointError, match="removed_"):
        removed_units(layers, heads)


def test_a_whole_structure_passes():
    assert structure_of({"hyper_parameters": STRUCTURE})["removed_layers"] == [2]
