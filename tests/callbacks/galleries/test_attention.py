"""The gallery on a run: which files it leaves, what they are about, and what it refuses."""

import json
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest

from callbacks import AttentionGallery, HeadAblation
from callbacks.analysis import Context
from callbacks.galleries.attention import _Artist
from datamodules import SyntheticCabin
from lightning_modules import VideoClassifier
from sightline.report.figures.clip_attention import ClipAttention
from sightline.run.ranks import Ranks
from tests.conftest import CABIN, TINY_SWIN, randomise


@pytest.fixture
def context(cabin_root, tmp_path):
    data = SyntheticCabin(root=str(cabin_root), **CABIN)
    options = {key: value for key, value in TINY_SWIN.items() if key not in ("frames", "size")}
    module = VideoClassifier(2, backbone="video_swin_demo", frames=4, size=32, options=options)
    return Context(tmp_path / "run", "test", module, randomise(module.backbone), "none", data, Ranks(), [])


@pytest.fixture
def drawn(monkeypatch) -> list[ClipAttention]:
    """What would be drawn, without drawing it: files hold a letter."""
    views: list[ClipAttention] = []

    def write(artist: _Artist, view: ClipAttention, stem: Path) -> dict[str, str]:
        views.append(view)
        picture = stem.with_name(f"{stem.name}_heads.png")
        picture.write_text("x")
        return {picture.name: view.title}

    monkeypatch.setattr(_Artist, "_write", write)
    return views


def test_pictures_videos_captions_and_a_table(context, capsys):
    HeadAblation().analyse(context)
    AttentionGallery(max_clips=1).analyse(context)
    folder = context.folder / "attention"
    index = json.loads((folder / "index.json").read_text())
    assert {path.name for path in folder.iterdir()} == {*index, "index.json"}
    table = pd.read_csv(context.folder / "tables/attention_test.csv")
    shown = table.set_index(["depth", "choice"])[["layer", "head"]]
    same = shown.loc[("all", "most")].equals(shown.loc[("deep", "specialised")])
    kinds = ("heads", "frames") if same else ("heads", "frames", "methods")
    assert [name.rpartition("_")[2] for name in index] == [
        f"{kind}.{ending}" for kind in kinds for ending in ("png", "mp4")
    ]
    for path in folder.glob("*.mp4"):
        with av.open(str(path)) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert len(frames) == 4
        assert np.std(frames[0]) > 1
    scores = pd.read_parquet(context.folder / "relevance/test/heads.parquet")
    own = scores[scores["sample_id"] == table["sample_id"][0]]
    best = own.loc[own["r"].idxmax()]
    row = table[(table["depth"] == "all") & (table["choice"] == "most")].iloc[0]
    assert (row["layer"], row["head"]) == (best["layer"], best["head"])
    assert row["r"] == pytest.approx(best["r"], rel=1e-4)
    printed = capsys.readouterr().out
    assert "Drew the attention of 1 clips" in printed
    assert "A forward pass took" in printed
    assert "of a forward pass" in printed


def test_scores_of_the_training_clips_stand_in_and_an_older_gallery_goes(context, drawn):
    HeadAblation().analyse(replace(context, split="train"))
    folder = context.folder / "attention"
    AttentionGallery(clips_per_class=2).analyse(context)
    assert len(drawn) == 4
    assert {(view.split, view.heads.scored) for view in drawn} == {("train", 24)}
    before = json.loads((folder / "index.json").read_text())
    assert list(before.values()) == [view.title for view in drawn]
    (folder / "mine.png").write_text("x")
    wanted = drawn[2].sample_id
    AttentionGallery(clips=wanted).analyse(context)
    after = json.loads((folder / "index.json").read_text())
    assert len(after) == 1
    assert set(after) <= set(before)
    assert {path.name for path in folder.iterdir()} == {*after, "index.json", "mine.png"}


def test_heads_are_blurred_in_what_is_drawn_and_not_in_what_the_model_sees(context, drawn, tmp_path, capsys):
    HeadAblation().analyse(context)
    AttentionGallery().analyse(context)
    plain = {view.sample_id: view for view in drawn}
    drawn.clear()
    AttentionGallery(blur_heads=True).analyse(context)
    clips = {clip.sample_id: clip for clip in context.data.clips("test")}
    assert len(drawn) == 2
    for view in drawn:
        before = plain[view.sample_id]
        assert view.probability == before.probability
        changed = (view.frames != before.frames).any(axis=-1)
        for box in context.data.truth(clips[view.sample_id]).boxes:
            if box.name == "head":
                rows, columns = slice(int(box.y0) + 1, int(box.y1)), slice(int(box.x0) + 1, int(box.x1))
                assert changed[box.frame, rows, columns].mean() > 0.5
        assert changed.mean() < 0.5
    capsys.readouterr()
    boxes = tmp_path / "boxes.csv"
    first, second = list(plain)
    boxes.write_text(f"sample_id,name,frame,x0,y0,x1,y1\n{first},head,0,0,0,9,9\n{second},hand,0,0,0,9,9\n")
    drawn.clear()
    AttentionGallery(blur_heads=True, boxes=str(boxes)).analyse(context)
    assert [view.sample_id for view in drawn] == [first]
    assert f"no box named head is known to blur: {second}" in capsys.readouterr().out


def test_what_is_refused(context, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"train\.py ablate --run .* --split train"):
        AttentionGallery().analyse(context)
    HeadAblation().analyse(context)
    monkeypatch.setattr(SyntheticCabin, "truth", lambda self, clip: None)
    with pytest.raises(ValueError, match="none are known of any clip of the test split"):
        AttentionGallery(blur_heads=True).analyse(context)
    with pytest.raises(ValueError, match="set blur_heads too"):
        AttentionGallery(boxes="boxes.csv")
    with pytest.raises(ValueError, match="at least 1, got 0 and None"):
        AttentionGallery(clips_per_class=0)


def test_unreadable_clips_are_left_out_and_named(context, drawn, capsys):
    HeadAblation().analyse(context)
    broken = context.data.clips("test")[0]
    path = context.folder / "broken.mp4"
    path.write_bytes(b"no video")
    clips = context.data._annotations[1]["test"]
    clips[0] = replace(broken, path=str(path))
    AttentionGallery(clips=[broken.sample_id, clips[1].sample_id]).analyse(context)
    assert [view.sample_id for view in drawn] == [clips[1].sample_id]
    assert f"Left out, unreadable: {broken.sample_id}" in capsys.readouterr().out
