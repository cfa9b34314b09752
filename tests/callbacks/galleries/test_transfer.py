"""A model on other data: which classes stand for which, and what is drawn and scored."""

import json
from dataclasses import replace

import pandas as pd
import pytest
import torch

from callbacks import AttentionGallery, HeadAblation, TransferGallery
from callbacks.analysis import Context
from callbacks.galleries import transfer as transfer_gallery
from callbacks.galleries.transfer import class_mapping
from datamodules import SyntheticCabin
from lightning_modules import VideoClassifier
from sightline.relevance.scores import score
from sightline.run.ranks import Ranks
from tests.conftest import CABIN, TINY_SWIN, randomise

OWN, OTHERS = ["phone", "eat"], ["eating", "drinking", "texting"]


@pytest.fixture
def context(cabin_root, tmp_path):
    data = SyntheticCabin(root=str(cabin_root), **CABIN)
    options = {key: value for key, value in TINY_SWIN.items() if key not in ("frames", "size")}
    module = VideoClassifier(2, backbone="video_swin_demo", frames=4, size=32, options=options)
    return Context(tmp_path / "run", "train", module, randomise(module.backbone), "none", data, Ranks(), [])


def other_data(cabin_root, **settings) -> SyntheticCabin:
    return SyntheticCabin(root=str(cabin_root), **{**CABIN, **settings})


def test_classes_are_mapped_by_name():
    assert class_mapping({"eat": ["eating", "drinking"], "phone": "texting"}, OWN, OTHERS) == {0: 1, 1: 1, 2: 0}
    with pytest.raises(ValueError, match=r"'sleep', which is no class of the model's: phone, eat\."):
        class_mapping({"sleep": "eating"}, OWN, OTHERS)
    with pytest.raises(ValueError, match=r"phone maps to 'calling', .* eating, drinking, texting\."):
        class_mapping({"phone": ["texting", "calling"]}, OWN, OTHERS)
    with pytest.raises(ValueError, match="eating is mapped from two classes"):
        class_mapping({"phone": "eating", "eat": "eating"}, OWN, OTHERS)


def test_specialised_heads_are_drawn_and_scored_as_the_mapped_class(context, cabin_root, capsys):
    HeadAblation().analyse(context)
    # Classes swapped: a clip of steering there stands for texting here.
    swapped = {"texting-on-phone": "steering", "steering": ["texting-on-phone"]}
    TransferGallery(other_data(cabin_root), swapped, clips_per_class=1).analyse(context)
    assert "of 2 clips are predicted as the class that they stand for" in capsys.readouterr().out
    table = pd.read_csv(context.folder / "tables/transfer.csv")
    assert table[["class_there", "class"]].values.tolist() == [
        ["steering", "texting-on-phone"], ["texting-on-phone", "steering"]
    ]  # fmt: skip
    train = pd.read_parquet(context.folder / "relevance/train/heads.parquet")
    row = table.iloc[0]
    means = train[(train["label"] == 1) & (train["layer"] >= 2)].groupby(["layer", "head"])["r"].mean()
    assert (row["layer"], row["head"]) == means.idxmax()
    # Its score on the clip, from the whole model with that head's gate shut.
    [clip] = [clip for clip in context.data.clips("test") if clip.sample_id == row["sample_id"]]
    [batch] = context.data.evaluation_loader([clip], 1)
    unit = next(u for u in context.backbone.units("heads") if (u.layer, u.head) == (row["layer"], row["head"]))
    with torch.no_grad():
        base, without = context.backbone(batch["clip"]), context.backbone.without_heads([unit])(batch["clip"])
    assert row["r"] == pytest.approx(score(base, without[None], torch.tensor([1])).r.item(), abs=1e-5)
    assert row["correct"] == (base.argmax().item() == 1)
    assert 1 <= row["rank"] <= row["heads"] == 8
    captions = json.loads((context.folder / "attention/index.json").read_text())
    assert [name.rpartition("_")[2] for name in captions] == ["transfer.png", "transfer.mp4"] * 2
    assert all((context.folder / "attention" / name).stat().st_size > 1000 for name in captions)
    told = next(iter(captions.values()))
    assert told.startswith(
        "Attention of the head most relevant to texting-on-phone, frame by frame, in a clip of other "
    )
    assert f"Clip {row['sample_id']}: steering there, predicted " in told


def test_heads_of_the_other_data_are_blurred(context, cabin_root, monkeypatch):
    HeadAblation().analyse(context)
    drawn = []

    def write(stem, kind, frames, *rest) -> list[str]:
        drawn.append(frames)
        return []

    monkeypatch.setattr(transfer_gallery, "write_strip", write)
    tables = []
    for blur in (False, True):
        data = other_data(cabin_root)
        TransferGallery(data, {"steering": "steering"}, clips_per_class=1, blur_heads=blur).analyse(context)
        tables.append((context.folder / "tables/transfer.csv").read_text())
    assert tables[0] == tables[1]  # the model sees the clips as they are
    sharp, blurred = drawn
    [name] = pd.read_csv(context.folder / "tables/transfer.csv")["sample_id"]
    [clip] = [clip for clip in data.clips("test") if clip.sample_id == name]
    changed = (sharp != blurred).any(axis=-1)
    [box] = [box for box in data.truth(clip).boxes if box.name == "head" and box.frame == 0]
    rows, columns = slice(int(box.y0) + 1, int(box.y1)), slice(int(box.x0) + 1, int(box.x1))
    assert changed[0, rows, columns].mean() > 0.5 > changed.mean()
    with pytest.raises(ValueError, match="set blur_heads too"):
        TransferGallery(data, {"steering": "steering"}, boxes="boxes.csv")


def test_galleries_keep_each_others_files(context, cabin_root):
    HeadAblation().analyse(context)
    TransferGallery(other_data(cabin_root), {"steering": "steering"}, clips_per_class=1).analyse(context)
    AttentionGallery(max_clips=1).analyse(replace(context, split="test"))
    captions = json.loads((context.folder / "attention/index.json").read_text())
    assert sum(name.endswith("_transfer.png") for name in captions) == 1
    assert sum(name.endswith("_heads.png") for name in captions) == 1
    assert {path.name for path in (context.folder / "attention").iterdir()} == {*captions, "index.json"}


def test_other_inputs_and_unknown_classes_are_refused(context, cabin_root):
    with pytest.raises(ValueError, match="takes clips of 4x32x32, the other data give 8x32x32"):
        TransferGallery(other_data(cabin_root, frames=8), {"steering": "steering"}).analyse(context)
    with pytest.raises(ValueError, match="not a class of the other data: steering, texting-on-phone"):
        TransferGallery(other_data(cabin_root), {"steering": "driving"}).analyse(context)
    with pytest.raises(ValueError, match="Expected classes to map"):
        TransferGallery(other_data(cabin_root), {})
