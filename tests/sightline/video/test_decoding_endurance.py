"""Reading very many files in one process: nothing may pile up."""

import json
import os
import sys
from itertools import cycle, islice

import pytest

from sightline.video.decoding import UnreadableClip, read_frames
from sightline.video.sampling import uniform_indices
from tests.sightline.video.video_files import numbered_frame, truncate, write_audio, write_packed_avi, write_video

OPENS, WARM_UP = 1000, 200
MAX_GROWTH_BYTES = 8 * 2**20  # 10 KiB per open, less than any container or frame that were left over
LARGE = {"mmaction2__S001C001P001R001A001_rgb.avi"}  # seconds for each


def own_files(folder):
    images = [numbered_frame(number, 320, 240) for number in range(41)]
    (folder / "letter.mp4").write_text("This is a letter, not a video.\n" * 100)
    h264 = write_video(folder / "h264.mp4", images=images, codec="libx264", b_frames=3, movflags="faststart")
    damaged = bytearray(h264.read_bytes())
    damaged[len(damaged) // 2 : len(damaged) * 7 // 10] = bytes(len(damaged) * 7 // 10 - len(damaged) // 2)
    (folder / "damaged.mp4").write_bytes(bytes(damaged))
    return [
        h264,
        write_packed_avi(folder / "packed.avi", images, 2),
        write_video(folder / "ten_bits.mkv", images=images, codec="ffv1", pixels="yuv420p10le"),
        truncate(write_video(folder / "cut.avi", images=images, b_frames=2), 0.6),
        write_audio(folder / "sound.mp4"),
        folder / "damaged.mp4",
        folder / "letter.mp4",
        folder / "absent.mp4",
    ]


def hard_clips(shared_folder):
    folder = shared_folder / "hard_clips"
    names = json.loads((folder / "decode_results.json").read_text()) if folder.is_dir() else []
    return [folder / name for name in sorted(names) if name not in LARGE]


def resident_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def open_files():
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("of_others", [False, True])
def test_a_thousand_opens_leave_nothing_behind(tmp_path, request, of_others):
    paths = hard_clips(request.getfixturevalue("shared_folder")) if of_others else own_files(tmp_path)
    if not paths:
        pytest.skip("no folder shared/hard_clips beside the repository")
    files, outcomes, sizes = open_files(), {True: 0, False: 0}, []
    for number, path in enumerate(islice(cycle(paths), OPENS), start=1):
        try:
            read_frames(path, lambda times, end: uniform_indices(len(times), 16))
            outcomes[True] += 1
        except UnreadableClip:
            outcomes[False] += 1
        if number in (WARM_UP, OPENS):
            sizes.append(resident_bytes())
    print(f"{outcomes[True]} read, {outcomes[False]} unreadable, resident after {WARM_UP}, {OPENS}: {sizes}")
    assert min(outcomes.values()) > OPENS // 5
    assert open_files() == files
    assert sizes[1] - sizes[0] < MAX_GROWTH_BYTES
