"""Programs that run without Sightline: other batch sizes, a process of their own, whole folders or none."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch.export import Dim

from sightline.backbones import build_backbone
from sightline.export import runtimes as programs
from sightline.export.reading import ExportError
from sightline.export.runtimes import TOLERANCE, check_file, write_programs
from sightline.export.writing import export_model
from sightline.pruning import unpruned_plan
from tests.conftest import DEMO_VARIANTS, TINY_SWIN, randomise

needs_onnxscript = pytest.mark.skipif(
    programs.find_spec("onnxscript") is None, reason="needs onnxscript, which is not here"
)
TINY_VIT = {"frames": 4, "size": 32, "patch": [2, 16, 16], "width": 16, "depth": 2, "heads": 2}
# The families' demo sizes with fewer layers: tracing takes its time per layer.
FEW_LAYERS = {
    "video_swin_demo": {"depths": [2, 2], "heads": [2, 4]},
    "timesformer_demo": {"depth": 2},
    "timesformer_joint_demo": {"depth": 2},
    "mvit_demo": {"depths": [1, 2], "heads": [2, 4]},
    "vit_demo": {"depth": 2},
}


def tiny_vit():
    return randomise(build_backbone("vit_demo", 3, TINY_VIT))


def clips_for(backbone, batch: int):
    spec = backbone.input_spec
    return torch.randint(256, (batch, 3, spec.frames, spec.height, spec.width), dtype=torch.uint8)


def export(backbone, folder, options, kinds=("torch_export",)):
    return export_model(
        backbone, folder, name="vit_demo", options=options, plan=unpruned_plan(), provenance={}, sampling={},
        programs=kinds,
    )  # fmt: skip


def check_family(name: str, options: dict, kinds: list[str], tmp_path) -> None:
    backbone = randomise(build_backbone(name, 5, options))
    removed = [info.index for info in backbone.layers if info.removable][:1]
    backbone = backbone.without(removed)
    clips = clips_for(backbone, 4)
    with torch.no_grad():
        before = backbone(clips)
        told = write_programs(backbone, tmp_path, kinds)
        assert torch.equal(backbone(clips), before), "exporting leaves nothing behind in the model"
        loaded = torch.export.load(tmp_path / "model.pt2").module()
        torch.testing.assert_close(loaded(clips), before, rtol=0, atol=1e-4)
    assert list(told) == kinds
    for entry in told.values():
        assert entry["checked"] is (entry["file"] != "model.onnx" or programs.find_spec("onnxruntime") is not None)
        assert entry.get("largest_difference", 0) <= TOLERANCE
        assert (tmp_path / entry["file"]).stat().st_size > 0


def test_a_program_runs_in_a_process_without_sightline(tmp_path):
    check_family("video_swin_demo", TINY_SWIN, ["torch_export"], tmp_path)


def test_tracing_leaves_nothing_without_data_behind():
    """Shifted windows' masks are kept per geometry; the first to ask for this one is the tracer."""
    backbone = randomise(build_backbone("video_swin_demo", 3, {**TINY_SWIN, "size": 48, "window": [1, 3, 4]}))
    clips = clips_for(backbone, 2)
    traced = programs._traced(programs._Logits(backbone), clips)
    with torch.no_grad():
        logits = backbone(clips)
        assert isinstance(logits.sum().item(), float)
        torch.testing.assert_close(traced.module()(clips), logits, rtol=0, atol=1e-5)


