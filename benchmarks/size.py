"""Size of the full-size backbones beside what was published, and what removing layers saves.

    python benchmarks/size.py --results docs/results/size.json

Counted, not measured, but for one model: Video Swin-S without six layers, timed in turns with the whole one.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.result_files import add_results_option, write_result  # noqa: E402
from sightline.export.cost import Timing, build_models, describe, time_models  # noqa: E402

# Backbone, its classes, and what was published (or counted by fvcore on the reference implementation), in M and G.
PUBLISHED = (
    ("timesformer_base", 20, "121.28", "392.51"),
    ("video_swin_s", 20, "49.5", "83.06"),
    ("mvit_v2_s", 101, "34.308", "64.46"),
    ("vit_base_videomae", 400, "", "180"),
)
# Layers that the thesis removes (101 classes), and its figure, where it has one: percent of the parameters.
REMOVED = (
    ("video_swin_s", (7,), "-2.4 %"),
    ("video_swin_s", (0,), "-3.6 %"),
    ("video_swin_s", (0, 1), "-4.8 %"),
    ("video_swin_s", (7, 9, 15, 17, 19, 21), ""),
    ("timesformer_base", (10,), ""),
    ("timesformer_base", (8, 10), ""),
)
TIMED = (7, 9, 15, 17, 19, 21)


def counted(backbone: str, classes: int, removed: tuple[int, ...] = ()) -> dict[str, Any]:
    """Count a backbone for clips of 16x224x224, without some layers where any are given; changes in percent."""
    models = build_models(backbone, classes, {"frames": 16, "size": 224}, removed)
    full, *less = [describe(model) for model in models.values()]
    if not less:
        return {
            "backbone": backbone,
            "classes": classes,
            "params_m": full["params"] / 1e6,
            "macs_g": full["macs"] / 1e9,
        }
    change = {f"{key}_change_pct": 100 * (less[0][key] / full[key] - 1) for key in ("params", "macs")}
    return {"backbone": backbone, "layers": " ".join(map(str, removed)), **change}


def timed(repeats: int) -> dict[str, float]:
    """Time Video Swin-S without six layers beside the whole one, at batch 1."""
    models = build_models("video_swin_s", 101, {"frames": 16, "size": 224}, TIMED)
    full, less = time_models(models, "cpu", "float32", Timing(repeats=repeats)).values()
    return {
        "full_ms": full["latency_ms_b1"],
        "full_iqr_ms": full["latency_iqr_ms_b1"],
        "pruned_ms": less["latency_ms_b1"],
        "pruned_iqr_ms": less["latency_iqr_ms_b1"],
        "latency_change_pct": 100 * (less["latency_ms_b1"] / full["latency_ms_b1"] - 1),
        "memory_change_pct": 100 * (less["peak_memory_bytes"] / full["peak_memory_bytes"] - 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15, help="passes of each timed model")
    add_results_option(parser)
    args = parser.parse_args()
    sizes = pd.DataFrame(
        {**counted(backbone, classes), "published_params_m": params, "published_macs_g": macs}
        for backbone, classes, params, macs in PUBLISHED
    )
    removed = pd.DataFrame(
        {**counted(backbone, 101, layers), "published_params": published} for backbone, layers, published in REMOVED
    )
    times = timed(args.repeats)
    print(sizes.to_string(index=False), removed.to_string(index=False), times, sep="\n\n")
    if args.results is not None:
        write_result(args.results, sizes, removed=removed, timed=times)


if __name__ == "__main__":
    main()
