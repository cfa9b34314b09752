"""A model as a program that runs without Sightline: ``model.pt2`` (torch.export) and ``model.onnx``.

A program takes uint8 clips (B, 3, T, H, W) of any batch size, normalises them itself and gives logits (B, classes), in
float32 whatever type the model has. It is checked at export against the model, and its file once more after it was
read back by a process in which Sightline cannot be imported.
"""

from __future__ import annotations

import copy
import io
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from sightline.backbones import Backbone
from sightline.export import standalone_check
from sightline.export.reading import ExportError, sha256

FILES = {"torch_export": "model.pt2", "onnx": "model.onnx"}
# Of logits, relative to the largest where that is above 1: other kernels add in another order.
TOLERANCE = 1e-4
_OPSET = 18
_BATCHES = (1, 3)  # neither is the size that is traced with
_TRACED_BATCH = 2  # 1 would be taken for a constant


class _Logits(nn.Module):
    """A backbone with its one input and one output."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, clips: Tensor) -> Tensor:
        return self.backbone(clips)


def check_programs(programs: Sequence[str]) -> None:
    """Raise ValueError where a kind of program is unknown or cannot be made here."""
    unknown = [kind for kind in programs if kind not in FILES]
    if unknown:
        raise ValueError(f"programs must be among {', '.join(FILES)}, got {unknown[0]!r}.")
    if "onnx" in programs and find_spec("onnxscript") is None:
        raise ValueError("programs has onnx, which needs the package onnxscript. Install it, or leave onnx out.")


def write_programs(backbone: Backbone, folder: Path, programs: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Write a model's programs into a folder and check them.

    Args:
        backbone: The model; stays as it is.
        folder: Where the files go.
        programs: ``torch_export``, ``onnx`` or both; nothing happens for none.

    Returns:
        What ``model.json`` says of each: its file and hash, input and output, and how the check went.

    Raises:
        ValueError: If a kind of program is unknown or cannot be made here.
        ExportError: If a program gives other logits than the model.
    """
    check_programs(programs)
    if not programs:
        return {}
    model = _Logits(copy.deepcopy(backbone).cpu().float()).eval().requires_grad_(False)
    cases = _cases(model, backbone)
    program = _traced(model, _example(backbone, _TRACED_BATCH))
    _check_traced(program, cases)
    told: dict[str, dict[str, Any]] = {}
    for kind in dict.fromkeys(programs):
        path = folder / FILES[kind]
        if kind == "onnx":
            _write_onnx(program, path)
        else:
            content = io.BytesIO()  # in memory first, see `sightline.checkpoints.files.file_content`
            torch.export.save(program, content)
            path.write_bytes(content.getbuffer())
        told[kind] = {
            "file": path.name,
            "sha256": sha256(path.read_bytes()),
            "input": {"name": "clips", "dtype": "uint8", "shape": ["batch", *cases["clips.0"].shape[1:]]},
            "output": {"name": "logits", "dtype": "float32", "shape": ["batch", cases["logits.0"].shape[1]]},
            **check_file(path, cases),
        }
    return told


def check_file(path: Path, cases: dict[str, Tensor]) -> dict[str, Any]:
    """Compare a program's file with expected logits, in a process without Sightline.

    Returns:
        ``checked`` (whether it could be run) and ``largest_difference``, or ``why_unchecked``.

    Raises:
        ExportError: If it cannot be read back or gives other logits.
    """
    with tempfile.TemporaryDirectory() as place:
        given = Path(place) / "cases.safetensors"
        given.write_bytes(safetensors.torch.save(cases))
        # -I: neither this folder nor PYTHONPATH is on the process's path.
        command = [sys.executable, "-I", standalone_check.__file__, str(path), str(given)]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == standalone_check.MISSING:
        return {"checked": False, "why_unchecked": "onnxruntime is not installed"}
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ExportError(f"{path.name} does not run without Sightline: {last}")
    difference = float(done.stdout.strip().splitlines()[-1])
    _check_difference(difference, f"{path.name}, read back,")
    return {"checked": True, "largest_difference": difference}


def _cases(model: _Logits, backbone: Backbone) -> dict[str, Tensor]:
    """Return clips of several batch sizes with the model's logits, as the check takes them."""
    cases: dict[str, Tensor] = {}
    with torch.no_grad():
        for number, batch in enumerate(_BATCHES):
            clips = _example(backbone, batch)
            cases |= {f"clips.{number}": clips, f"logits.{number}": model(clips).contiguous()}
    return cases


def _example(backbone: Backbone, batch: int) -> Tensor:
    spec = backbone.input_spec
    shape = (batch, 3, spec.frames, spec.height, spec.width)
    return torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(batch))


def _traced(model: _Logits, clips: Tensor) -> ExportedProgram:
    with torch.no_grad():
        program = torch.export.export(model, (clips,), dynamic_shapes=({0: Dim("batch")},))
    for node in program.graph.nodes:
        # Where each line of code lies on this machine is nobody's business who gets the file.
        node.meta.pop("stack_trace", None)
    return program


def _check_traced(program: ExportedProgram, cases: dict[str, Tensor]) -> None:
    run = program.module()
    for number in range(len(_BATCHES)):
        wanted = cases[f"logits.{number}"]
        with torch.no_grad():
            came = run(cases[f"clips.{number}"])
        difference = (came - wanted).abs().max().item() / max(1.0, wanted.abs().max().item())
        _check_difference(difference, "The traced program")


def _check_difference(difference: float, who: str) -> None:
    if not difference <= TOLERANCE:  # also where it is NaN
        raise ExportError(
            f"{who} gives logits that differ from the model's by {difference:.1e}, expected at most {TOLERANCE:g}. "
            "Export without this program, and report the backbone and the versions of PyTorch and onnxscript."
        )


def _onnx_conv3d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Sequence[int] = (1, 1, 1),
    padding: Sequence[int] = (0, 0, 0),
    dilation: Sequence[int] = (1, 1, 1),
    groups: int = 1,
) -> Any:
    """Translate aten::conv3d, whose arguments these are, without a bias where it has none.

    onnxscript 0.7.2 makes one up then, of a wrong shape, which runtimes refuse.
    """
    from onnxscript import opset18

    inputs = (input, weight) if bias is None else (input, weight, bias)
    pads = [*padding, *padding]
    return opset18.Conv(*inputs, strides=[*stride], pads=pads, dilations=[*dilation], group=groups)


def _write_onnx(program: ExportedProgram, path: Path) -> None:
    # Not optimised here: it takes longer than all else, and runtimes fold and fuse for their device when they load.
    converted = torch.onnx.export(
        program,
        dynamo=True,
        optimize=False,
        verbose=False,
        opset_version=_OPSET,
        input_names=["clips"],
        output_names=["logits"],
        dynamic_shapes=({0: Dim("batch")},),
        custom_translation_table={torch.ops.aten.conv3d.default: _onnx_conv3d},
    )
    assert converted is not None
    converted.save(path, external_data=False)