class Pooling(torch.nn.Module):
    """A convolution without bias whose weights are made on the way, as MViT's pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(2, 1, 3, 3, 3))

    def forward(self, clips):
        return F.conv3d(clips, self.weight.repeat(2, 1, 1, 1, 1), stride=(1, 2, 2), padding=1, groups=4)


@needs_onnxscript
def test_a_convolution_without_bias_has_none_in_onnx(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    clips = torch.randn(2, 4, 3, 6, 6)
    program = torch.export.export(Pooling().eval(), (clips,), dynamic_shapes=({0: Dim("batch")},))
    programs._write_onnx(program, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    for some in (clips, clips[:1], torch.randn(3, 4, 3, 6, 6)):
        (found,) = session.run(["logits"], {"clips": some.numpy()})
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(found), program.module()(some), rtol=0, atol=1e-5)


@pytest.mark.slow
@needs_onnxscript
@pytest.mark.parametrize("name", DEMO_VARIANTS)
def test_every_family_has_its_programs(name, tmp_path):
    check_family(name, FEW_LAYERS[name], ["torch_export", "onnx"], tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@needs_onnxscript
@pytest.mark.parametrize("name", ["video_swin_s", "timesformer_base", "mvit_v2_s", "vit_base_videomae"])
def test_every_family_has_its_programs_at_full_size(name, tmp_path):
    check_family(name, {}, ["torch_export", "onnx"], tmp_path)


@needs_onnxscript
def test_onnx_takes_any_batch(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    backbone = tiny_vit()
    told = write_programs(backbone, tmp_path, ["onnx"])
    assert not (tmp_path / "model.pt2").exists()
    assert told["onnx"]["input"] == {"name": "clips", "dtype": "uint8", "shape": ["batch", 3, 4, 32, 32]}
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    for batch in (1, 5):
        clips = clips_for(backbone, batch)
        (logits,) = session.run(None, {"clips": clips.numpy()})
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(logits), backbone(clips), rtol=0, atol=1e-4)


def test_the_description_tells_of_programs_which_are_in_float32(tmp_path):
    backbone = tiny_vit().bfloat16()
    folder = export(backbone, tmp_path / "model", TINY_VIT)
    told = json.loads((folder / "model.json").read_text())["programs"]["torch_export"]
    assert told["file"] == "model.pt2"
    assert told["checked"] is True
    assert told["largest_difference"] <= TOLERANCE
    assert told["output"] == {"name": "logits", "dtype": "float32", "shape": ["batch", 3]}
    assert next(backbone.parameters()).dtype == torch.bfloat16


class Doubled(torch.nn.Module):
    def forward(self, clips):
        return 2 * clips.float().mean(dim=(2, 3, 4))


@pytest.fixture
def program(tmp_path):
    clips = torch.randint(256, (2, 3, 2, 4, 4), dtype=torch.uint8)
    traced = torch.export.export(Doubled(), (clips,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.export.save(traced, tmp_path / "model.pt2")
    return tmp_path / "model.pt2", {"clips.0": clips, "logits.0": Doubled()(clips)}


def test_programs_do_not_tell_where_they_were_made(tmp_path):
    backbone = build_backbone("vit_demo", 3, {"depth": 1}).eval()
    told = write_programs(backbone, tmp_path, ["torch_export", "onnx"])
    assert told
    here = str(Path(programs.__file__).resolve().parents[2]).encode()
    for path in (tmp_path / "model.pt2", tmp_path / "model.onnx"):
        assert here not in path.read_bytes(), path


def test_a_program_that_differs_is_refused(program):
    path, cases = program
    assert check_file(path, cases) == {"checked": True, "largest_difference": 0.0}
    for wrong in (cases["logits.0"] + 2 * TOLERANCE * cases["logits.0"].max(), cases["logits.0"] * torch.nan):
        with pytest.raises(ExportError, match=r"model\.pt2, read back, gives logits that differ"):
            check_file(path, {**cases, "logits.0": wrong})


def test_a_file_that_is_no_program_is_refused(program):
    path, cases = program
    path.write_bytes(b"nothing")
    with pytest.raises(ExportError, match=r"model\.pt2 does not run without Sightline: "):
        check_file(path, cases)


def test_the_checking_process_cannot_import_sightline():
    run = f"runpy.run_path({programs.standalone_check.__file__!r}, run_name='__main__')"
    code = (
        f"import runpy, sys, sightline\nsys.argv = ['check', 'none.pt2', 'none']\ntry: {run}\nexcept Exception: pass\n"
        "import sightline"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "ModuleNotFoundError" in done.stderr


def test_a_missing_runtime_is_told_and_not_hidden(tmp_path, monkeypatch):
    answer = subprocess.CompletedProcess([], programs.standalone_check.MISSING, "", "")
    monkeypatch.setattr(programs.subprocess, "run", lambda *_, **__: answer)
    told = check_file(tmp_path / "model.onnx", {"clips.0": torch.zeros(1)})
    assert told == {"checked": False, "why_unchecked": "onnxruntime is not installed"}


def test_unknown_programs_and_missing_packages_are_said_before_anything_is_written(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="among torch_export, onnx, got 'tflite'"):
        export(tiny_vit(), tmp_path / "model", TINY_VIT, ["tflite"])
    monkeypatch.setattr(programs, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="needs the package onnxscript"):
        export(tiny_vit(), tmp_path / "model", TINY_VIT, ["onnx"])
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_program_leaves_no_folder(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(torch.export, "save", fail)
    with pytest.raises(KeyboardInterrupt):
        export(tiny_vit(), tmp_path / "model", TINY_VIT)
    assert list(tmp_path.iterdir()) == []


DOCS = Path(programs.__file__).resolve().parents[2] / "docs" / "exports.md"
SNIPPETS = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("kind", ["torch_export", "onnx"])
def test_snippets_of_the_documentation_run_without_sightline(kind, tmp_path, monkeypatch):
    if kind == "onnx":
        pytest.importorskip("onnxscript")
        pytest.importorskip("onnxruntime")
    file = programs.FILES[kind]
    (snippet,) = [text for text in SNIPPETS if file in text]
    assert "sightline" not in snippet
    backbone = tiny_vit()
    export(backbone, tmp_path / "model", TINY_VIT, [kind])
    monkeypatch.chdir(tmp_path / "model")
    clips = clips_for(backbone, 3)
    found = {"clips": clips.numpy()}
    exec(snippet, found)
    with torch.no_grad():
        expected = backbone(clips).softmax(dim=-1)
    torch.testing.assert_close(torch.as_tensor(found["probabilities"]), expected, rtol=0, atol=1e-4)
