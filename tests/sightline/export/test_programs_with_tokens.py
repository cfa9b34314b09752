"""Programs that choose their tokens themselves: the same logits, any batch, or one line that says why there is none."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sightline.backbones import build_backbone
from sightline.export import runtimes as programs
from sightline.export.counting import count_cost
from sightline.export.onnx_operators import OPERATORS
from sightline.export.reading import ExportError, exported_plan, load_exported, read_description
from sightline.export.runtimes import TOLERANCE, write_programs
from sightline.export.writing import export_model
from sightline.pruning.plan import PruningPlan, unremoved_plan
from sightline.tokens import REDUCERS, TokenReduction
from sightline.types import Unit
from tests.conftest import DEMO_VARIANTS, TINY_SWIN, randomise, with_interpreters
from tests.sightline.export.reducers import KeepBright, KeepLarge, Peeks
from tests.sightline.export.test_runtimes import FEW_LAYERS, TINY_VIT, clips_for, needs_onnxscript

# Of what the families show a reducer, so that each is in a program once; odd sizes, whose windows are padded.
CASES = {
    "mvit_demo": (FEW_LAYERS["mvit_demo"], {"by": "values"}),
    "timesformer_demo": (FEW_LAYERS["timesformer_demo"], {"by": "attention"}),
    "timesformer_joint_demo": (FEW_LAYERS["timesformer_joint_demo"], {"by": "pixels"}),
    "video_swin_demo": ({**TINY_SWIN, "size": 40, "window": [2, 3, 3], "depths": [1, 2]}, {"by": "keys"}),
    "vit_demo": (FEW_LAYERS["vit_demo"], {"by": "keys", "merge": True}),
}


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    for name, kind in {"large": KeepLarge, "bright": KeepBright, "peeks": Peeks}.items():
        monkeypatch.setitem(REDUCERS, name, kind)


def traced(backbone, reducer):
    model = programs._Logits(backbone, reducer).eval().requires_grad_(False)
    return programs._traced(model, programs._example(backbone, 2)).module()


@torch.no_grad()
def check_traced(backbone, reducer):
    run = traced(backbone, reducer)
    for batch in (1, 3):
        clips = clips_for(backbone, batch)
        wanted = backbone(clips, reducer=reducer)
        torch.testing.assert_close(run(clips), wanted, rtol=0, atol=1e-5)
        assert (backbone(clips) - wanted).abs().max() > 1e-3, "a program that drops nothing would pass"


@pytest.mark.parametrize("name", CASES)
def test_every_family_can_be_traced_with_its_reduction(name):
    options, chosen = CASES[name]
    check_traced(randomise(build_backbone(name, 5, options)), KeepLarge(**chosen))


def test_the_cases_cover_every_family():
    assert sorted(CASES) == DEMO_VARIANTS


@pytest.mark.slow
@needs_onnxscript
@pytest.mark.parametrize("merge", [False, True])
@pytest.mark.parametrize("by", ["tokens", "keys", "values", "attention", "pixels"])
@pytest.mark.parametrize("name", DEMO_VARIANTS)
def test_every_family_has_its_programs_in_every_way(name, by, merge, tmp_path):
    backbone = randomise(build_backbone(name, 5, CASES[name][0]))
    reducer = KeepLarge(by=by, merge=merge)
    check_traced(backbone, reducer)
    told = write_programs(backbone, tmp_path, ["torch_export", "onnx"], reducer)
    assert all(entry.get("largest_difference", 0) <= TOLERANCE for entry in told.values())


@pytest.mark.slow
@needs_onnxscript
def test_programs_agree_on_real_clips(shared_folder, tmp_path):
    """Real clips have still parts, whose tokens are nearly alike."""
    from sightline.video.preprocessing import Preprocessing
    from sightline.video.sources import as_source

    onnxruntime = pytest.importorskip("onnxruntime")
    backbone = randomise(build_backbone("vit_demo", 5, {"depth": 3}))
    spec = backbone.input_spec
    preprocessing = Preprocessing(spec.frames, spec.height, spec.height, True)
    videos = sorted((shared_folder / "clips").rglob("*.mp4"))[:6]
    clips = torch.stack([preprocessing.clip(as_source(video, None)) for video in videos])
    reducer = KeepLarge(by="keys", r=24)
    write_programs(backbone, tmp_path, ["torch_export", "onnx"], reducer)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    with torch.no_grad():
        wanted = backbone(clips, reducer=reducer)
        found = torch.export.load(tmp_path / "model.pt2").module()(clips)
    torch.testing.assert_close(found, wanted, rtol=0, atol=TOLERANCE)
    for some, logits in ((clips, wanted), (clips[:1], wanted[:1])):
        (found,) = session.run(None, {"clips": some.numpy()})
        torch.testing.assert_close(torch.from_numpy(found), logits, rtol=0, atol=TOLERANCE)


# The exported folder ------------------------------------------------------------------------------------------------


def export(backbone, folder, plan, kinds, name="vit_demo", options=TINY_VIT):
    smaller = backbone.without(plan.removed_layers).without_heads(plan.removed_heads)
    return export_model(
        smaller, folder, name=name, options=options, plan=plan, provenance={}, sampling={}, programs=kinds
    )


@needs_onnxscript
def test_layers_heads_and_tokens_are_in_one_folder_with_its_programs(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    backbone = randomise(build_backbone("vit_demo", 3, TINY_VIT))
    tokens = TokenReduction.of("large", {"r": 1, "by": "keys"})
    plan = PruningPlan("relevance", "r", "lowest", 2, (1,), (Unit(0, "attention", 1),), tokens=tokens)
    folder = export(backbone, tmp_path / plan.plan_id, plan, ["torch_export", "onnx"])
    assert folder.name == "relevance-r-lowest-k2-large_bykeys_r1"
    told = read_description(folder)
    assert exported_plan(told) == plan
    model = load_exported(folder)
    assert model.reducer == KeepLarge(r=1, by="keys")
    filled = count_cost(model.backbone, replace(model.reducer, attention="filled")).macs
    for entry in told["programs"].values():
        assert (entry["attention"], entry["macs"]) == ("filled", filled)
        assert entry["checked"] is True
        assert entry["largest_difference"] <= TOLERANCE
    program = torch.export.load(folder / "model.pt2").module()
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    for batch in (1, 5):
        clips = clips_for(backbone, batch)
        with torch.no_grad():
            wanted = model.backbone(clips, reducer=model.reducer)
            torch.testing.assert_close(program(clips), wanted, rtol=0, atol=1e-5)
        (found,) = session.run(["logits"], {"clips": clips.numpy()})
        torch.testing.assert_close(torch.from_numpy(found), wanted, rtol=0, atol=1e-5)


@needs_onnxscript
def test_sorting_keeps_the_order_of_equals_in_onnx(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")

    class Sorts(torch.nn.Module):
        def forward(self, clips):
            falling = clips.sort(dim=-1, descending=True, stable=True).indices
            return torch.cat((falling, clips.sort(dim=1, stable=True).indices), dim=1)

    assert torch.ops.aten.sort.stable in OPERATORS
    values = torch.tensor([[1.0, 3, 1, 3, 2, 1], [2, 2, 2, 2, 2, 2]])
    traced = torch.export.export(Sorts(), (values,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    programs._write_onnx(traced, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    for some in (values, values[:1], values.repeat(2, 1)):
        (found,) = session.run(None, {"clips": some.numpy()})
        assert found.tolist() == Sorts()(some).tolist()
    assert found[0].tolist() == [1, 3, 4, 0, 2, 5, 0, 2, 5, 4, 1, 3]


# What there is no program of ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("random", "its draw depends on a checksum of the clip's pixels"),
        ("bright", "how many tokens stay depends on the clip"),
    ],
)
def test_what_cannot_be_in_a_program_is_said_before_anything_is_written(name, reason, tmp_path):
    backbone = randomise(build_backbone("vit_demo", 3, TINY_VIT))
    plan = unremoved_plan(TokenReduction.of(name))
    with pytest.raises(ValueError, match=rf"No program \(torch_export, onnx\) can hold {name}: {reason}") as caught:
        export(backbone, tmp_path / "x", plan, ["torch_export", "onnx"])
    assert "\n" not in str(caught.value)
    assert "large" in str(caught.value).partition("or use")[2], "what would do is named"
    assert list(tmp_path.iterdir()) == []


def test_what_shows_only_in_tracing_is_said_in_one_line_too(tmp_path):
    backbone = randomise(build_backbone("vit_demo", 3, TINY_VIT))
    with pytest.raises(ExportError, match="No program can hold Peeks") as caught:
        export(backbone, tmp_path / "x", unremoved_plan(TokenReduction.of("peeks")), ["torch_export"])
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


class Jumps(torch.nn.Module):
    """Logits that hang on rounding in the clips whose first pixel is odd."""

    def __init__(self, backbone, always=False):
        super().__init__()
        self.backbone, self.always = backbone, always

    def forward(self, clips):
        exact = clips if clips.is_floating_point() else clips.float() / 255
        first = exact[:, 0, 0, 0, 0] * 255
        whole = (first - first.round()).abs() < 1e-5
        odd = (first.round() % 2 == 1) | self.always
        return (odd & ~whole).float().unsqueeze(1)


def test_clips_of_which_something_hangs_on_rounding_check_nothing():
    backbone = build_backbone("vit_demo", 3, TINY_VIT)
    clips = programs._steady_clips(Jumps(backbone), 4)
    assert clips.shape == (4, 3, 4, 32, 32)
    assert all(clip[0, 0, 0, 0] % 2 == 0 for clip in clips)
    with pytest.raises(ExportError, match="hangs on rounding in all of 24 clips"):
        programs._steady_clips(Jumps(backbone, always=True), 4)


# Every registered reduction -----------------------------------------------------------------------------------------

REGISTERED = list(REDUCERS)  # without those of this file's tests
ABLE = [name for name in REGISTERED if not TokenReduction.of(name).build().why_no_program]


def test_every_registered_reduction_can_be_in_a_program_or_says_why_not():
    assert "random" not in ABLE
    for name in set(REGISTERED) - set(ABLE):
        assert TokenReduction.of(name).build().why_no_program[0].islower()


@pytest.mark.parametrize("name", ABLE)
def test_registered_reductions_are_the_same_in_a_program(name):
    backbone = randomise(build_backbone("vit_demo", 5, FEW_LAYERS["vit_demo"], interpreters={"motion": True}))
    check_registered(backbone, name)


def test_rlt_is_the_same_in_a_program_where_its_share_is_fixed():
    backbone = randomise(build_backbone("vit_demo", 5, FEW_LAYERS["vit_demo"]))
    check_registered(backbone, "rlt", fixed="share")


@pytest.mark.slow
@needs_onnxscript
@pytest.mark.parametrize("family", DEMO_VARIANTS)
@pytest.mark.parametrize("name", ABLE)
def test_registered_reductions_are_the_same_in_every_family(name, family, tmp_path):
    backbone = randomise(with_interpreters(family, 5, FEW_LAYERS[family]))
    if TokenReduction.of(name).build().needs_interpreters and backbone.reducer is None:
        pytest.skip(f"{family} cannot hold interpreters")
    reducer = check_registered(backbone, name)
    told = write_programs(backbone, tmp_path, ["torch_export", "onnx"], reducer)
    assert all(entry["checked"] for entry in told.values())


def check_registered(backbone, name, **options):
    """Compare on noise and on a clip of one grey, in which tokens of one place are equal in all frames."""
    amounts = TokenReduction.of(name, options).build().amounts(backbone)
    reducer = amounts[len(amounts) // 2]
    run = traced(backbone, reducer)
    grey = torch.full_like(clips_for(backbone, 1), 90)
    noise = programs._steady_clips(programs._Logits(backbone, reducer), 3)
    with torch.no_grad():
        for clips in (grey, noise):
            torch.testing.assert_close(run(clips), backbone(clips, reducer=reducer), rtol=0, atol=TOLERANCE)
        assert (backbone(noise, reducer=reducer) - backbone(noise)).abs().max() > 1e-3
    return reducer
