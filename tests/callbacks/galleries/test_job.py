"""What all galleries share: the clips are divided among processes, and nothing of earlier galleries stays."""

import json
from dataclasses import replace

import pandas as pd
import pytest

from callbacks.galleries.files import update_captions
from callbacks.galleries.job import Drawn, GalleryClip, GalleryJob
from sightline.run.paths import RunFolder
from sightline.run.ranks import Ranks
from tests.sightline.run.threads import in_threads


def draw(shown: GalleryClip) -> Drawn:
    """Write a letter instead of a picture."""
    path = shown.stem.with_name(f"{shown.stem.name}_letter.png")
    path.write_text("x")
    return Drawn({path.name: f"Clip {shown.sample_id}"}, [{"sample_id": shown.sample_id, "label": shown.label}])


def silent(table: pd.DataFrame, path) -> None:
    """Say nothing."""


def test_several_processes_share_the_clips(context):
    GalleryJob(context, [0, 2, 7, 5], ["letter"], "letters").run(draw, silent)
    names = [context.data.clips("test")[place].sample_id for place in (0, 2, 7, 5)]
    index, table = context.folder / "attention/index.json", context.folder / "tables/letters.csv"
    alone = index.read_text(), table.read_text()
    assert list(json.loads(alone[0]).values()) == [f"Clip {name}" for name in names]
    index.unlink()
    shares: list[list[str]] = [[], []]
    told: list[pd.DataFrame] = []

    def run(ranks: Ranks) -> None:
        share = shares[ranks.rank]
        GalleryJob(replace(context, ranks=ranks), [0, 2, 7, 5], ["letter"], "letters").run(
            lambda shown: share.append(shown.sample_id) or draw(shown), lambda rows, path: told.append(rows)
        )

    in_threads(2, run)
    assert shares == [names[0::2], names[1::2]]
    assert (index.read_text(), table.read_text()) == alone
    assert told[0]["sample_id"].tolist() == names


def test_a_gallery_that_follows_an_interrupted_one_leaves_only_its_own(context):
    folder = context.folder / "attention"
    GalleryJob(context, [0], ["letter"], "letters").run(draw, silent)

    def killed(shown: GalleryClip) -> Drawn:
        draw(shown)
        if shown.sample_id == context.data.clips("test")[2].sample_id:
            shown.stem.with_name(f".{shown.stem.name}_letter.partial-host-123_0.mp4").write_text("half")
            raise KeyboardInterrupt
        return Drawn()

    for name in ("mine.png", "other_frames.png", ".other_frames.partial-host-123_0.png"):
        (folder / name).write_text("x")
    with pytest.raises(KeyboardInterrupt):
        GalleryJob(context, [1, 2], ["letter"], "letters").run(killed, silent)
    assert len(list(folder.glob("*_letter.png"))) == 3
    GalleryJob(context, [3], ["letter"], "letters").run(draw, silent)
    [name] = json.loads((folder / "index.json").read_text())
    assert {path.name for path in folder.iterdir()} == {
        name, "index.json", "mine.png", "other_frames.png", ".other_frames.partial-host-123_0.png"
    }  # fmt: skip


def test_captions_of_other_galleries_stay(tmp_path):
    run = RunFolder(tmp_path)
    run.attention.mkdir()
    for name in ("a_frames.png", "b_frames.png", "a_transfer.png"):
        (run.attention / name).write_text("x")
    update_captions(run, {"a_transfer.png": "A"}, ("_transfer.png",))
    update_captions(run, {"b_frames.png": "B"}, ("_frames.png", "_frames.mp4"))
    assert json.loads((tmp_path / "attention/index.json").read_text()) == {"b_frames.png": "B", "a_transfer.png": "A"}
    assert not (run.attention / "a_frames.png").exists()


def test_without_any_clip_an_earlier_gallery_goes_all_the_same(context, capsys, monkeypatch):
    GalleryJob(context, [0, 1], ["letter"], "letters").run(draw, silent)
    monkeypatch.setattr(context.data, "truth", lambda clip: None)
    with pytest.raises(ValueError, match="none are known of any clip of the test split"):
        GalleryJob(context, [0], ["letter"], "letters", blur_heads=True)
    boxes = context.folder / "boxes.csv"
    name = context.data.clips("test")[1].sample_id
    boxes.write_text(f"sample_id,name,frame,x0,y0,x1,y1\n{name},hand,0,0,0,9,9\n")
    GalleryJob(context, [1], ["letter"], "letters", blur_heads=True, boxes=str(boxes)).run(draw, silent)
    assert f"no box named head is known to blur: {name}" in capsys.readouterr().out
    assert [path.name for path in (context.folder / "attention").iterdir()] == ["index.json"]
