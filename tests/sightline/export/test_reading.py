"""Reading exported folders: what is missing is named, damaged ones are refused."""

import json
from pathlib import Path

import pytest
import safetensors.torch

from sightline.export.reading import ExportError, load_exported, sha256
from tests.sightline.export.models import PLANS, make


def rewrite(folder: Path, **changes):
    told = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**told, **changes}))


def write_weights(folder: Path, content: bytes):
    """Replace the weights, with a hash that fits."""
    (folder / "model.safetensors").write_bytes(content)
    rewrite(folder, sha256={"model.safetensors": sha256(content)})


def test_what_is_not_there_is_said(tmp_path, exported):
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        load_exported(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        load_exported(exported / "model.json")
    (exported / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no model\.safetensors"):
        load_exported(exported)
    (exported / "model.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no model\.json"):
        load_exported(exported)


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_changed_weights_are_refused(damage, exported):
    path = exported / "model.safetensors"
    content = bytearray(path.read_bytes())
    if damage == "cut":
        content = content[: len(content) // 2]
    else:
        content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(ExportError, match="cut short or changed"):
        load_exported(exported)


def test_cut_weights_with_a_fitting_hash_are_refused(exported):
    write_weights(exported, (exported / "model.safetensors").read_bytes()[:-100])
    with pytest.raises(ExportError, match="not a whole safetensors file"):
        load_exported(exported)


def test_weights_of_another_model_are_refused(exported):
    tensors = make(PLANS["full"]).state_dict()
    del tensors["head.bias"]
    tensors["norm.weight"] = tensors["norm.weight"][:5].clone()
    write_weights(exported, safetensors.torch.save(tensors))
    message = r"1 missing \(head\.bias\); \d+ not expected \(features.*\); 1 of another shape \(norm\.weight is \(5,\)"
    with pytest.raises(ExportError, match=message):
        load_exported(exported)


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", '{"format_version": 3}', '{"format_version": null}'])
def test_other_formats_are_refused(text, exported):
    (exported / "model.json").write_text(text)
    with pytest.raises(ExportError, match=r"not whole JSON|has format version"):
        load_exported(exported)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "gone"},
        {"name": None},
        {"num_classes": "3"},
        {"num_classes": -3},
        {"options": {"widht": 3}},
        {"options": 5},
        {"config": {}},
        {"num_classes": 10**9},
        {"options": {"depth": 10**9}},
        {"options": {"depths": [10**9]}},
        {"options": {"width": 60000}},
        {"options": {"frames": -4}},
        {"options": {"patch": []}},
        {"options": {"size": 65536, "frames": 65536}},
        {"removed_layers": [99]},
        {"removed_layers": [999, -1, "x"]},
        {"removed_layers": ["0"]},
        {"removed_layers": [0.0]},
        {"removed_heads": [[0, "attention", -1]]},
        {"removed_heads": [[0, "nowhere", 0]]},
        {"removed_heads": [[0, "attention"]]},
        {"removed_heads": None},
        {"normalisation": {"mean": [1]}},
        {"normalisation": {"mean": [1], "std": [1]}},
        {"classes": 3},
        {"dtype": "int8"},
        {"dtype": []},
        {"sha256": None},
    ],
    ids=str,
)
def test_damaged_descriptions_are_refused(changes, exported):
    rewrite(exported, **changes)
    with pytest.raises(ExportError) as caught:
        load_exported(exported)
    assert str(exported) in str(caught.value)


def test_checkpoint_is_not_needed_to_load(exported):
    (exported / "model.ckpt").unlink()
    assert load_exported(exported).backbone.depth == 6
