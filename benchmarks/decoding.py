"""Compare the cost of reading 16 frames of a clip at short side 224 with that of other ways to do it.

    python benchmarks/decoding.py                       # everything: about five minutes, 40 MB in a temporary folder
    python benchmarks/decoding.py --repeats 3 --parts clips --results decoding.json

Videos are written with PyAV first: a moving, textured, noisy scene of 10 seconds at 25 frames per second. The ways take
turns within every repeat, and the ratio of each turn to ours is what counts: what else the machine does then strikes
all. CPU time of the process is taken, all threads included; of loaders with workers, the time on the wall. Every way
resizes its 16 frames with the same function; `bare` is the comparison without resizing. Frames are compared: `equal`
says whether they are bit for bit those of decoding everything. `decode_all` is PyAV as it comes; its conversion to RGB
starts threads, which costs CPU time on small frames, so `decode_all_1_thread` does without, as ours does. torchcodec
and decord take part where they can be imported.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import av
import numpy as np
import torch
from torch.utils.data import DataLoader

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.result_files import add_results_option, write_result  # noqa: E402
from datamodules.dataset import ClipDataset  # noqa: E402
from sightline.video import timeline  # noqa: E402
from sightline.video.clips import Clip, ClipSettings, load_clip  # noqa: E402
from sightline.video.decoding import read_frames  # noqa: E402
from sightline.video.frame_cache import FrameCache  # noqa: E402
from sightline.video.sampling import segment_frames, uniform_indices  # noqa: E402
from sightline.video.transforms import resize_short_side  # noqa: E402

FRAMES, SIZE, FPS = 16, 224, 25
KINDS = {
    "h264_320x240": ("libx264", "mp4", 320, 240),
    "mpeg4_320x240": ("mpeg4", "avi", 320, 240),
    "h264_1280x1024": ("libx264", "mp4", 1280, 1024),
}

Resize = Callable[[np.ndarray], np.ndarray]
Read = Callable[[Path, Resize], np.ndarray]


def scene(first: int, stop: int, width: int, height: int) -> Iterator[np.ndarray]:
    """Frames of a texture that drifts behind a moving box, with the noise of a camera."""
    generator = np.random.default_rng(0)
    coarse = generator.normal(scale=30, size=(height // 8 + 9, width // 8 + 9, 3))
    texture = 120 + coarse.repeat(8, 0).repeat(8, 1)[: height + 64, : width + 64]
    noise = [generator.normal(scale=4, size=(height, width, 1)) for _ in range(4)]
    for number in range(first, stop):
        left, top = int(24 + 20 * np.sin(number / 9)), int(24 + 20 * np.cos(number / 13))
        image = texture[top : top + height, left : left + width].copy()
        x, y = int(width * (0.5 + 0.35 * np.sin(number / 11))), int(height * (0.5 + 0.3 * np.cos(number / 7)))
        image[y - height // 7 : y + height // 7, x - height // 7 : x + height // 7] = [200, 60, 90]
        image += np.roll(noise[number % 4], (number * 7 % height, number * 13 % width), (0, 1))
        yield image.clip(0, 255).astype(np.uint8)


def write(path: Path, codec: str, gop: int, width: int, height: int, first: int = 0, stop: int = 10 * FPS) -> Path:
    options = {"g": str(gop), "threads": "1", "bf": "2"} if codec == "mpeg4" else {"g": str(gop), "preset": "veryfast"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=FPS, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        if codec == "mpeg4":
            stream.bit_rate = 800_000
        for number, image in enumerate(scene(first, stop, width, height)):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


# ---------------------------------------------------------------- the ways


def ours(path: Path, resize: Resize, part: tuple[int, int] | None = None) -> np.ndarray:
    return read_frames(path, partial(segment_frames, wanted=FRAMES, offset=0.5), convert=resize, frame_range=part)


def decode_all(path: Path, resize: Resize, threads: int | None = None) -> np.ndarray:
    with av.open(str(path)) as container:
        if threads is not None:
            container.streams.video[0].codec_context.thread_count = threads
        every = [frame.to_ndarray(format="rgb24", threads=threads) for frame in container.decode(video=0)]
    return np.stack([resize(every[index]) for index in uniform_indices(len(every), FRAMES)])


def encoded_video(path: Path, resize: Resize) -> np.ndarray:
    from pytorchvideo.data.encoded_video import EncodedVideo

    video = EncodedVideo.from_path(str(path), decode_audio=False)
    try:
        every = video.get_clip(0, video.duration + 1)["video"]
    finally:
        video.close()
    return np.stack(
        [resize(every[:, i].permute(1, 2, 0).byte().numpy()) for i in uniform_indices(every.shape[1], FRAMES)]
    )


def torchcodec(path: Path, resize: Resize) -> np.ndarray:
    from torchcodec.decoders import VideoDecoder

    video = VideoDecoder(str(path), dimension_order="NHWC")
    frames = video.get_frames_at(uniform_indices(len(video), FRAMES)).data.numpy()
    return np.stack([resize(frame) for frame in frames])


def decord(path: Path, resize: Resize) -> np.ndarray:
    from decord import VideoReader

    video = VideoReader(str(path), num_threads=1)
    return np.stack([resize(f) for f in video.get_batch(uniform_indices(len(video), FRAMES)).asnumpy()])


def importable(ways: dict[str, Read], path: Path, resize: Resize) -> dict[str, Read]:
    """The ways that work here at all."""
    found = {}
    for name, way in ways.items():
        try:
            way(path, resize)
            found[name] = way
        except Exception as error:
            print(f"{name} does not take part: {str(error).splitlines()[0]}", flush=True)
    return found


# ---------------------------------------------------------------- measuring


def take_turns(ways: Mapping[str, Callable[[], object]], repeats: int, clock: Callable[[], float]) -> dict[str, list]:
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            start = clock()
            way()
            times[name].append(clock() - start)
    return times


def report(case: str, times: dict[str, list[float]], base: str, **more: object) -> dict[str, object]:
    """Print and return, for each way, its time relative to that of ``base`` in the same turn: median and range."""
    row: dict[str, object] = {"case": case, f"{base}_s": round(statistics.median(times[base]), 4), **more}
    for name, seconds in times.items():
        if name != base:
            ratios = [other / own for other, own in zip(seconds, times[base], strict=True)]
            row[f"{name}/{base}"] = [round(f(ratios), 2) for f in (statistics.median, min, max)]
    print(json.dumps(row), flush=True)
    return row


def measure_clips(folder: Path, repeats: int) -> Iterator[dict[str, object]]:
    resize = partial(resize_short_side, short_side=SIZE)
    others: dict[str, Read] = {
        "decode_all": decode_all, "decode_all_1_thread": partial(decode_all, threads=1),
        "encoded_video": encoded_video, "torchcodec": torchcodec, "decord": decord,
    }  # fmt: skip
    for kind, (codec, suffix, width, height) in KINDS.items():
        for gop in (12, 250):
            path = write(folder / f"{kind}_{gop}.{suffix}", codec, gop, width, height)
            ways = {"ours": ours, **importable(others, path, resize)}
            expected = decode_all(path, resize)
            equal = {name: bool(np.array_equal(way(path, resize), expected)) for name, way in ways.items()}
            times = take_turns({n: partial(w, path, resize) for n, w in ways.items()}, repeats, time.process_time)
            rate = round(1 / statistics.median(times["ours"]), 1)
            yield report(f"{kind}, key frames every {gop}", times, "ours", clips_per_cpu_second=rate, equal=equal)
            bare = {name: ways[name] for name in ("ours", "decode_all", "decode_all_1_thread")}
            times = take_turns({n: partial(w, path, lambda f: f) for n, w in bare.items()}, repeats, time.process_time)
            yield report(f"{kind}, key frames every {gop}, bare", times, "ours")


def measure_chunk(folder: Path, repeats: int) -> Iterator[dict[str, object]]:
    """Three seconds from the middle of ten minutes, against the same three seconds as a file of their own."""
    half, chunk = 300 * FPS, 3 * FPS
    size = {"width": 320, "height": 240}
    long = write(folder / "long.mp4", "libx264", 2 * FPS, **size, stop=2 * half)
    alone = write(folder / "alone.mp4", "libx264", 2 * FPS, **size, first=half, stop=half + chunk)
    resize = partial(resize_short_side, short_side=SIZE)

    def first_time() -> np.ndarray:
        timeline._counted.cache_clear()
        return ours(long, resize, (half, half + chunk))

    ways = {
        "alone": lambda: ours(alone, resize),
        "first_chunk": first_time,
        "next_chunk": lambda: ours(long, resize, (half, half + chunk)),
    }
    yield report("3 s of 10 min", take_turns(ways, repeats, time.process_time), "alone")


def measure_loading(folder: Path, repeats: int) -> Iterator[dict[str, object]]:
    settings = ClipSettings(frames=FRAMES, size=SIZE, short_side=SIZE)
    path = write(folder / "clip.mp4", "libx264", 12, 320, 240)
    clip, cache = Clip("clip", str(path), 0, "g"), FrameCache(folder / "cache", 10**9)
    assert torch.equal(load_clip(clip, settings, cache=cache), load_clip(clip, settings, cache=cache))
    ways: dict[str, Callable[[], object]] = {
        "cached": lambda: load_clip(clip, settings, cache=cache),
        "decoded": lambda: load_clip(clip, settings),
        "decode_all": lambda: decode_all(path, partial(resize_short_side, short_side=SIZE)),
    }
    yield report("a clip, H.264 320x240", take_turns(ways, repeats, time.process_time), "cached")

    clips = ClipDataset([Clip(str(number), str(path), 0, "g") for number in range(24)], settings)

    def load(workers: int) -> None:
        for _ in DataLoader(clips, batch_size=None, num_workers=workers):
            pass

    loaders = {f"{workers}_workers": partial(load, workers) for workers in (0, 1, 2)}
    yield report("24 clips, wall time", take_turns(loaders, repeats, time.perf_counter), "0_workers")


PARTS = {"clips": measure_clips, "chunk": measure_chunk, "loading": measure_loading}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--repeats", type=int, default=5)
    add_results_option(parser)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        rows = [row for part in args.parts for row in PARTS[part](Path(folder), args.repeats)]
    if args.results is not None:
        write_result(args.results, rows)


if __name__ == "__main__":
    main()
