"""The gallery of kept tokens on a run: its files, its table against slow code, and what it refuses."""

import json
from dataclasses import dataclass, replace

import av
import pandas as pd
import pytest
import torch

from callbacks import TokenComparison, TokenGallery
from callbacks.galleries.tokens import _kept_place, _short, _told
from callbacks.tokens import comparison
from lightning_modules import VideoClassifier
from sightline.backbones import Place, build_backbone
from sightline.explain.cell_map import CellMap
from sightline.explain.methods.grad_norm import grad_norm
from sightline.export.writing import export_model
from sightline.pruning.plan import PruningPlan, unpruned_plan, unremoved_plan
from sightline.report.figures.kept_tokens import KeptTokens
from sightline.tokens import IARED2, KeptAt, TokenReduction, trace
from sightline.tokens.trajectory import trajectory_sums
from sightline.types import InputSpec
from tests.conftest import TINY_SWIN, randomise

HALF = TokenReduction.of("random", {"layer": 0})
QUARTER = TokenReduction.of("random", {"kept": 0.25})


@pytest.fixture(autouse=True)
def weights_that_matter(context):
    randomise(context.backbone)


@pytest.fixture
def undrawn(monkeypatch):
    """Pictures and videos of one pixel: drawing them takes far longer than all else."""
    monkeypatch.setattr("callbacks.galleries.tokens.write_picture", lambda figure, path: path.write_text("x"))
    monkeypatch.setattr("callbacks.galleries.tokens.write_video", lambda frames, path: path.write_text("x"))
    monkeypatch.setattr(KeptTokens, "figure", lambda self, title, note: None)
    monkeypatch.setattr(KeptTokens, "video", lambda self: None)


def export(context, plan: PruningPlan) -> None:
    smaller = context.backbone.without(plan.removed_layers)
    export_model(
        smaller, context.run.pruned(plan.plan_id), name="video_swin_demo", options=TINY_SWIN, plan=plan, provenance={},
        sampling={}, hyper_parameters={},
    )  # fmt: skip


def drawn(context, **options) -> pd.DataFrame:
    TokenGallery(max_clips=1, random_draws=1, **options).analyse(context)
    return pd.read_csv(context.run.table("kept_tokens_test"))


