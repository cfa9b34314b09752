"""The choice of kernels for linear layers, kept with a run, so that its later commands on the same machine go by it.

    kernels.json   {"machines": [{"machine": {...}, "linear": {"4194304": {"kernel": "onednn", ...}, ...}}, ...]}

There is an entry for every machine, number of threads and PyTorch that the run was worked on with. An entry of another
one is never used: there the kernels are measured anew, and an entry is added.
"""

from __future__ import annotations

import json
import logging
import os
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from sightline.backbones.parts.linear_kernels import (
    LinearKernels,
    Measured,
    current_kernels,
    is_plain,
    use_kernels,
)
from sightline.run.atomic import write_json
from sightline.run.ranks import Ranks

log = logging.getLogger(__name__)

# Begin the names of environment variables that change what kernels do.
_SETTINGS = ("ATEN_CPU_CAPABILITY", "DNNL_", "MKL_", "ONEDNN_")


def settle_kernels(path: Path, ranks: Ranks | None = None) -> None:
    """Let this process run linear layers as stored for this machine; where nothing is stored, measure and store it.

    The first of the processes that share a job measures, and the others on the same kind of machine go by what it
    wrote. All of them must call this. Does nothing where the environment leaves everything to PyTorch's own kernels.

    Args:
        path: A run's file, `RunFolder.kernels`.
        ranks: The processes that share the job.

    Raises:
        RuntimeError: If another process failed.
    """
    if is_plain():
        return

    def store() -> None:
        if stored_kernels(path) is None:
            _add(path, current_kernels())

    ranks = ranks or Ranks()
    ranks.together(store, only_first=True)
    found = stored_kernels(path)
    if found is not None:  # None on a machine unlike the first process's: what this process measures by itself holds
        use_kernels(found)


def machine() -> dict[str, Any]:
    """Return what a choice holds for: kind of processor, what limits its kernels, number of threads, PyTorch."""
    return {
        "processor": _processor(),
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "settings": {name: value for name, value in sorted(os.environ.items()) if name.startswith(_SETTINGS)},
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def _processor() -> str:
    """Return what the processor calls itself. It only tells machines apart: no name is known to any choice."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return platform.processor()
    known = dict(line.split(":", 1) for line in lines[: lines.index("") if "" in lines else None] if ":" in line)
    fields = {name.strip(): value.strip() for name, value in known.items()}
    wanted = ("model name", "cpu family", "model", "stepping")
    return " ".join(fields[name] for name in wanted if name in fields) or platform.processor()


def stored_kernels(path: Path) -> LinearKernels | None:
    """Read the choice that is stored for this machine; None where there is none."""
    for entry in _entries(path):
        if entry["machine"] == machine():
            return _kernels_of(entry["linear"])
    return None


def _entries(path: Path) -> list[dict[str, Any]]:
    """Read all entries; a file that is damaged has none, since what it said can be measured again."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["machines"]
        for entry in entries:
            _kernels_of(entry["linear"])
            entry["machine"]["torch"]
        return list(entries)
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        log.warning(f"{path} is not a record of kernels ({error!r}); they are measured again.")
        return []


def _kernels_of(content: dict[str, Any]) -> LinearKernels:
    return LinearKernels({int(size): Measured(**content[size]) for size in sorted(content, key=int)})


def _add(path: Path, kernels: LinearKernels) -> None:
    linear = {str(size): asdict(measured) for size, measured in kernels.sizes.items()}
    write_json(path, {"machines": [*_entries(path), {"machine": machine(), "linear": linear}]})
