import numpy as np
import pytest

from callbacks import preview as module
from callbacks.preview import preview
from datamodules import SyntheticCabin
from tests.conftest import CABIN


@pytest.fixture
def sheets(monkeypatch):
    """What is drawn: clips, captions and title of each sheet."""
    drawn, draw = [], module.contact_sheet

    def record(clips, captions, title):
        drawn.append((clips, captions, title))
        return draw(clips, captions, title)

    monkeypatch.setattr(module, "contact_sheet", record)
    return drawn


def test_sheets_show_what_the_model_sees(cabin_root, tmp_path, sheets, capsys):
    data = SyntheticCabin(root=str(cabin_root), flip_probability=1.0, test_crops=3, **CABIN)
    preview(data, tmp_path, clips=2)
    (train, train_captions, title), (test, test_captions, _) = sheets
    assert title == "Training: 2 clips of 4 frames, 32x32 pixels"
    batch = next(iter(data.train_dataloader()))
    expected = batch["clip"].flip(-1).permute(0, 2, 3, 4, 1).numpy()
    assert np.array_equal(np.stack(train), expected[:2])
    names = data.class_names
    assert train_captions == [f"{names[batch['label'][i]]}  |  {batch['sample_id'][i]}" for i in range(2)]
    clips = data.clips("test")
    captions = [
        f"{names[c.label]}  |  {c.sample_id}  |  view {v} of 3" for c in (clips[0], clips[-1]) for v in (1, 2, 3)
    ]
    assert test_captions == captions
    assert len(test) == 6
    out = capsys.readouterr().out
    for name in ("preview_train.png", "preview_test.png"):
        assert (tmp_path / name).read_bytes()[:4] == b"\x89PNG"
        assert str(tmp_path / name) in out


def test_unreadable_clips_are_named(cabin_root, tmp_path, sheets, capsys, monkeypatch):
    data = SyntheticCabin(root=str(cabin_root), **CABIN)
    clips = data.clips("test")
    (tmp_path / "bad.mp4").touch()
    object.__setattr__(clips[0], "path", str(tmp_path / "bad.mp4"))
    preview(data, tmp_path, out=str(tmp_path / "out"), clips=2)
    assert f"Left out, unreadable: {clips[0].sample_id}: " in capsys.readouterr().out
    assert len(sheets[1][0]) == 1
    assert (tmp_path / "out" / "preview_test.png").exists()


def test_refuses_nonsense(cabin_root, tmp_path):
    with pytest.raises(ValueError, match="clips >= 1, got 0"):
        preview(SyntheticCabin(root=str(cabin_root), **CABIN), tmp_path, clips=0)