def test_pictures_videos_captions_and_a_table(context, capsys):
    table = drawn(context, tokens=[HALF.plain()], trajectory_layer=1)
    [row] = table.to_dict("records")
    index = json.loads(context.run.captions.read_text())
    assert {path.name for path in context.run.attention.iterdir()} == {*index, "index.json"}
    [picture, video] = index
    assert picture.endswith(f"_{HALF.label}_kept.png")
    assert f"What {HALF.label} keeps" in index[video]
    with av.open(str(context.run.attention / video)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 4

    clips = context.data.clips("test")
    place = next(at for at, clip in enumerate(clips) if clip.sample_id == row["sample_id"])
    clip = next(iter(context.batches("test", [place], 1)))["clip"]
    values = grad_norm(context.backbone, clip, torch.tensor([clips[place].label])).values.flatten()
    [kept] = trace(context.backbone, clip, HALF.build())
    mass = sum(float(values[cell]) for cell in kept.cells[0].tolist()) / float(values.sum())
    assert row["gradnorm_pct"] == pytest.approx(100 * mass, rel=1e-4)
    assert (row["tokens_pct"], row["cells_pct"], row["grid"], row["place"]) == (50, 50, "2x8x8", "layer 0")
    # Layer 0 runs on all tokens, layer 1 on half, and the second stage fills its grid.
    assert row["kept_pct"] == pytest.approx(100 * (1 + 0.5 + 1 + 1) / 4)
    found = trajectory_sums(context.backbone, clip, HALF.build(), 1).item()
    assert row["trajectory_sum"] == pytest.approx(found, rel=1e-4)
    assert row["trajectory_all"] == pytest.approx(trajectory_sums(context.backbone, clip, layer=1).item(), rel=1e-4)
    assert row["trajectory_random"] != row["trajectory_sum"]
    assert f"{HALF.label}: 88 % of the tokens kept" in capsys.readouterr().out


def test_an_earlier_gallery_goes_and_other_files_stay(context, undrawn):
    drawn(context, tokens=[HALF.plain(), QUARTER.plain()])
    assert len(list(context.run.attention.glob("*_kept.png"))) == 2
    (context.run.attention / "a_heads.png").write_text("x")
    drawn(context, tokens=[QUARTER.plain()])
    assert [path.name.endswith(f"_{QUARTER.label}_kept.png") for path in context.run.attention.glob("*_kept.png")] == [
        True
    ]
    assert (context.run.attention / "a_heads.png").exists()


def test_exported_models_are_drawn_with_their_own_layers_and_reduction(context, undrawn):
    export(context, unpruned_plan())
    export(context, unremoved_plan(QUARTER))
    cut = PruningPlan("relevance", "r", "lowest", 1, (1,), tokens=HALF)
    export(context, cut)
    table = drawn(context).set_index("tokens")
    assert list(table.index) == [cut.plan_id, QUARTER.label]
    # Layer 0 on all tokens, then the second stage, which fills its grid: layer 1 was removed.
    assert table["kept_pct"][cut.plan_id] == pytest.approx(100)
    named = drawn(context, plans=[f"{context.run.pruned(cut.plan_id)}/"])
    assert named["tokens"].tolist() == [cut.plan_id]
    with pytest.raises(ValueError, match="runs with all tokens; name an export that runs with fewer"):
        drawn(context, plans=unpruned_plan().plan_id)


def test_what_was_compared_is_drawn_as_it_was_tested(context, undrawn, monkeypatch):
    """The amounts of the rows of tables/tokens.csv; none of other weights."""
    monkeypatch.setattr(comparison, "COUNTED_CLIPS", 1)
    TokenComparison(methods=["random", "grid"], kept=[0.8], draws=2, latency_repeats=0).analyse(context)
    table = pd.read_csv(context.run.table("tokens"), keep_default_na=False)
    rows = table[table["method"].isin(["random", "grid"]) & table["seed"].isin(["", "0"])].set_index("tokens")
    found = drawn(context).drop_duplicates("tokens").set_index("tokens")
    assert set(found.index) == set(rows.index)
    assert len(found) == 2
    for name, share in rows["kept_pct"].items():
        assert found.loc[name, "kept_pct"] == pytest.approx(float(share))
    assert drawn(context, tokens=[QUARTER.plain()])["tokens"].unique().tolist() == [QUARTER.label]
    with torch.no_grad():
        next(context.backbone.parameters()).add_(1)
    with pytest.raises(ValueError, match="no comparison of token reductions of these weights"):
        TokenGallery().analyse(context)


def test_a_model_that_was_trained_with_fewer_tokens_is_drawn_with_these(context, undrawn):
    options = {key: value for key, value in TINY_SWIN.items() if key not in ("frames", "size")}
    module = VideoClassifier(
        2, backbone="video_swin_demo", frames=4, size=32, options=options, tokens=QUARTER.plain()
    )  # fmt: skip
    TokenGallery().check(module)
    assert drawn(replace(context, module=module))["tokens"].tolist() == [QUARTER.label]
    with pytest.raises(ValueError, match=f"runs with {QUARTER.label} already, and tokens are not reduced twice"):
        TokenGallery(tokens=[HALF.plain()]).check(module)


def test_without_any_reduction(context):
    TokenGallery(skip_without=True).analyse(context)
    assert not context.folder.exists()
    with pytest.raises(ValueError, match="no exported model that runs with fewer tokens"):
        TokenGallery().analyse(context)
    with pytest.raises(ValueError, match="layers 0 to 3; tokens cannot be dropped after layer 9"):
        TokenGallery(tokens=[{"name": "random", "options": {"layer": 9}}]).analyse(context)
    with pytest.raises(ValueError, match="random_draws of at least 1, got 0"):
        TokenGallery(random_draws=0)


def test_places_are_told_in_words():
    places = [Place("embedding"), Place("layer", 4), Place("attention", 2), Place("stage", 1)]
    assert [_told(place) for place in places] == [
        "after the embedding", "after layer 4", "inside layer 2", "entering stage 1"
    ]  # fmt: skip


def test_long_names_are_short_in_files_and_stay_different():
    assert _short("a" * 70) == "a" * 70
    assert len(_short("a" * 71)) == 70
    assert len({_short("a" * 90 + end) for end in "xy"}) == 2


def test_what_was_merged_is_shown_as_part_of_its_token():
    @dataclass(frozen=True)
    class Merged(KeptAt):
        merged_into: torch.Tensor | None = None

    depends = CellMap(torch.tensor([[[[1.0, 2], [3, 4]]]]), (2, 4, 4), InputSpec(2, 8, 8))
    at = Merged(
        Place("attention", 3), (1, 2, 2), torch.tensor([[3, 0]]), torch.tensor([4]), torch.tensor([[0, 3, -1, 3]])
    )
    place = _kept_place(at, depends)
    assert place.token_of.tolist() == [[[0, 3], [-1, 3]]]
    assert (place.tokens, place.cells_share, place.mass) == (2, 0.75, pytest.approx(0.7))
    plain = _kept_place(KeptAt(*[getattr(at, name) for name in ("place", "grid", "cells", "before")]), depends)
    assert plain.token_of.tolist() == [[[0, -1], [-1, 3]]]
    assert (plain.cells_share, plain.mass) == (0.5, 0.5)


def test_interpreters_heat_is_drawn_of_every_group():
    """What went before is 0; each value lies over the pixels of its cell."""
    vit = randomise(build_backbone("vit_demo", 2, {"frames": 4, "size": 32, "width": 16, "depth": 2, "heads": 2},
                                   interpreters={"groups": 2, "heads": 2}))  # fmt: skip
    clip = torch.randint(256, (1, 3, 4, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = trace(vit, clip, IARED2(kept=0.25))
    depends = grad_norm(vit, clip, torch.tensor([1]))
    for at in found:
        heat = _kept_place(at, depends).heat
        for frame, row, column in ((0, 0, 0), (1, 7, 7), (2, 8, 31), (3, 31, 16)):
            cell = (frame // 2) * 16 + (row // 8) * 4 + column // 8
            assert float(heat[frame, row, column]) == pytest.approx(float(at.heat[0, cell]))
    assert [(at.heat > 0).sum().item() for at in found] == [32, 16]


def test_one_video_file_is_drawn_beside_the_runs_clips(context, undrawn, capsys):
    drawn(context, tokens=[HALF.plain()])
    clips = context.data.clips("test")
    before = json.loads(context.run.captions.read_text())
    gallery = TokenGallery(random_draws=1).only(HALF.plain()).of_video(str(clips[0].path))
    gallery.analyse(context)
    after = json.loads(context.run.captions.read_text())
    new = set(after) - set(before)
    assert set(before) < set(after)
    assert {name.rpartition(".")[2] for name in new} == {"png", "mp4"}
    assert all((context.run.attention / name).is_file() and name.startswith("video_") for name in after if name in new)
    assert "50 % kept, layer 0." in capsys.readouterr().out
