"""Two models on one clip: which heads of each are drawn, what is told of them, and what is refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from callbacks import HeadAblation, SideBySideGallery
from callbacks.analysis import Context
from callbacks.galleries import side_by_side as side_by_side_gallery
from datamodules import SyntheticCabin
from lightning_modules import VideoClassifier
from sightline.checkpoints.loading import CheckpointError
from sightline.checkpoints.trained import load_trained
from sightline.explain import head_maps
from sightline.run.ranks import Ranks
from sightline.types import Unit
from tests.conftest import CABIN, TINY_SWIN, randomise

SWIN = {key: value for key, value in TINY_SWIN.items() if key not in ("frames", "size")}
TIMESFORMER = {"patch": 8, "width": 16, "depth": 2, "heads": 2}


def make_run(folder: Path, cabin_root: Path, backbone: str, options: dict, names: list[str], seed: int) -> Context:
    """Make the parts of a finished run that matter here, with scores of its heads on the cabin's training clips."""
    data = SyntheticCabin(root=str(cabin_root), **CABIN)
    module = VideoClassifier(2, names, backbone=backbone, frames=4, size=32, options=options)
    randomise(module.backbone, seed)
    checkpoint = {"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams)}
    module.on_save_checkpoint(checkpoint)
    (folder / "checkpoints").mkdir(parents=True)
    torch.save(checkpoint, folder / "checkpoints/best.ckpt")
    (folder / "config.yaml").write_text("model: {}\ndata: {}\ntrainer: {}\n")
    context = Context(folder, "train", module, module.backbone.eval(), "best.ckpt", data, Ranks(), [])
    # The other run's own data have other names for its classes.
    data.__dict__["_annotations"] = (names, data._annotations[1])
    HeadAblation().analyse(context)
    return context


@pytest.fixture(scope="module")
def runs(cabin_root, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    make_run(folder / "swin", cabin_root, "video_swin_demo", SWIN, ["steering", "texting-on-phone"], 0)
    make_run(folder / "timesformer", cabin_root, "timesformer_demo", TIMESFORMER, ["violin", "guitar"], 1)
    return folder


@pytest.fixture
def context(runs, cabin_root, tmp_path) -> Context:
    shutil.copytree(runs / "swin", tmp_path / "swin")
    data = SyntheticCabin(root=str(cabin_root), **CABIN)
    path = tmp_path / "swin/checkpoints/best.ckpt"
    module = VideoClassifier(2, data.class_names, backbone="video_swin_demo", frames=4, size=32, options=SWIN)
    return Context(tmp_path / "swin", "test", module, load_trained(str(path)), str(path), data, Ranks(), [])


@pytest.fixture
def drawn(monkeypatch) -> list[tuple[str, np.ndarray, list]]:
    """The name, frames and panels of what would be drawn, without drawing it."""
    found: list[tuple[str, np.ndarray, list]] = []

    def write(stem, kind, frames, panels, title, note) -> list[str]:
        found.append((stem.name, frames, panels))
        stem.with_name(f"{stem.name}_{kind}.png").write_text("x")
        return [f"{stem.name}_{kind}.png"]

    monkeypatch.setattr(side_by_side_gallery, "write_strip", write)
    return found


def best_head(run: Path, site: str, label: int | None = None, layers: tuple[int, ...] = ()) -> tuple[Unit, float]:
    """Look for the head of the highest mean r in a run's table."""
    table = pd.read_parquet(run / "relevance/train/heads.parquet")
    table = table[table["site"] == site]
    if label is not None:
        table = table[(table["label"] == label) & table["layer"].isin(layers)]
    means = table.groupby(["layer", "head"])["r"].mean()
    layer, head = means.idxmax()
    return Unit(int(layer), site, int(head)), means.max()


def test_the_specialised_head_beside_the_other_models_most_relevant_ones(context, runs, capsys):
    SideBySideGallery(str(runs / "timesformer"), classes="texting-on-phone").analyse(context)
    table = pd.read_csv(context.folder / "tables/side_by_side.csv")
    assert table["sample_id"].nunique() == 1
    assert table[["class", "run", "other_run"]].values.tolist() == [["texting-on-phone", "swin", "timesformer"]] * 2
    assert table["other_site"].tolist() == ["spatial", "temporal"]
    [clip] = [clip for clip in context.data.clips("test") if clip.sample_id == table["sample_id"][0]]
    pixels = next(iter(context.data.evaluation_loader([clip], 1)))["clip"]
    ours, r = best_head(context.folder, "attention", 1, (2, 3))
    other = load_trained(str(runs / "timesformer/checkpoints/best.ckpt"))
    for row in table.to_dict("records"):
        assert (row["layer"], row["head"], row["r"]) == (ours.layer, ours.head, pytest.approx(r, rel=1e-4))
        theirs, r_theirs = best_head(runs / "timesformer", row["other_site"])
        assert (row["other_layer"], row["other_head"]) == (theirs.layer, theirs.head)
        assert row["other_r"] == pytest.approx(r_theirs, rel=1e-4)
        maps = head_maps(context.backbone, pixels, [ours])[ours], head_maps(other, pixels, [theirs])[theirs]
        ranks = [pd.Series(cells.pixels()[0].flatten().tolist()).rank() for cells in maps]
        assert row["spearman"] == pytest.approx(ranks[0].corr(ranks[1]), abs=1e-4)
    with torch.no_grad():
        said = other(pixels).softmax(dim=1)[0]
    assert table["other_predicted"][0] == ["violin", "guitar"][int(said.argmax())]
    assert table["other_probability"][0] == pytest.approx(said.max().item(), rel=1e-4)
    index = json.loads((context.folder / "attention/index.json").read_text())
    assert {path.name for path in (context.folder / "attention").iterdir()} == {*index, "index.json"}
    assert [name.rpartition("_")[2] for name in index] == ["side.png", "side.mp4"]
    assert len(set(index.values())) == 1
    assert f"Clip {clip.sample_id}: texting-on-phone, predicted " in next(iter(index.values()))
    with av.open(str(context.folder / "attention" / list(index)[1])) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 4
    assert frames[0].shape[1] > 4 * frames[0].shape[0]  # the frame, and three maps
    assert "Side by side: 1 clips, of which swin predicts" in capsys.readouterr().out


def test_a_class_of_the_other_model_may_be_chosen_and_heads_are_blurred(context, runs, drawn):
    SideBySideGallery(str(runs / "timesformer"), other_class="guitar").analyse(context)
    assert len(drawn) == 2  # one clip of every class
    for name, _, panels in drawn:
        assert "steering" in name or "texting-on-phone" in name
        wanted = [best_head(runs / "timesformer", site, 1, (0, 1))[0] for site in ("spatial", "temporal")]
        assert [f"{unit.site} layer {unit.layer} head {unit.head}, specialised in guitar" for unit in wanted] == [
            panel.title.partition(": ")[2].rpartition(",")[0] for panel in panels[1:]
        ]
    table = context.folder / "tables/side_by_side.csv"
    plain, before = table.read_text(), list(drawn)
    drawn.clear()
    SideBySideGallery(str(runs / "timesformer"), other_class="guitar", blur_heads=True).analyse(context)
    assert table.read_text() == plain  # the models see the clips as they are
    for (_, sharp, panels), (_, blurred, same) in zip(before, drawn, strict=True):
        assert 0 < (sharp != blurred).mean() < 0.5
        assert all(torch.equal(a.pixels, b.pixels) for a, b in zip(panels, same, strict=True))


def test_runs_of_one_name_are_told_apart(context, drawn):
    """A run beside itself: the specialised head and the most relevant one."""
    other = context.folder.parent / "again" / "swin"
    shutil.copytree(context.folder, other)
    SideBySideGallery(str(other), max_clips=1).analyse(context)
    table = pd.read_csv(context.folder / "tables/side_by_side.csv")
    assert table["run"][0] == f"{context.folder.parent.name}/swin"
    assert table["other_run"][0] == "again/swin"
    assert table["probability"][0] == table["other_probability"][0]


def refused(context: Context, other: Path, match: str, **options) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=match) as raised:
        SideBySideGallery(str(other), **options).analyse(context)
    assert "\n" not in str(raised.value)


def test_folders_that_are_no_finished_run_are_refused(context, runs, tmp_path):
    refused(context, tmp_path / "nothing", "There is no folder .*nothing")
    refused(context, tmp_path, "not a run's folder: it has no config.yaml")
    run = tmp_path / "other"
    shutil.copytree(runs / "timesformer", run)
    (run / "provenance.json").write_text('{"run_format": 99, "commands": []}')
    refused(context, run, "is a run folder of format 99; this version of Sightline reads format 1")
    (run / "provenance.json").unlink()
    (run / "checkpoints/best.ckpt").rename(run / "kept.ckpt")
    refused(context, run, "has no checkpoints/best.ckpt")
    (run / "kept.ckpt").rename(run / "checkpoints/best.ckpt")
    manifest = run / "relevance/train/manifest.json"
    manifest.write_text(manifest.read_text().replace('"format_version": 1', '"format_version": 7'))
    refused(context, run, "have format 7; this version reads format 1")
    shutil.rmtree(run / "relevance")
    refused(context, run, r"Make it with: python train\.py ablate --run .*other --split train")


def test_checkpoints_that_cannot_be_trusted_or_do_not_fit_are_refused(runs, tmp_path):
    path = tmp_path / "best.ckpt"
    content = torch.load(runs / "swin/checkpoints/best.ckpt", weights_only=True)
    torch.save({**content, "callbacks": Callback()}, path)
    with pytest.raises(CheckpointError, match="not loaded, because such a file can run any code"):
        load_trained(str(path))
    path.write_bytes(b"no checkpoint")
    with pytest.raises(CheckpointError):
        load_trained(str(path))
    torch.save({"state_dict": content["state_dict"]}, path)
    with pytest.raises(CheckpointError, match="does not say which backbone it holds"):
        load_trained(str(path))
    name = next(name for name in content["state_dict"] if name.startswith("backbone."))
    torch.save({**content, "state_dict": {name: content["state_dict"][name]}}, path)
    with pytest.raises(CheckpointError, match=r"does not fit the video_swin_demo .* missing"):
        load_trained(str(path))


def test_other_inputs_and_unknown_names_are_refused(context, runs, cabin_root, tmp_path):
    refused(context, runs / "timesformer", "other_class is 'cello'.*: violin, guitar", other_class="cello")
    refused(context, runs / "timesformer", "'cello' is not a class of the data.*: steering, texting", classes="cello")
    module = VideoClassifier(
        2, ["violin", "guitar"], backbone="timesformer_demo", frames=8, size=32, options=TIMESFORMER
    )
    run = tmp_path / "longer"
    shutil.copytree(runs / "timesformer", run)
    checkpoint = {"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams)}
    module.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, run / "checkpoints/best.ckpt")
    refused(context, run, "takes clips of 4x32x32 and that of .*longer clips of 8x32x32. Set other to a run with")
    with pytest.raises(ValueError, match="set blur_heads too"):
        SideBySideGallery("run", boxes="boxes.csv")
    with pytest.raises(ValueError, match="at least 1, got 0 and None"):
        SideBySideGallery("run", clips_per_class=0)


def test_another_process_draws_its_share_alone(context, runs, drawn):
    SideBySideGallery(str(runs / "timesformer")).analyse(context)
    table = (context.folder / "tables/side_by_side.csv").read_text()
    alone = [name for name, _, _ in drawn]
    drawn.clear()
    # Rank 1 of 2 draws its share; what rank 0 would do afterwards is not its business.
    SideBySideGallery(str(runs / "timesformer")).analyse(replace(context, ranks=Ranks(1, 2)))
    assert [name for name, _, _ in drawn] == alone[1::2]
    assert (context.folder / "tables/side_by_side.csv").read_text() == table
