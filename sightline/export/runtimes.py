"""A model as a program that runs without Sightline: ``model.pt2`` (torch.export) and ``model.onnx``.

A program takes uint8 clips (B, 3, T, H, W) of any batch size, normalises them itself and gives logits (B, classes), in
float32 whatever type the model has. It is checked at export against the model, and its file once more after it was
read back by a process in which Sightline cannot be imported.

Of a model that runs with fewer tokens, the program computes which of them stay. Its shapes are fixed, so that
every clip must keep equally many, and dropped cells are filled where a family needs whole grids (``attention`` of a
`Reducer`), with the same result.
"""

from __future__ import annotations

import copy
import io
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from sightline.backbones import Backbone, Reducer
from sightline.export import standalone_check
from sightline.export.counting import count_cost
from sightline.export.onnx_operators import OPERATORS
from sightline.export.reading import ExportError, sha256
from sightline.tokens.registry import REDUCERS
from sightline.tokens.spec import TokenReduction

FILES = {"torch_export": "model.pt2", "onnx": "model.onnx"}
# Of logits, relative to the largest where that is above 1: other kernels add in another order.
TOLERANCE = 1e-4
_OPSET = 18
_BATCHES = (1, 3)  # neither is the size that is traced with
_TRACED_BATCH = 2  # 1 would be taken for a constant
# By how many grey levels pixels are moved to see what hangs on rounding: some times as far as the rounding of float32
# moves tokens. Many tokens lie near a tie in large models, where a wider step would leave hardly any clip.
_MOVED = 3e-4
_MOST_TRIED = 24  # clips, until enough are found of which nothing hangs on rounding


class _Logits(nn.Module):
    """A backbone, and the token reduction that it runs with, with its one input and one output."""

    def __init__(self, backbone: Backbone, reducer: Reducer | None = None) -> None:
        super().__init__()
        self.backbone = backbone
        self.reducer = None if reducer is None else replace(reducer, attention="filled")

    def forward(self, clips: Tensor) -> Tensor:
        return self.backbone(clips, reducer=self.reducer)


def check_programs(programs: Sequence[str]) -> None:
    """Raise ValueError where a kind of program is unknown or cannot be made here."""
    unknown = [kind for kind in programs if kind not in FILES]
    if unknown:
        raise ValueError(f"programs must be among {', '.join(FILES)}, got {unknown[0]!r}.")
    if "onnx" in programs and find_spec("onnxscript") is None:
        raise ValueError("programs has onnx, which needs the package onnxscript. Install it, or leave onnx out.")


def check_tokens_of_programs(programs: Sequence[str], tokens: TokenReduction | None) -> None:
    """Raise ValueError where programs are asked for of a token reduction that no program can hold."""
    reason = tokens.build().why_no_program if programs and tokens is not None else ""
    if tokens is not None and reason:
        able = [name for name in REDUCERS if not TokenReduction.of(name).build().why_no_program]
        instead = f", or use {' or '.join(able)}" if able else ""
        raise ValueError(
            f"No program ({', '.join(programs)}) can hold {tokens.label}: {reason}. Leave programs out{instead}."
        )


def write_programs(
    backbone: Backbone, folder: Path, programs: Sequence[str], reducer: Reducer | None = None
) -> dict[str, dict[str, Any]]:
    """Write a model's programs into a folder and check them.

    Args:
        backbone: The model; stays as it is.
        folder: Where the files go.
        programs: ``torch_export``, ``onnx`` or both; nothing happens for none.
        reducer: The token reduction that the programs are to run with.

    Returns:
        What ``model.json`` says of each: its file and hash, input and output, how the check went, and with a reducer
        how the program attends and its multiply-adds.

    Raises:
        ValueError: If a kind of program is unknown or cannot be made here.
        ExportError: If the model cannot be made a program, or a program gives other logits than the model.
    """
    check_programs(programs)
    if not programs:
        return {}
    model = _Logits(copy.deepcopy(backbone).cpu().float(), reducer).eval().requires_grad_(False)
    cases = _cases(model, backbone)
    program = _traced(model, _example(backbone, _TRACED_BATCH))
    _check_traced(program, cases)
    how: dict[str, Any] = {}
    if model.reducer is not None:
        how = {"attention": model.reducer.attention, "macs": count_cost(model.backbone, model.reducer).macs}
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
            **how,
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
    clips = _example(backbone, sum(_BATCHES), seed=1) if model.reducer is None else _steady_clips(model, sum(_BATCHES))
    with torch.no_grad():
        for number, some in enumerate(clips.split(_BATCHES)):
            cases |= {f"clips.{number}": some.contiguous(), f"logits.{number}": model(some).contiguous()}
    return cases


@torch.no_grad()
def _steady_clips(model: _Logits, count: int) -> Tensor:
    """Return clips of which the tokens that stay do not hang on rounding, uint8 (count, 3, T, H, W).

    Where two tokens score the same but for rounding, another runtime may rightly keep the other one. Such clips tell
    nothing of a program: they are known by logits that jump when pixels are moved a little.

    Raises:
        ExportError: If there is none among those tried.
    """
    found: list[Tensor] = []
    for seed in range(_MOST_TRIED):
        clip = _example(model.backbone, 1, seed)
        noise = torch.randn(2, *clip.shape[1:], generator=torch.Generator().manual_seed(seed))
        # To both sides: what is nearly a tie is decided otherwise on one of them.
        wanted, moved = model(clip), (clip + _MOVED * torch.cat((noise, -noise))) / 255
        found += [clip] if all(_difference(model(some), wanted) <= TOLERANCE for some in moved.split(1)) else []
        if len(found) == count:
            break
    if not found:
        raise ExportError(
            f"Which tokens stay hangs on rounding in all of {_MOST_TRIED} clips of noise, so that no program can be "
            "checked against the model. Leave programs out, or use another token reduction."
        )
    return torch.cat(found * count)[:count]


def _difference(came: Tensor, wanted: Tensor) -> float:
    """Return the largest difference of logits, relative to the largest of them where that is above 1."""
    return (came - wanted).abs().max().item() / max(1.0, wanted.abs().max().item())


def _example(backbone: Backbone, batch: int, seed: int = 0) -> Tensor:
    spec = backbone.input_spec
    shape = (batch, 3, spec.frames, spec.height, spec.width)
    return torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def _traced(model: _Logits, clips: Tensor) -> ExportedProgram:
    try:
        with torch.no_grad():
            program = torch.export.export(model, (clips,), dynamic_shapes=({0: Dim("batch")},))
    except Exception as error:
        if model.reducer is None:
            raise
        # Whoever wrote the reducer needs all of it; whoever runs it needs one line.
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ExportError(
            f"No program can hold {model.reducer}, whose shapes or numbers it would have to fix: {reason} Leave "
            "programs out, or use another token reduction."
        ) from error
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
        _check_difference(_difference(came, wanted), "The traced program")


def _check_difference(difference: float, who: str) -> None:
    if not difference <= TOLERANCE:  # also where it is NaN
        raise ExportError(
            f"{who} gives logits that differ from the model's by {difference:.1e}, expected at most {TOLERANCE:g}. "
            "Export without this program, and report the backbone and the versions of PyTorch and onnxscript."
        )


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
        custom_translation_table=OPERATORS,
    )
    assert converted is not None
    converted.save(path, external_data=False)
