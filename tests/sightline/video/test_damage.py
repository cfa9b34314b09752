"""Errors that a decoder hid: which frames they concern, and that none of these is read."""

from collections import Counter
from types import SimpleNamespace

import av
import numpy as np
import pytest
from av.video.frame import PictureType

from sightline.video.damage import Damage
from sightline.video.decoding import DamagedClip, UnreadableClip, read_frames
from sightline.video.sampling import segment_frames, uniform_indices
from tests.sightline.video.damaged_files import change_bytes, moving_scene
from tests.sightline.video.video_files import decode_all, write_video

LEVELS = 7  # of 255, on average over the frames chosen: what nobody would train on


def damage_of(kinds: str, codec: str = "mpeg4", unreferenced: str = "") -> set[int]:
    """Frames in the order of display: K begins, P and B; small letters are marked."""
    damage = Damage(SimpleNamespace(codec=SimpleNamespace(canonical_name=codec), extradata=None))
    for index, kind in enumerate(kinds):
        if (
            unreferenced and unreferenced[index] == "u"
        ):  # an H.264 slice that no other is made from, behind a start code
            packet = av.Packet(b"\0\0\1\x01\x07")
            packet.pts = index
            damage.sent(packet)
        pict_type = {"K": PictureType.I, "P": PictureType.P, "B": PictureType.B}[kind.upper()]
        damage.came(
            SimpleNamespace(
                pict_type=pict_type, key_frame=kind.upper() == "K", is_corrupt=kind.islower(), pts=index
            )
        )  # fmt: skip
    return damage.frames()


@pytest.mark.parametrize(
    ("kinds", "codec", "damaged"),
    [
        ("KPPKPP", "mpeg4", ""),
        ("KpPKPP", "mpeg4", " xx   "),  # on to the next key frame
        ("kPPKPP", "mpeg4", "xxx   "),
        ("KPPKpP", "mpeg4", "    xx"),
        ("KBBPBBpBBPKP", "mpeg4", "    xxxxxx  "),  # and the B pictures before it
        ("KBBPBbPBBPKP", "mpeg4", "     x      "),  # of MPEG-4 no other is made from a B picture
        ("KBBPBbPBBPKP", "hevc", "    xxxxxx  "),  # elsewhere that may be
        ("KBBPBBkP", "hevc", "    xxxx"),  # an open group: B pictures before a key frame may be made from it
        ("kPPPkPKp", "mpeg4", "xxxxxx x"),
    ],
)
def test_what_is_made_from_marked_frames(kinds, codec, damaged):
    assert damage_of(kinds, codec) == {index for index, mark in enumerate(damaged) if mark == "x"}


def test_h264_says_of_every_picture_whether_others_are_made_from_it():
    assert damage_of("KBBPBbPBBP", "h264", "    uu    ") == {5}
    assert damage_of("KBBPBbPBBP", "h264", "    u     ") == {4, 5, 6, 7, 8, 9}


def chosen(times, end):
    return segment_frames(times, end, 16, 0.5)


CLIPS = {
    "h264.mp4": {"codec": "libx264", "b_frames": 3},
    "one_group.mp4": {"codec": "libx264", "b_frames": 2, "gop": 250},
    "mpeg4.avi": {"codec": "mpeg4", "b_frames": 2},
}


@pytest.mark.parametrize("name", CLIPS)
def test_no_frame_in_which_an_error_was_hidden_is_read(tmp_path, name):
    found = variants_judged(tmp_path, name, 40, 16)
    assert found["off", "DamagedClip"] > 5, found  # or this would show nothing
    assert found["off", "read"] <= 1, found


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", CLIPS)
def test_of_many_variants(tmp_path, name):
    found = variants_judged(tmp_path, name, 100, 120)
    print(name, dict(found))
    assert found["off", "DamagedClip"] > 40, found
    # What is a valid stream by chance, no decoder notices; how often that is depends on what the encoder made.
    assert found["off", "read"] < 0.1 * found["off", "DamagedClip"], found


def corrupt_frames(path):
    """Say of every frame whether the decoder marks it, read from the first to the last by one thread."""
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "NONE"
        return [bool(frame.is_corrupt) for frame in container.decode(video=0)]


