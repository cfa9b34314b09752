"""Frames from anywhere: the same parts, the same choice of frames and the same pixels as from a file."""

import itertools

import numpy as np
import pytest
import torch
import torchvision

from sightline.video.clips import Clip, ClipSettings, load_clip
from sightline.video.preprocessing import Preprocessing
from sightline.video.sampling import segment_frames
from sightline.video.sources import DecodedFrames, FrameSource, VideoFile, as_source
from sightline.video.video_file import UnreadableClip
from tests.sightline.video.video_files import decode_all, numbered_frame, numbers_of, write_video

FRAMES = np.stack([numbered_frame(number) for number in range(40)])
SEEN = Preprocessing(frames=4, size=32, short_side=36)


def every(times, end):
    return range(len(times))


@pytest.mark.parametrize(
    "part",
    [{}, {"start": 0.4, "end": 1.2}, {"start": 1.2}, {"end": 0.02}, {"start": 0.41, "end": 0.43}],
    ids=str,
)
@pytest.mark.parametrize("antialias", [True, False])
def test_clips_of_a_file_and_of_its_decoded_frames_are_those_of_evaluation(tmp_path, part, antialias):
    path = write_video(tmp_path / "a.mp4", 40, fps=25, width=80, height=60)
    settings = ClipSettings(frames=4, size=32, short_side=36, antialias=antialias)
    expected = load_clip(Clip("a", str(path), 0, "", **part), settings)
    seen = Preprocessing(4, 32, 36, antialias)
    decoded = decode_all(path)
    assert torch.equal(seen.clip(VideoFile(path), **part), expected)
    for frames in (decoded, list(decoded), torch.from_numpy(decoded), (frame for frame in decoded)):
        assert torch.equal(seen.clip(DecodedFrames(frames, fps=25), **part), expected)


def test_a_clip_by_hand():
    # Of 40 frames in 4 parts the middles are at 5, 15, 25 and 35; 64x48 becomes 48x36, of which 8 and 2 are cut off.
    clip = SEEN.clip(DecodedFrames(FRAMES))
    assert clip.dtype == torch.uint8
    for place, number in enumerate((5, 15, 25, 35)):
        image = torch.from_numpy(FRAMES[number]).permute(2, 0, 1)
        resized = torchvision.transforms.v2.functional.resize(image, [36, 48], antialias=True)
        assert torch.equal(clip[:, place], resized[:, 2:34, 8:40])


def test_frames_without_a_rate_are_taken_evenly(tmp_path):
    path = write_video(tmp_path / "a.mp4", 23, fps=25)
    assert torch.equal(SEEN.clip(DecodedFrames(decode_all(path))), SEEN.clip(VideoFile(path)))
    source = DecodedFrames(FRAMES[:23])
    assert source.seconds is None
    # 23 frames in 4 parts of 5.75: their middles are at 2.875, 8.625, 14.375 and 20.125.
    taken = source.read(lambda times, end: segment_frames(times, end, 4, 0.5))
    assert numbers_of(taken) == [2, 8, 14, 20]
    with pytest.raises(ValueError, match="no times of the 23 frames are known"):
        source.read(every, start=0.5)


def test_a_rate_and_times_say_which_frames_a_part_has():
    source = DecodedFrames(FRAMES, fps=10)
    assert source.seconds == 4.0
    assert numbers_of(source.read(every, 0.5, 1.0)) == [5, 6, 7, 8, 9]
    assert numbers_of(source.read(every, frame_range=(30, 33))) == [30, 31, 32]
    uneven = DecodedFrames(FRAMES[:5], times=[100.0, 100.1, 100.2, 101.0, 102.0])
    assert uneven.seconds == pytest.approx(2.5)  # the last one is shown for the mean of the others, half a second
    assert numbers_of(uneven.read(every, 0.2, 2.0)) == [2, 3]
    # The moments 0.3125 + i 0.625 of 2.5 s: frames 2, 2, 3, 4 are shown then.
    taken = uneven.read(lambda times, end: segment_frames(times, end, 4, 0.5))
    assert numbers_of(taken) == [2, 2, 3, 4]


