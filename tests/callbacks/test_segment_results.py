import dataclasses

import lightning
import numpy as np
import pandas as pd
import pytest
import torch

from callbacks.run_records import RunRecords
from callbacks.segment_results import SegmentResults
from datamodules import SyntheticCabin
from datamodules.clip_data_module import ClipDataModule
from lightning_modules import VideoClassifier
from sightline.video.clips import Clip
from tests.conftest import CABIN, TINY_SWIN

# Chunk: segment, label, probabilities. Segment s: (0.9 + 0.4 + 0.2, 0.1 + 0.6 + 0.8) / 3 = (0.5, 0.5) but for the last.
CHUNKS = {
    "s.0": ("s", 0, (0.9, 0.1)),
    "s.1": ("s", 0, (0.4, 0.6)),
    "t.0": ("t", 1, (0.8, 0.2)),
    "s.2": ("s", 0, (0.3, 0.7)),
    "alone": ("", 1, (0.1, 0.9)),
}


class Chunks(ClipDataModule):
    def read_clips(self):
        clips = [
            Clip(name, "", label, group="", split="test", segment=segment)
            for name, (segment, label, _) in CHUNKS.items()
        ]
        return ["walk", "sit"], clips

    @property
    def can_train(self):
        return False


class Module:
    def __init__(self):
        self.logged = {}

    def log(self, name, value, **_):
        self.logged[name] = value


class Trainer:
    is_global_zero, world_size, ckpt_path, fast_dev_run = True, 1, None, False

    def __init__(self, folder, data):
        self.default_root_dir, self.datamodule = str(folder), data


def outputs_of(names):
    return {"sample_id": names, "probabilities": torch.tensor([CHUNKS[name][2] for name in names]).reshape(-1, 2)}


def after_batches(trainer, batches):
    callback, module = SegmentResults(), Module()
    callback.on_test_start(trainer, module)
    for batch in batches:
        callback.on_test_batch_end(trainer, module, outputs_of(batch), None, 0)
    return callback, module


def test_by_hand(tmp_path):
    trainer = Trainer(tmp_path, Chunks())
    callback, module = after_batches(trainer, [["s.1", "t.0"], [], ["s.2", "alone", "s.0"]])
    callback.on_test_epoch_end(trainer, module)
    callback.on_test_end(trainer, module)
    # s: the mean of (0.9, 0.4, 0.3) is 0.533: right, though two of its three chunks are wrong. t is wrong, alone right.
    assert module.logged["test/segment_top1"] == pytest.approx(2 / 3)
    assert module.logged["test/segment_mean_class_acc"] == pytest.approx((1 + 1 / 2) / 2)
    table = pd.read_csv(tmp_path / "tables/test_segments.csv")
    assert table["segment"].tolist() == ["s", "t", "alone"]
    assert table["label"].tolist() == ["walk", "sit", "sit"]
    assert table["predicted"].tolist() == ["walk", "walk", "sit"]
    assert table["chunks"].tolist() == [3, 1, 1]
    np.testing.assert_allclose(table["p_true"], [1.6 / 3, 0.2, 0.9], rtol=1e-6)


def test_a_chunk_that_could_not_be_read_is_left_out(tmp_path):
    trainer = Trainer(tmp_path, Chunks())
    callback, module = after_batches(trainer, [["s.1", "s.2", "alone"]])
    callback.on_test_epoch_end(trainer, module)
    assert module.logged["test/segment_top1"] == 0.5


class WithoutSegments(Chunks):
    def read_clips(self):
        class_names, clips = super().read_clips()
        return class_names, [dataclasses.replace(clip, segment="") for clip in clips]


def test_without_segments_nothing_is_said(tmp_path):
    trainer = Trainer(tmp_path, WithoutSegments())
    callback, module = after_batches(trainer, [list(CHUNKS)])
    callback.on_test_epoch_end(trainer, module)
    callback.on_test_end(trainer, module)
    assert module.logged == {}
    assert list(tmp_path.iterdir()) == []


class SegmentedCabin(SyntheticCabin):
    """The cabin's clips as chunks: a driver's clips of one action are a segment."""

    def read_clips(self):
        names, clips = super().read_clips()
        return names, [dataclasses.replace(clip, segment=f"{clip.group} {clip.label}") for clip in clips]


def test_in_a_trainer(tmp_path, cabin_root):
    data = SegmentedCabin(root=str(cabin_root), test_crops=3, **CABIN)
    options = {key: value for key, value in TINY_SWIN.items() if key not in ("frames", "size")}
    module = VideoClassifier(2, ["a", "b"], "video_swin_demo", frames=4, size=32, options=options)
    trainer = lightning.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=tmp_path, callbacks=[SegmentResults(), RunRecords()],
    )  # fmt: skip
    [metrics] = trainer.test(module, data, verbose=False)
    table = pd.read_csv(tmp_path / "tables/test_segments.csv")
    clips = data.clips("test")
    assert table["segment"].tolist() == list(dict.fromkeys(clip.segment for clip in clips))
    assert (table["chunks"] == 6).all()
    outputs = trainer.predict(module, data)
    p = torch.cat([output["probabilities"] for output in outputs]).numpy()
    labels = np.array([clip.label for clip in clips])
    groups = pd.Series(p[np.arange(len(p)), labels]).groupby([clip.segment for clip in clips], sort=False)
    np.testing.assert_allclose(table["p_true"], groups.mean(), atol=1e-6)
    right = table["label"] == table["predicted"]
    assert metrics["test/segment_top1"] == pytest.approx(right.mean())
    stored = pd.read_csv(tmp_path / "tables/test.csv").set_index("metric")["value"]
    assert stored["test/segment_top1"] == pytest.approx(right.mean())
    assert stored["test/segment_mean_class_acc"] == pytest.approx(right.groupby(table["label"]).mean().mean())


def _one_of_two(rank, folder, queue):
    torch.set_num_threads(1)  # a forked process has none of the parent's threads
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    trainer = Trainer(folder, Chunks())
    trainer.world_size = 2
    # Rank 0 has no chunk of t, rank 1 one of s only.
    callback, module = after_batches(trainer, [["s.0", "s.1", "alone"], ["t.0", "s.2"]][rank : rank + 1])
    callback.on_test_epoch_end(trainer, module)
    queue.put((rank, module.logged, callback._segments.to_dict("list")))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


@pytest.mark.timeout(120)
def test_chunks_of_a_segment_may_be_on_different_ranks(tmp_path):
    alone, module = after_batches(Trainer(tmp_path, Chunks()), [list(CHUNKS)])
    alone.on_test_epoch_end(Trainer(tmp_path, Chunks()), module)
    context = torch.multiprocessing.get_context("fork")  # starting Python anew takes ten seconds and more
    queue = context.SimpleQueue()
    processes = [context.Process(target=_one_of_two, args=(rank, str(tmp_path), queue)) for rank in range(2)]
    for process in processes:
        process.start()
    found = [queue.get() for _ in processes]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    for _, logged, segments in found:
        assert logged == module.logged
        assert segments == alone._segments.to_dict("list")
