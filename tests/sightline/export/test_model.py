"""An exported model as an object: what it says of files, frames and clips, and what it refuses."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch

from sightline.backbones import build_backbone
from sightline.export.model import load
from sightline.export.prediction import Part, Prediction, classify_parts
from sightline.export.reading import ExportError, load_exported
from sightline.export.writing import export_model
from sightline.pruning import PruningPlan, unpruned_plan
from sightline.types import InputSpec, ModelRecord
from sightline.video.clips import Clip, ClipSettings, load_clip
from sightline.video.sources import DecodedFrames
from sightline.video.video_file import UnreadableClip
from tests.conftest import TINY_SWIN, randomise
from tests.sightline.video.video_files import decode_all, write_video

CLASSES = ("eating", "größere Pause", "texting", "writing", "yawning")
SAMPLING = {"frames": 4, "size": 32, "short_side": 36, "antialias": True}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run's folder with two exports: one without layers 0 and 2, and the unpruned one with its ranking."""
    backbone = randomise(build_backbone("video_swin_demo", 5, TINY_SWIN))
    backbone.set_record(ModelRecord((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), CLASSES, "a test"))
    folder = tmp_path_factory.mktemp("runs") / "demo"
    plan = PruningPlan("relevance", "r", "lowest", 2, (0, 2))
    for smaller, what in ((backbone.without((0, 2)), plan), (backbone, unpruned_plan())):
        export_model(
            smaller, folder / "pruned" / what.plan_id, name="video_swin_demo", options=TINY_SWIN, plan=what,
            provenance={}, sampling=SAMPLING, ranking=[2, 0, 3, 1] if smaller is backbone else None,
        )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def model(run):
    return load(run / "pruned" / "relevance-r-lowest-k2", device="cpu")


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("video") / "a.mp4", 40)


def by_hand(model, path, start=None, end=None):
    clip = load_clip(Clip("x", str(path), 0, "", start=start, end=end), ClipSettings(**SAMPLING))
    with torch.no_grad():
        return load_exported(model.folder).backbone(clip[None]).double().softmax(-1)[0]


def check(found: Prediction, expected: torch.Tensor) -> None:
    named = dict(zip(CLASSES, expected.tolist(), strict=True))
    assert found.probabilities == pytest.approx(named, abs=1e-6)
    assert list(found.probabilities) == sorted(named, key=lambda name: -named[name])
    assert found.class_name == CLASSES[int(expected.argmax())]
    assert found.probability == found.probabilities[found.class_name]


def test_what_a_model_says_of_itself(model, run):
    assert model.classes == CLASSES
    assert model.plan_id == "relevance-r-lowest-k2"
    assert model.input_spec == InputSpec(4, 32, 32)
    assert [info.index for info in model.backbone.layers] == [1, 3]
    assert model.description["removed_layers"] == [0, 2]
    assert not model.backbone.training
    assert "5 classes, clips of 4x32x32, on cpu" in repr(model)


def test_a_video_as_a_whole_and_window_by_window(model, video):
    (whole,) = model.predict(video)
    assert (whole.video, whole.start) == (str(video), 0.0)
    assert whole.end == pytest.approx(1.6, abs=0.01)
    check(whole, by_hand(model, video))
    found = model.predict(str(video), window=0.8, stride=0.4)
    assert [(p.start, p.end) for p in found] == [(0, 0.8), (0.4, pytest.approx(1.2)), (0.8, pytest.approx(1.6))]
    for part in found:
        check(part, by_hand(model, video, part.start, part.end))
    assert len(model.predict(video, window=0.8)) == 2  # one window after the other


@pytest.mark.parametrize("batch", [1, 2, 8])
def test_decoded_frames_give_what_their_file_gives(model, video, batch):
    frames = decode_all(video)
    for given in (frames, list(frames), torch.from_numpy(frames), iter(frames)):
        of_frames = model.predict(given, fps=25, window=0.8, stride=0.4, batch=batch)
        of_file = model.predict(video, window=0.8, stride=0.4)
        assert len(of_frames) == len(of_file) == 3
        for one, other in zip(of_frames, of_file, strict=True):
            assert one.probabilities == pytest.approx(other.probabilities, abs=1e-6)
            assert (one.start, one.end) == pytest.approx((other.start, other.end))
    (one,) = model.predict(frames)
    assert (one.start, one.end) == (None, None)
    check(one, by_hand(model, video))


