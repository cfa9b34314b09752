"""The pointing game on a run: the cabin's own boxes, a CSV of boxes, and what there is to compare with."""

import pandas as pd
import pytest
import torch

from callbacks import HeadAblation, pointing_game
from callbacks.analysis import Context
from callbacks.pointing_game import PointingGame
from datamodules import SyntheticCabin
from lightning_modules import VideoClassifier
from sightline.run.ranks import Ranks
from tests.conftest import CABIN, TINY_SWIN


def maps_at_the_centre(backbone, clips):
    """Even heads look at the centre of every frame, odd ones at the upper left corner of the first."""
    for unit in backbone.units("heads"):
        maps = torch.full((len(clips), *clips.shape[2:]), 0.01)
        if unit.head % 2:
            maps[:, 0, 0, 0] = 1
        else:
            maps[:, :, 16, 16] = 1
        yield unit, maps


@pytest.fixture
def context(cabin_root, tmp_path, monkeypatch):
    monkeypatch.setattr(pointing_game, "head_maps", maps_at_the_centre)
    data = SyntheticCabin(root=str(cabin_root), **CABIN)
    options = {key: value for key, value in TINY_SWIN.items() if key not in ("frames", "size")}
    module = VideoClassifier(2, backbone="video_swin_demo", frames=4, size=32, options=options)
    return Context(tmp_path / "run", "test", module, module.backbone.eval(), "none", data, Ranks(), [])


def test_the_cabins_boxes_are_pointed_at_and_compared_with_relevance(context, capsys):
    PointingGame().analyse(context)
    assert "There is no relevance of all heads on all clips" in capsys.readouterr().out
    assert not (context.folder / "tables" / "pointing_test_summary.csv").exists()
    HeadAblation().analyse(context)
    PointingGame(deep_layers=1).analyse(context)
    printed = capsys.readouterr().out
    assert "Pointing at object, attention: relevant deep heads" in printed
    assert "No intervals: 1 groups are fewer than 8" in printed
    table = pd.read_csv(context.folder / "tables" / "pointing_test.csv")
    assert set(table["target"]) == {"head", "hand", "object"}
    assert len(table) == 3 * len(context.backbone.units("heads"))
    for target in ("head", "hand", "object"):
        heads = table[table["target"] == target].set_index(["layer", "head"])["pointing"]
        expected, corner = [], []
        for clip in context.data.clips("test"):
            boxes = [box for box in context.data.truth(clip).boxes if box.name == target]
            if boxes:
                centre = {b.frame for b in boxes if b.x0 <= 16.5 <= b.x1 and b.y0 <= 16.5 <= b.y1}
                expected.append(len(centre) / 4)  # the four frames' centres tie
                corner.append(any(b.frame == 0 and b.x0 <= 0.5 <= b.x1 and b.y0 <= 0.5 <= b.y1 for b in boxes))
        assert heads[(0, 0)] == pytest.approx(sum(expected) / len(expected), abs=1e-6)
        assert heads[(0, 1)] == pytest.approx(sum(corner) / len(corner), abs=1e-6)
    summary = pd.read_csv(context.folder / "tables" / "pointing_test_summary.csv")
    assert (summary["relevance_split"] == "test").all()
    assert set(summary[summary["quantity"] == "relevant deep heads"]["heads"]) == {2}


def test_boxes_of_a_csv_take_the_place_of_the_datas_own(context, tmp_path):
    first, second = context.data.clips("test")[:2]
    path = tmp_path / "boxes.csv"
    # In pixels of the 36 x 36 video, of which 2 on each side are cut off: the centre of the model's input is at 18, 18.
    rows = [f"{first.sample_id},cup,{frame},17,17,20,20" for frame in range(6)]
    rows += [f"{first.sample_id},action,{frame},,,," for frame in range(3)]
    path.write_text("\n".join(["sample_id,name,frame,x0,y0,x1,y1", *rows, f"{second.sample_id},cup,0,0,0,9,9"]) + "\n")
    PointingGame(boxes=str(path)).analyse(context)
    table = pd.read_csv(context.folder / "tables" / "pointing_test.csv").set_index(["layer", "head"])
    assert table.loc[(0, 0), "n"] == 2
    # The first clip's cup is at the centre of all frames; the second's is at the corner of frame 0.
    assert table.loc[(0, 0), "pointing"] == pytest.approx(0.5)
    assert table.loc[(0, 1), "pointing"] == pytest.approx(0.5)
    assert table.loc[(0, 1), ["temporal", "uniform_temporal", "n_timed"]].tolist() == [1, 0.5, 1]


def test_wrong_boxes_are_named(context, tmp_path):
    path = tmp_path / "boxes.csv"
    path.write_text("sample_id,name,frame,x0,y0,x1,y1\nnobody.mp4,cup,0,0,0,9,9\n")
    with pytest.raises(ValueError, match=r"name 1 clips that the data do not have, e\.g\. nobody\.mp4"):
        PointingGame(boxes=str(path)).analyse(context)
    of_train = context.data.clips("train")[0].sample_id
    path.write_text(f"sample_id,name,frame,x0,y0,x1,y1\n{of_train},cup,0,0,0,9,9\n")
    with pytest.raises(ValueError, match="No boxes are known of any clip of the test split"):
        PointingGame(boxes=str(path)).analyse(context)


def test_data_without_boxes_are_an_error_unless_that_is_to_be_passed_over(context, monkeypatch, capsys):
    monkeypatch.setattr(SyntheticCabin, "truth", lambda self, clip: None)
    with pytest.raises(ValueError, match="No boxes are known of any clip of the test split"):
        PointingGame().analyse(context)
    capsys.readouterr()
    PointingGame(skip_unknown=True).analyse(context)
    printed = capsys.readouterr().out
    assert printed.startswith("No boxes are known of any clip of the test split. The pointing game is left out")
    assert printed.count("\n") == 1
    assert not (context.folder / "attention").exists()
    with pytest.raises(ValueError, match="with boxes given, leave it out"):
        PointingGame(boxes="boxes.csv", skip_unknown=True)
