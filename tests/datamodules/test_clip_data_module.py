import gc
import logging
import shutil
from types import SimpleNamespace

import av
import lightning as L
import pytest
import torch

from datamodules.bad_clips import TooManyBadClipsError
from datamodules.driver_clips import DriverClips

SMALL = {"frames": 4, "size": 32, "batch_size": 2, "num_workers": 0}


@pytest.fixture
def data(driver_root):
    return DriverClips(str(driver_root), **SMALL)


@pytest.fixture
def damaged_root(driver_root, tmp_path):
    """The same data set with one unreadable clip of two that show anna or ben texting, and one of dan."""
    root = tmp_path / "damaged"
    shutil.copytree(driver_root, root)
    for name in ("anna/texting.avi", "dan/texting.avi"):
        (root / name).write_bytes(b"")
    return root


class Recorder(L.LightningModule):
    """Notes which samples came in which epoch and stage."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append(("train", self.current_epoch, tuple(batch["sample_id"]), int(batch["clip"].sum())))
        return self.layer(batch["clip"].float().mean(dim=(1, 2, 3, 4))[:, None]).mean()

    def validation_step(self, batch, batch_idx):
        self.seen.append(("val", self.current_epoch, tuple(batch["sample_id"]), int(batch["clip"].sum())))

    def test_step(self, batch, batch_idx):
        self.seen.append(("test", 0, tuple(batch["sample_id"]), int(batch["clip"].sum())))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def trainer(tmp_path, **options):
    return L.Trainer(
        accelerator="cpu", max_epochs=2, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path, use_distributed_sampler=False, **options,
    )  # fmt: skip


def seen_in_training(data, epoch):
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return [(batch["sample_id"], batch["clip"]) for batch in loader]


def by_name(batches):
    return {name: clip for names, clips in batches for name, clip in zip(names, clips, strict=True)}


@pytest.mark.timeout(60)
def test_batches_do_not_depend_on_the_number_of_workers(driver_root):
    def batches(workers, epoch):
        return seen_in_training(DriverClips(str(driver_root), **{**SMALL, "num_workers": workers}), epoch)

    for epoch in (0, 3):
        alone = batches(0, epoch)
        for workers in (1, 2):
            found = batches(workers, epoch)
            assert [ids for ids, _ in found] == [ids for ids, _ in alone]
            assert all(torch.equal(a, b) for (_, a), (_, b) in zip(found, alone, strict=True))
    assert [ids for ids, _ in batches(0, 0)] != [ids for ids, _ in batches(0, 3)]


def test_persistent_workers_know_the_epoch(driver_root):
    loader = DriverClips(str(driver_root), **{**SMALL, "num_workers": 1}).train_dataloader()
    assert loader.persistent_workers
    epochs = []
    for epoch in (0, 1):
        loader.sampler.set_epoch(epoch)
        epochs.append(by_name([(batch["sample_id"], batch["clip"]) for batch in loader]))
    expected = by_name(seen_in_training(DriverClips(str(driver_root), **SMALL), 1))
    assert any(not torch.equal(epochs[0][name], epochs[1][name]) for name in epochs[0])
    assert all(torch.equal(epochs[1][name], expected[name]) for name in expected)


@pytest.mark.timeout(60)
def test_workers_do_not_hang_on_what_others_left_behind(driver_root):
    data = DriverClips(str(driver_root), **{**SMALL, "num_workers": 1})
    gc.collect()
    gc.disable()  # while garbage that owns threads is made: a frame and its side data form a cycle
    with av.open(data.clips("train")[0].path) as container:
        for frame in container.decode(video=0):
            frame.to_ndarray(format="rgb24", threads=2)
            assert frame.side_data is not None
    gc.enable()
    for _ in range(3):
        assert len(list(data.train_dataloader())) == 3


def test_evaluation_is_always_the_same(data):
    first, second = ([batch["clip"] for batch in data.val_dataloader()] for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_evaluation_loader_reads_exactly_the_given_clips(data):
    clips = data.clips("train")[1:4]
    batches = list(data.evaluation_loader(clips, batch_size=3))
    assert [batch["sample_id"] for batch in batches] == [[clip.sample_id for clip in clips]]
    assert batches[0]["clip"].shape == (3, 3, 4, 32, 32)
    assert list(data.evaluation_loader([])) == []


@pytest.mark.parametrize("world", [1, 2, 3])
def test_ranks_share_the_evaluation(driver_root, world):
    found = []
    for rank in range(world):
        data = DriverClips(str(driver_root), **SMALL)
        data.trainer = SimpleNamespace(global_rank=rank, world_size=world)
        found += [name for batch in data.test_dataloader() for name in batch["sample_id"]]
        assert len(data.train_dataloader().sampler) == -(-6 // world)
    assert sorted(found) == sorted(clip.sample_id for clip in data.clips("test"))


@pytest.mark.parametrize("world", [1, 2, 3])
def test_ranks_share_a_test_in_views(driver_root, world):
    found = []
    for rank in range(world):
        data = DriverClips(str(driver_root), test_clips=2, test_crops=3, **SMALL)
        data.trainer = SimpleNamespace(global_rank=rank, world_size=world)
        for loader in (data.test_dataloader(), data.predict_dataloader()):
            for batch in loader:
                assert len(batch["clip"]) == 6 * len(batch["label"])
                found += batch["sample_id"]
        assert all(len(batch["clip"]) == len(batch["label"]) for batch in data.val_dataloader())
        assert all(len(batch["clip"]) == len(batch["label"]) for batch in data.evaluation_loader(data.clips("test")))
    assert sorted(found) == sorted(clip.sample_id for clip in data.clips("test") * 2)


AUGMENTED = {"flip_probability": 0.5, "random_resized_crop": [0.3, 1.0], "color_jitter": 0.4, "rand_augment": [2, 9]}


def test_augmented_batches_do_not_depend_on_workers_or_batches(driver_root):
    def clips(epoch, **changes):
        data = DriverClips(str(driver_root), **{**SMALL, **AUGMENTED, **changes})
        loader = data.train_dataloader()
        loader.sampler.set_epoch(epoch)
        batches = [data.on_after_batch_transfer(batch, 0) for batch in loader]
        return by_name([(batch["sample_id"], batch["clip"]) for batch in batches])

    alone = clips(0)
    assert {(clip.shape, clip.dtype) for clip in alone.values()} == {((3, 4, 32, 32), torch.uint8)}
    for changes in ({"num_workers": 2}, {"batch_size": 5}):
        found = clips(0, **changes)
        assert all(torch.equal(found[name], clip) for name, clip in alone.items())
    assert not any(torch.equal(clips(1)[name], clip) for name, clip in alone.items())


def test_training_alone_is_augmented(driver_root, tmp_path):
    def seen(**options):
        data, model = DriverClips(str(driver_root), **{**SMALL, "train_crop": "center", **options}), Recorder()
        trainer(tmp_path).fit(model, data)
        trainer(tmp_path).test(model, data)
        return {part: [entry for entry in model.seen if entry[0] == part] for part in ("train", "val", "test")}

    plain, augmented = seen(), seen(color_jitter=0.5)
    assert plain["train"] != augmented["train"]
    assert [entry[:3] for entry in plain["train"]] == [entry[:3] for entry in augmented["train"]]
    assert (plain["val"], plain["test"]) == (augmented["val"], augmented["test"])


def test_without_augmentation_batches_pass_untouched(data):
    batch = next(iter(data.train_dataloader()))
    clip = batch["clip"]
    assert data.on_after_batch_transfer(batch, 0)["clip"] is clip
    example = torch.zeros(1, 3, 4, 32, 32)  # what a model summary sends
    assert data.on_after_batch_transfer(example, 0) is example


def test_classes_can_be_balanced(damaged_root):
    rows = (damaged_root / "clips.csv").read_text().splitlines()
    (damaged_root / "clips.csv").write_text("\n".join(row for row in rows if not row.startswith("anna/t")) + "\n")
    data = DriverClips(str(damaged_root), balance_classes=True, **SMALL)
    loader = data.train_dataloader()
    lonely = []  # clips of the class that has only one
    for epoch in range(4):
        loader.sampler.set_epoch(epoch)
        batches = list(loader)
        labels = torch.cat([batch["label"] for batch in batches])
        assert sorted(labels.bincount().tolist()) == [1, 2, 2]  # five clips as ever, of three classes
        lonely += [clip for batch in batches for clip in batch["clip"][batch["label"] == 2]]
    assert len(lonely) > 4
    assert len({clip.numpy().tobytes() for clip in lonely}) == len(lonely)  # each time it was seen in another way


def test_training_clips_can_be_limited(driver_root, data):
    limited = DriverClips(str(driver_root), limit_per_class=1, **SMALL)
    assert [clip.label for clip in limited.clips("train")] != []
    assert sorted(clip.label for clip in limited.clips("train")) == [0, 1, 2]
    assert set(limited.clips("train")) < set(data.clips("train"))
    assert limited.data_hash("train") != data.data_hash("train")
    for split in ("val", "test"):
        assert limited.clips(split) == data.clips(split)
        assert limited.data_hash(split) == data.data_hash(split)
    assert limited.split_table()["split"].value_counts().to_dict() == {"train": 3, "val": 3, "test": 3}


def test_trainer_reshuffles_every_epoch(data, tmp_path):
    model = Recorder()
    trainer(tmp_path).fit(model, data)
    epochs = [[entry[2:] for entry in model.seen if entry[:2] == ("train", epoch)] for epoch in (0, 1)]
    assert epochs[0] != epochs[1]
    for epoch in epochs:
        assert sorted(name for names, _ in epoch for name in names) == sorted(c.sample_id for c in data.clips("train"))


def test_one_bad_clip_is_replaced_and_counted(damaged_root, tmp_path, caplog):
    data, model = DriverClips(str(damaged_root), **SMALL), Recorder()
    with caplog.at_level(logging.WARNING, logger="datamodules"):
        trainer(tmp_path).fit(model, data)
    for epoch in (0, 1):
        names = [name for entry in model.seen if entry[:2] == ("train", epoch) for name in entry[2]]
        assert len(names) == 6
        assert names.count("ben/texting.avi") == 2
    messages = [record.getMessage() for record in caplog.records]
    assert sum(m.startswith("Unreadable clip in the train split: anna/texting.avi: ") for m in messages) == 1
    assert messages[-1].startswith(
        "1 of 6 clips of the train split could not be read (replaced by others of their class in training, left out of "
        "evaluation):\n  anna/texting.avi: "
    )
    assert list(data.bad_clips("train").reasons) == ["anna/texting.avi"]


def test_bad_clip_is_absent_from_a_test(damaged_root, tmp_path):
    data, model = DriverClips(str(damaged_root), **SMALL), Recorder()
    trainer(tmp_path).test(model, data)
    assert [name for entry in model.seen for name in entry[2]] == ["dan/drinking.avi", "dan/driving.avi"]
    assert list(data.bad_clips("test").reasons) == ["dan/texting.avi"]


def test_too_many_bad_clips_stop_training(damaged_root, tmp_path):
    (damaged_root / "ben/driving.avi").write_bytes(b"")
    data = DriverClips(str(damaged_root), **SMALL)
    with pytest.raises(TooManyBadClipsError, match=r"at most 1 .* among the 6 of the train split, met 2"):
        trainer(tmp_path).fit(Recorder(), data)
    patient = DriverClips(str(damaged_root), max_bad_fraction=0.5, **SMALL)
    trainer(tmp_path).fit(Recorder(), patient)


def test_ranks_count_together(damaged_root, tmp_path):
    """Each of two ranks meets one bad clip, as many as may be: together they are too many."""
    (damaged_root / "ben/driving.avi").write_bytes(b"")
    ranks = [DriverClips(str(damaged_root), **SMALL) for _ in range(2)]
    for rank, data in enumerate(ranks):
        data.record_bad_clips(tmp_path / "unreadable.csv", rank)
    ranks[0].bad_clips("train").add([("anna/texting.avi", "empty")])
    with pytest.raises(TooManyBadClipsError, match=r"met 2 \(all are listed in .*unreadable\.csv\)"):
        ranks[1].bad_clips("train").add([("ben/driving.avi", "empty")])


def test_every_command_counts_anew(damaged_root, tmp_path, caplog):
    data = DriverClips(str(damaged_root), **SMALL)
    for name in ("one", "two"):
        data.record_bad_clips(tmp_path / name, 0)
        with caplog.at_level(logging.WARNING, logger="datamodules"):
            trainer(tmp_path).test(Recorder(), data)
        assert (tmp_path / name).read_text().splitlines()[1].startswith("test,dan/texting.avi,")
    assert sum(record.getMessage().startswith("1 of 3 clips of the test split") for record in caplog.records) == 2


def test_split_table(data):
    table = data.split_table()
    assert list(table.columns) == ["sample_id", "path", "label", "group", "split"]
    assert table["split"].value_counts().to_dict() == {"train": 6, "val": 3, "test": 3}
    assert table.iloc[0][["sample_id", "label", "group"]].tolist() == ["anna/drinking.avi", "drinking", "anna"]


def test_data_hash_changes_with_what_is_read(driver_root, damaged_root, data):
    digest = data.data_hash("test")
    assert len(digest) == 64
    assert DriverClips(str(damaged_root), **SMALL).data_hash("test") == digest  # moved, not changed
    assert data.data_hash("val") != digest
    for changes in ({"frames": 8}, {"size": 16}, {"short_side": 40}, {"classes": ["texting", "drinking", "driving"]}):
        assert DriverClips(str(driver_root), **{**SMALL, **changes}).data_hash("test") != digest
    for changes in ({"batch_size": 5}, {"seed": 7}, {"train_crop": "center"}, AUGMENTED, {"test_crops": 3}):
        assert DriverClips(str(driver_root), **{**SMALL, **changes}).data_hash("test") == digest


def test_short_side_follows_size(driver_root):
    assert DriverClips(str(driver_root), size=224).settings.short_side == 256
    assert DriverClips(str(driver_root), size=112).settings.short_side == 128
    assert DriverClips(str(driver_root), size=112, short_side=112).settings.short_side == 112


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 0},
        {"num_workers": -1},
        {"max_bad_fraction": 2.0},
        {"short_side": 8},
        {"limit_per_class": 0},
        {"test_clips": 0},
        {"flip_probability": 2.0},
    ],
)
def test_refuses_nonsense(driver_root, options):
    with pytest.raises(ValueError, match="Expected"):
        DriverClips(str(driver_root), **{**SMALL, **options})


def test_unknown_split(data):
    with pytest.raises(ValueError, match="split out of train, val, test, got 'validation'"):
        data.clips("validation")


def test_construction_reads_nothing(tmp_path):
    data = DriverClips(str(tmp_path / "not_there_yet"))
    with pytest.raises(FileNotFoundError):
        data.class_names