def test_frames_of_a_camera_with_the_times_at_which_they_were_taken(model):
    frames = np.random.default_rng(0).integers(0, 256, (12, 40, 50, 3), dtype=np.uint8)
    times = 1000 + np.cumsum([0.0, *[0.03, 0.05] * 5, 0.04])
    camera = DecodedFrames((frame for frame in frames), times=times.tolist(), name="camera")
    (found,) = model.predict(camera)
    assert found.video == "camera"
    assert found.end == pytest.approx(0.44 * 12 / 11)
    assert torch.equal(model.clip(camera), model.preprocessing.clip(DecodedFrames(frames, times=times.tolist())))


def test_clips_are_classified(model, video):
    clips = [model.clip(video), model.clip(video, 0.4, 1.2)]
    for given in (clips, torch.stack(clips), torch.stack(clips).numpy()):
        found = model.classify(given)
        assert found.dtype == torch.float64
        assert torch.allclose(found, torch.stack([by_hand(model, video), by_hand(model, video, 0.4, 1.2)]), atol=1e-6)


def test_depth_leaves_out_the_least_relevant_layers(run, model, video):
    shallow = load(run / "pruned" / "relevance-r-none-k0", device="cpu", depth=2)
    assert [info.index for info in shallow.backbone.layers] == [1, 3]
    assert shallow.predict(video)[0].probabilities == model.predict(video)[0].probabilities


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stride": 1.0}, "stride goes with window"),
        ({"window": -1.0}, "above 0 seconds"),
        ({"batch": 0}, "batch of at least 1"),
        ({"fps": 25.0}, "fps goes with decoded frames"),
    ],
)
def test_impossible_options_are_refused(model, video, options, message):
    with pytest.raises(ValueError, match=message):
        model.predict(video, **options)


def test_what_cannot_be_predicted_is_refused(model, video, tmp_path):
    with pytest.raises(UnreadableClip, match="cannot be opened"):
        model.predict(tmp_path / "none.mp4")
    with pytest.raises(ValueError, match=r"no times of frames are known\. Pass fps"):
        model.predict(decode_all(video), window=0.5)
    with pytest.raises(ValueError, match="got str as frame 0"):
        model.predict([str(video)])


def test_something_else_than_an_exported_model_is_refused(run, tmp_path):
    export = run / "pruned" / "relevance-r-lowest-k2"
    with pytest.raises(FileNotFoundError, match=f"Expected the folder of an exported model, here {export}"):
        load(export / "model.ckpt")
    with pytest.raises(FileNotFoundError, match=f"run's folder. Expected one of its exported models: {export}, "):
        load(run)
    with pytest.raises(FileNotFoundError, match=r"has no model\.json"):
        load(tmp_path)
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        load(tmp_path / "none")
    with pytest.raises(ValueError, match="Depths are served"):
        load(export, depth=1)
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="sees no CUDA"):
            load(export, device="cuda")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sampling": {}}, "does not say how clips are made"),
        ({"sampling": {**SAMPLING, "frames": 8}}, "gives other clips than"),
        ({"classes": ["a", "b", "c", "d", "a"]}, "expected 5 different names of classes"),
        ({"classes": ["a"]}, "expected 5 different names of classes"),
    ],
)
def test_descriptions_that_do_not_say_enough_are_refused(run, tmp_path, changes, message):
    told = json.loads((run / "pruned" / "relevance-r-none-k0" / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps({**told, **changes}))
    with pytest.raises(ExportError, match=message):
        load(tmp_path)


def test_classes_without_names_go_by_their_numbers(run, video, tmp_path):
    folder = shutil.copytree(run / "pruned" / "relevance-r-none-k0", tmp_path / "copy")
    told = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**told, "classes": []}))
    model = load(folder, device="cpu")
    assert model.classes == ("0", "1", "2", "3", "4")
    assert set(model.predict(video)[0].probabilities) == set(model.classes)


def test_predictions_by_hand():
    parts = [(Part("v", float(i), i + 1.0), torch.full((3, 1, 1, 1), i)) for i in range(3)]
    seen = []

    def classify(clips):
        seen.append(len(clips))
        p = clips[:, 0, 0, 0, 0].double() / 4
        return torch.stack([p, 1 - p], dim=1)

    found = list(classify_parts(classify, iter(parts), ("on", "off"), batch=2))
    assert seen == [2, 1]
    assert found == [
        Prediction("v", 0.0, 1.0, "off", 1.0, {"off": 1.0, "on": 0.0}),
        Prediction("v", 1.0, 2.0, "off", 0.75, {"off": 0.75, "on": 0.25}),
        Prediction("v", 2.0, 3.0, "on", 0.5, {"on": 0.5, "off": 0.5}),  # of equals the first
    ]
    assert dataclasses.asdict(found[1])["probability"] == 0.75
    assert "probabilities" not in repr(found[0])
