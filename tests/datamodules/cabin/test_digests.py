"""The same settings give the same frames in the same files, and where they do not, it is said."""

import csv
import dataclasses
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import yaml

from datamodules.cabin import digests, encoding, files, renew_expected
from datamodules.cabin.encoding import digest, intact_digest, write_video
from datamodules.cabin.files import CabinSettings, render_clip, video_name, write_cabin
from datamodules.synthetic_cabin import SyntheticCabin

# Sides that are no multiples of 16, the size of the encoder's blocks.
SMALL = CabinSettings(actions=("talking", "steering"), subjects=2, clips_per_action=2, frames=5, height=72, width=72)
NAMES = [video_name(name) for name in SMALL.names()]


@pytest.fixture
def cabin(tmp_path):
    write_cabin(tmp_path / SMALL.folder(), SMALL, workers=1)
    return tmp_path / SMALL.folder()


def luma_of(path):
    """The luma planes by FFmpeg's own conversion to a plain array, three planes of which the first is the luma."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray()[: frame.height] for frame in container.decode(video=0)])


@pytest.mark.parametrize("shape", [(3, 72, 72), (9, 34, 50), (2, 64, 48)])
def test_a_file_holds_the_very_frames_and_states_their_digest(tmp_path, shape):
    grey = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)  # noise is what encoders give up first
    rendered, decoded = write_video(tmp_path / "clip.mp4", grey, 8.0)
    # BT.601: black is 16 and white 235.
    expected = np.floor(16 + grey.astype(float) * 219 / 255 + 0.5).astype(np.uint8)
    np.testing.assert_array_equal(luma_of(tmp_path / "clip.mp4"), expected)
    assert rendered == decoded == digest(expected) == intact_digest(tmp_path / "clip.mp4")
    with av.open(str(tmp_path / "clip.mp4")) as container:
        assert container.metadata["comment"] == f"rendered {rendered}"
        colours = [np.frombuffer(memoryview(plane), np.uint8) for plane in next(container.decode(video=0)).planes[1:]]
    assert {int(value) for plane in colours for value in plane[: shape[2] // 2]} == {128}


def test_digests_tell_frames_apart_also_by_their_shape():
    zeros = np.zeros((2, 4, 6), np.uint8)
    other = zeros.copy()
    other[1, 3, 5] = 1
    assert len({digest(zeros), digest(other), digest(zeros.reshape(2, 6, 4)), digest(zeros[:1])}) == 4
    assert len(digest(zeros)) == 16


def test_an_encoder_that_loses_something_is_refused(tmp_path, monkeypatch):
    open_video = av.open

    class Lossy:
        """A container whose encoder is asked for a coarse picture in the place of a lossless one."""

        def __init__(self, container):
            self.container = container

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.container.close()

        def add_stream(self, name, rate, options):
            return self.container.add_stream(name, rate=rate, options={"crf": "40"})

        def __getattr__(self, name):
            return getattr(self.container, name)

    monkeypatch.setattr(
        encoding.av, "open", lambda *args, **kw: Lossy(open_video(*args, **kw)) if "w" in args else open_video(*args)
    )
    noise = np.random.default_rng(0).integers(0, 256, (2, 32, 32), dtype=np.uint8)
    with pytest.raises(RuntimeError, match=r"Expected clip.mp4 to decode to the frames.*requirements.lock"):
        write_video(tmp_path / "clip.mp4", noise, 8.0)
    assert not list(tmp_path.iterdir())


def test_the_list_of_digests_has_both_of_every_clip(cabin):
    with (cabin / "digests.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["video"] for row in rows] == NAMES
    for row, name in zip(rows, SMALL.names(), strict=True):
        grey = render_clip(SMALL, *name)[0][..., 0].astype(float)
        assert row["rendered"] == digest(np.floor(16 + grey * 219 / 255 + 0.5).astype(np.uint8))
        assert row["decoded"] == digest(luma_of(cabin / row["video"])) == row["rendered"]
    assert json.loads((cabin / "cabin.json").read_text())["versions"] == digests.versions()


@pytest.mark.parametrize("damage", ["changed", "missing", "other", "cut"])
def test_a_clip_that_changed_since_is_told_and_rendered_again(cabin, caplog, damage):
    path, whole = cabin / NAMES[2], {name: (cabin / name).read_bytes() for name in NAMES}
    if damage == "changed":
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(content)
    elif damage == "missing":
        path.unlink()
    elif damage == "other":  # whole, but another clip's frames
        path.write_bytes((cabin / NAMES[0]).read_bytes())
    else:
        path.write_bytes(path.read_bytes()[:100])
    with caplog.at_level(logging.WARNING):
        write_cabin(cabin, SMALL, workers=1)
    assert f"1 of 8 clips in {cabin} are missing or no longer hold" in caplog.text
    assert f"the first is {NAMES[2]}. They are rendered again." in caplog.text
    assert {name: (cabin / name).read_bytes() for name in NAMES} == whole
    caplog.clear()
    write_cabin(cabin, SMALL, workers=1)
    assert not caplog.text


def test_half_a_file_that_an_interruption_left_is_not_kept(cabin):
    (cabin / "cabin.json").rename(cabin / "cabin.incomplete.json")
    whole = (cabin / NAMES[1]).read_bytes()
    (cabin / NAMES[1]).write_bytes(whole[:-200])
    write_cabin(cabin, SMALL, workers=1)
    assert (cabin / NAMES[1]).read_bytes() == whole


def test_clips_that_differ_from_the_expected_ones_are_told(cabin, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(digests, "EXPECTED", tmp_path / "expected.json")
    renew_expected.main([str(cabin)])
    write_cabin(cabin, SMALL, workers=1)
    assert not caplog.text

    expected = json.loads((tmp_path / "expected.json").read_text())
    entry = expected[SMALL.folder()]
    assert {subject: len(clips.split()) for subject, clips in entry["clips"].items()} == {"s00": 4, "s01": 4}
    entry["clips"]["s01"] = " ".join(["000000", "111111", *entry["clips"]["s01"].split()[2:]])
    (tmp_path / "expected.json").write_text(json.dumps(expected))
    write_cabin(cabin, SMALL, workers=1)
    assert (
        f"2 of 8 clips of the synthetic cabin differ from those behind the documented figures, the first is {NAMES[4]}"
    )
    assert "2 of 8 clips" in caplog.text
    assert f"the first is {NAMES[4]}. Another processor rounds differently." in caplog.text

    caplog.clear()
    entry["versions"]["numpy"] = "1.0"
    (tmp_path / "expected.json").write_text(json.dumps(expected))
    write_cabin(cabin, SMALL, workers=1)
    assert f"They were drawn by numpy {np.__version__} instead of 1.0." in caplog.text


def test_what_an_older_version_rendered_is_used_on_and_told(tmp_path, caplog):
    old = tmp_path / SMALL.folder(1)
    assert old.name != SMALL.folder()
    assert files.folder_in(tmp_path, SMALL) == tmp_path / SMALL.folder()
    write_cabin(tmp_path / SMALL.folder(), SMALL, workers=1)
    (tmp_path / SMALL.folder()).rename(old)
    (old / "digests.csv").unlink()
    (old / "cabin.json").write_text(json.dumps(SMALL.record(1)))
    assert files.folder_in(tmp_path, SMALL) == old
    before = {path: path.stat().st_mtime_ns for path in old.rglob("*")}
    write_cabin(old, SMALL)
    assert "rendered by an older version" in caplog.text
    assert {path: path.stat().st_mtime_ns for path in old.rglob("*")} == before
    with pytest.raises(ValueError, match="seed is 0, expected 3"):
        write_cabin(old, dataclasses.replace(SMALL, seed=3))
    write_cabin(tmp_path / SMALL.folder(), SMALL, workers=1)
    assert files.folder_in(tmp_path, SMALL) == tmp_path / SMALL.folder()


def test_nothing_is_expected_of_settings_of_ones_own(cabin, caplog):
    assert SMALL.folder() not in json.loads(digests.EXPECTED.read_text())
    assert digests.tell_differences(SMALL.folder(), digests.read_digests(cabin)) == []
    assert not caplog.text


def test_the_demos_clips_are_the_expected_ones():
    config = yaml.safe_load((Path(__file__).parents[3] / "configs/demo.yaml").read_text())
    settings = SyntheticCabin(**config["data"]["init_args"]).cabin
    expected = json.loads(digests.EXPECTED.read_text())[settings.folder()]["clips"]
    per_subject = len(settings.actions) * settings.clips_per_action
    assert {subject: len(clips.split()) for subject, clips in expected.items()} == {
        f"s{subject:02d}": per_subject for subject in range(settings.subjects)
    }
    found = []
    for subject, action in enumerate(settings.actions):
        luma = encoding._LUMA[render_clip(settings, subject, action, 0)[0][..., 0]]
        place = settings.actions.index(action) * settings.clips_per_action
        found.append(digest(luma)[:6] == expected[f"s{subject:02d}"].split()[place])
    # Another version of NumPy may round a pixel of a clip otherwise, another version of the drawing changes all.
    assert sum(found) >= len(found) - 1


def test_processors_draw_the_same(tmp_path):
    """These five were drawn differently without AVX-512 while exponentials were taken in single precision."""
    root, script = Path(__file__).parents[3], tmp_path / "draw.py"
    script.write_text(
        "import sys, types\n"
        "package = sys.modules['datamodules'] = types.ModuleType('datamodules')\n"  # without torch, which takes seconds
        f"package.__path__ = [{str(root / 'datamodules')!r}]\n"
        "from datamodules.cabin.encoding import digest\n"
        "from datamodules.cabin.files import CabinSettings, render_clip\n"
        "settings = CabinSettings(subjects=3, frames=8, height=72, width=72, zoom=1.4)\n"
        "clips = [(0, 'drowsy', 2), (1, 'drowsy', 1), (1, 'eating-drinking', 0), (1, 'adjust-radio', 9)]\n"
        "print(*(digest(render_clip(settings, *clip)[0]) for clip in [*clips, (2, 'talking', 2)]))\n"
    )
    # Numpy warns of features that a processor lacks, and then there is nothing to compare.
    plain = {"OPENBLAS_CORETYPE": "Haswell", "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR"}
    drawn = [
        subprocess.run(
            [sys.executable, "-W", "ignore", str(script)],
            env={**os.environ, "PYTHONPATH": str(root), **more}, capture_output=True, text=True, check=True,
        ).stdout
        for more in ({}, plain)
    ]  # fmt: skip
    assert len(drawn[0].split()) == 5
    assert drawn[0] == drawn[1]


def test_a_changed_setting_expects_nothing():
    config = yaml.safe_load((Path(__file__).parents[3] / "configs/demo.yaml").read_text())
    settings = SyntheticCabin(**config["data"]["init_args"]).cabin
    changed = dataclasses.replace(settings, seed=1)
    assert changed.folder() not in json.loads(digests.EXPECTED.read_text())
    assert settings.record()["format"] == files.FORMAT_VERSION