def variants_judged(folder, name, num_frames, variants):
    """Change bytes at random places of a clip; count by how the frames chosen differ and what reading says."""
    clean = write_video(folder / f"clean_{name}", images=moving_scene(num_frames), **CLIPS[name])
    every, taken = decode_all(clean), uniform_indices(num_frames, 16)
    found = Counter()
    for seed in range(variants):
        path = change_bytes(folder / name, clean, (1, 3, 10)[seed % 3], seed)
        try:
            given = decode_all(path)
        except (av.FFmpegError, IndexError):
            given = every[:0]
        off = "no frames"
        if len(given) == num_frames:
            levels = np.abs(given[taken].astype(int) - every[taken]).mean()
            off = "off" if levels >= LEVELS else "near" if levels else "same"
        try:
            read_frames(path, chosen)
            judged = "read"
        except UnreadableClip as error:
            judged = type(error).__name__
            with pytest.raises(UnreadableClip):
                read_frames(path, chosen, every_frame=True)
        found[off, judged] += 1
        if off == "off" and judged == "read":
            assert not any(corrupt_frames(path)[index] for index in taken), seed
        assert not (off == "same" and judged == "DamagedClip"), seed
    return found


def damaged_late(folder):
    """A file of four groups of twelve frames, of which only the last is damaged, to its end."""
    clean = write_video(folder / "clean.mp4", images=moving_scene(48), codec="libx264", b_frames=2)
    for seed in range(200):
        path = change_bytes(folder / "late.mp4", clean, 1, seed)
        try:
            with av.open(str(path)) as container:
                marked = {n: frame.pict_type for n, frame in enumerate(container.decode(video=0)) if frame.is_corrupt}
        except av.FFmpegError:
            continue
        if marked and min(marked) > 36 and PictureType.P in marked.values():
            return path, decode_all(clean)
    raise AssertionError("no such variant")


def test_only_frames_that_are_read_matter(tmp_path):
    path, every = damaged_late(tmp_path)
    # One group by itself is decoded from its key frame on; all frames of it, from the start of the file.
    for part in ((0, 12), (24, 36)):
        for every_frame in (False, True):
            frames = read_frames(path, [0, 5, 11], frame_range=part, every_frame=every_frame)
            assert np.array_equal(frames, every[[part[0], part[0] + 5, part[0] + 11]])
    assert np.array_equal(read_frames(path, [0, 20]), every[[0, 20]])
    with pytest.raises(DamagedClip, match=r"damaged: errors were hidden in frame\(s\) \d+.*concerns 1 of the 2 frames"):
        read_frames(path, [0, 47])
    with pytest.raises(DamagedClip, match="of the 48 frames read"):
        read_frames(path, [0, 20], every_frame=True)
    with pytest.raises(DamagedClip):
        read_frames(path, [11], frame_range=(36, 48))


def test_a_b_picture_whose_later_reference_is_damaged(tmp_path, monkeypatch):
    # Reading stops at the B picture, before the frame that it is made from has come out of the decoder.
    clean = write_video(tmp_path / "clean.avi", images=moving_scene(24), b_frames=2, gop=24)
    for seed in range(300):
        path = change_bytes(tmp_path / "a.avi", clean, 1, seed)
        try:
            with av.open(str(path)) as container:
                frames = list(container.decode(video=0))
        except av.FFmpegError:
            continue
        first = next((number for number, frame in enumerate(frames) if frame.is_corrupt), 0)
        if len(frames) == 24 and frames[first].pict_type == PictureType.P and first > 2:
            break
    assert frames[first - 1].pict_type == PictureType.B
    assert read_frames(path, [0], frame_range=(first - 3, first - 2)).shape[0] == 1
    with pytest.raises(DamagedClip):
        read_frames(path, [0], frame_range=(first - 1, first))


@pytest.mark.parametrize("codec", ["libx264", "libx265", "mpeg4"])
def test_parts_that_end_anywhere_are_whole(tmp_path, codec):
    """Also at a B picture that comes out together with the last frame, when there is nothing more to decode."""
    if codec not in av.codecs_available:
        pytest.skip(f"this build of FFmpeg has no {codec}")
    for count in range(12, 20):
        images = [np.full((96, 128, 3), 5 * number, np.uint8) for number in range(count)]
        path = write_video(tmp_path / "a.mp4", images=images, codec=codec, b_frames=2)
        with av.open(str(path)) as container:
            if [frame.pict_type for frame in container.decode(video=0)][-2] == PictureType.B:
                break
    else:
        raise AssertionError("no B picture before the last frame")
    every = decode_all(path)
    for stop in range(9, count + 1):
        read = read_frames(path, [0, stop - 9], frame_range=(8, stop), every_frame=True)
        assert np.array_equal(read, every[[8, stop - 1]])