def test_a_part_that_is_not_there_is_refused_as_in_a_file(tmp_path):
    source = DecodedFrames(FRAMES, fps=10, name="cabin camera")
    for read in (lambda: source.read(every, start=9.0), lambda: source.read(every, frame_range=(30, 50))):
        with pytest.raises(UnreadableClip, match="cabin camera: expected"):
            read()
    with pytest.raises(ValueError, match="start and end, or frame_range"):
        source.read(every, start=1.0, frame_range=(3, 5))
    with pytest.raises(UnreadableClip, match="of one size"):
        DecodedFrames([FRAMES[0], FRAMES[1, :-1]]).read(every)


def test_frames_may_be_read_only_and_run_backwards_and_stay_as_they_are():
    frames = FRAMES[..., ::-1]  # BGR to RGB
    frames.flags.writeable = False
    clip = SEEN.clip(DecodedFrames(frames))
    assert torch.equal(clip, SEEN.clip(DecodedFrames(np.ascontiguousarray(frames))))
    assert np.array_equal(frames[..., ::-1], FRAMES)


@pytest.mark.parametrize(
    ("frames", "options", "message"),
    [
        ([], {}, "at least one frame"),
        (FRAMES.astype(np.float32), {}, r"uint8 \(H, W, 3\) in RGB, got float32 \(48, 64, 3\) as frame 0"),
        (torch.zeros(3, 4, 8, 8, dtype=torch.uint8), {}, r"got uint8 \(4, 8, 8\)"),
        (["a.mp4"], {}, "got str as frame 0"),
        (FRAMES, {"fps": 0}, "positive number of frames per second"),
        (FRAMES, {"fps": float("nan")}, "positive number of frames per second"),
        (FRAMES, {"fps": 25, "times": range(40)}, "fps or times, got both"),
        (FRAMES[:2], {"times": [1.0]}, "2 rising times"),
        (FRAMES[:3], {"times": [1.0, 0.5, 2.0]}, "3 rising times"),
        (FRAMES[:1], {"times": [1.0]}, "Pass fps instead of times"),
    ],
)
def test_what_is_no_video_is_refused(frames, options, message):
    with pytest.raises(ValueError, match=message):
        DecodedFrames(frames, **options)


def test_a_path_frames_and_a_source_are_all_taken(tmp_path):
    source = as_source(tmp_path / "a.mp4")
    assert isinstance(source, VideoFile)
    assert source.name == str(tmp_path / "a.mp4")
    assert as_source(source) is source
    assert as_source(FRAMES, fps=20).seconds == 2.0
    assert as_source(itertools.islice(FRAMES, 6)).read(every).shape == (6, 48, 64, 3)
    with pytest.raises(ValueError, match="fps goes with decoded frames"):
        as_source("a.mp4", fps=25)


def test_seconds_of_a_file(tmp_path):
    assert VideoFile(write_video(tmp_path / "a.mp4", 40, fps=25)).seconds == pytest.approx(1.6, abs=0.01)
    with pytest.raises(UnreadableClip, match="cannot be opened"):
        _ = VideoFile(tmp_path / "none.mp4").seconds


class Camera(FrameSource):
    """A source of its own, as a camera is: frames are made when they are asked for."""

    name = "camera"
    seconds = 4.0

    def read(self, choose, start=None, end=None, convert=None, frame_range=None):
        assert frame_range is None
        times = np.arange(40) / 10
        inside = np.flatnonzero((times >= (start or 0)) & (times < (end or 4)))
        images = [numbered_frame(int(inside[index])) for index in choose(times[inside], end or 4.0)]
        return np.stack([convert(image) for image in images])


def test_another_source_needs_no_more_than_to_read():
    assert torch.equal(SEEN.clip(Camera(), 1.0, 3.0), SEEN.clip(DecodedFrames(FRAMES, fps=10), 1.0, 3.0))
