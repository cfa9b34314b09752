"""Compare the speed of Sightline's forward pass with the reference library's, on the same weights and clips.

    python benchmarks/forward.py                       # every family, one clip, one CPU thread
    python benchmarks/forward.py --backbone mvit_v2_s --batch 2 --repeats 10
    python benchmarks/forward.py --device cuda --batch 8 --precision bf16

The two models take turns within every repeat, and the ratio of each turn is what counts: what else the machine does
then strikes both. On the CPU the process' own time is taken, on one thread; on a GPU, CUDA events around each pass.
The reference is the library's model as it comes: torchvision for Video Swin and MViTv2, transformers (with its default
attention) for TimeSformer and VideoMAE's ViT. Its random weights go through Sightline's checkpoint reader.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.result_files import add_results_option, write_result  # noqa: E402
from sightline.backbones import Backbone, build_backbone  # noqa: E402
from sightline.checkpoints.loading import load_weights  # noqa: E402

CLASSES = 400
FRAMES = 16
SIZE = 224


def torchvision_reference(name: str) -> tuple[nn.Module, str]:
    from torchvision.models import video

    return getattr(video, name)(weights=None), "torchvision"


def transformers_reference(name: str) -> tuple[nn.Module, str]:
    import transformers

    config = getattr(transformers, f"{name}Config")(num_frames=FRAMES, image_size=SIZE, num_labels=CLASSES)
    config.qkv_bias = True
    if name == "VideoMAE":
        config.use_mean_pooling = True
    model = getattr(transformers, f"{name}ForVideoClassification")(config)
    return model, f"transformers, {model.config._attn_implementation} attention"


REFERENCES: dict[str, Callable[[], tuple[nn.Module, str]]] = {
    "video_swin_s": lambda: torchvision_reference("swin3d_s"),
    "mvit_v2_s": lambda: torchvision_reference("mvit_v2_s"),
    "timesformer_base": lambda: transformers_reference("Timesformer"),
    "vit_base_videomae": lambda: transformers_reference("VideoMAE"),
}


@torch.no_grad()
def randomise(model: nn.Module) -> None:
    """Give every parameter values at which it matters to the logits, so that equal logits mean equal models."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        scale = 0.1 if parameter.dim() == 1 else parameter[0].numel() ** -0.5
        values = torch.randn(parameter.shape, generator=generator) * scale
        parameter.copy_(1 + values if "norm" in name and name.endswith("weight") else values)


def save_reference(model: nn.Module, folder: Path) -> Path:
    """Write the reference's weights as its users find them."""
    if (save := getattr(model, "save_pretrained", None)) is not None:
        save(folder)
        return folder
    torch.save(model.state_dict(), folder / "reference.pth")
    return folder / "reference.pth"


def pair(name: str) -> tuple[Backbone, nn.Module, str]:
    """Return our backbone and the reference, in evaluation mode, with the same weights."""
    reference, library = REFERENCES[name]()
    randomise(reference)
    ours = build_backbone(name, CLASSES, {"frames": FRAMES, "size": SIZE})
    with tempfile.TemporaryDirectory() as folder:
        load_weights(ours, save_reference(reference, Path(folder)))
    return ours.eval(), reference.eval(), library


def as_reference_takes_it(library: str, clips: Tensor, ours: Backbone) -> Tensor:
    """Normalise clips (B, 3, T, H, W), and order them as the reference wants."""
    mean, std = (torch.tensor(v, device=clips.device).view(1, 3, 1, 1, 1) for v in (ours.record.mean, ours.record.std))
    pixels = (clips - mean) / std
    return pixels if library == "torchvision" else pixels.transpose(1, 2)


def seconds(run: Callable[[], object], device: torch.device) -> float:
    """Time one pass: CPU time of the process, or time between CUDA events."""
    if device.type == "cpu":
        start = time.process_time()
        run()
        return time.process_time() - start
    before, after = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    before.record()
    run()
    after.record()
    after.synchronize()
    return before.elapsed_time(after) / 1000


@torch.no_grad()
def compare(name: str, args: argparse.Namespace) -> dict[str, object]:
    """Return one row: seconds per clip of both, the ratio and its spread, and the largest difference of the logits."""
    device = torch.device(args.device)
    ours, reference, library = pair(name)
    ours, reference = ours.to(device), reference.to(device)
    generator = torch.Generator().manual_seed(1)
    clips = torch.rand(args.batch, 3, FRAMES, SIZE, SIZE, generator=generator).to(device)
    theirs = as_reference_takes_it(library, clips, ours)

    def run_ours() -> Tensor:
        return ours(clips)

    def run_theirs() -> Tensor:
        out = reference(theirs)
        return out if isinstance(out, Tensor) else out.logits

    autocast = torch.autocast(device.type, torch.bfloat16) if args.precision == "bf16" else contextlib.nullcontext()
    with autocast:
        difference = (run_ours() - run_theirs()).abs().max().item()
        scale = run_theirs().abs().max().item()
        for _ in range(args.warmup):
            run_ours()
            run_theirs()
        times = [(seconds(run_ours, device), seconds(run_theirs, device)) for _ in range(args.repeats)]
    ratios = [t / o for o, t in times]
    return {
        "backbone": name,
        "reference": library,
        "batch": args.batch,
        "s_per_clip": round(statistics.median(o for o, _ in times) / args.batch, 4),
        "reference_s_per_clip": round(statistics.median(t for _, t in times) / args.batch, 4),
        "times_faster": round(statistics.median(ratios), 2),
        "lowest": round(min(ratios), 2),
        "highest": round(max(ratios), 2),
        "largest_difference": difference,
        "largest_logit": round(scale, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", nargs="+", choices=list(REFERENCES), default=list(REFERENCES))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=["32", "bf16"], default="32")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=1)
    add_results_option(parser)
    args = parser.parse_args()
    if args.device == "cpu":
        torch.set_num_threads(1)
    rows = []
    for name in args.backbone:
        rows.append(compare(name, args))
        print(json.dumps(rows[-1]), flush=True)
        if args.results is not None:
            write_result(args.results, rows)


if __name__ == "__main__":
    main()
