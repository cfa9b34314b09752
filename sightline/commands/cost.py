"""``cost``: what a backbone costs, whole, with layers removed and with fewer tokens."""

from __future__ import annotations

import json
from typing import Any, Literal

from jsonargparse import ArgumentParser
from jsonargparse.typing import NonNegativeInt, PositiveInt

from sightline.commands.options import take_nested, usage_name

PRECISIONS = {"32": "float32", "bf16": "bfloat16", "16": "float16"}


def build_parser(name: str) -> ArgumentParser:
    """Return the parser of the command; options of a token reduction are taken out before."""
    parser = ArgumentParser(
        prog=usage_name(name),
        description="Count parameters and multiply-adds of a backbone, whole and with layers removed or fewer tokens.",
    )
    add = parser.add_argument
    add("--backbone", type=str, required=True, help="a registered backbone, e.g. video_swin_s")
    add("--num_classes", type=PositiveInt, default=400, help="number of classes")
    add("--remove", type=int, nargs="*", default=[], metavar="LAYER", help="original indices of layers to remove")
    add(
        "--tokens",
        type=str | None,
        default=None,
        help="a token reduction, counted and timed on a clip of noise; with options: --tokens random --tokens.kept 0.7",
    )
    add("--frames", type=PositiveInt | None, default=None, help="frames per clip; the backbone's own if not given")
    add("--size", type=PositiveInt | None, default=None, help="height and width in pixels; likewise")
    add("--options", type=dict[str, Any], default={}, help="more options of the backbone, as JSON")
    add("--json", action="store_true", help="print one JSON object instead of a table")
    add("--latency", action="store_true", help="also measure latency at batch 1, clips/s and peak memory at --batch")
    add("--batch", type=PositiveInt, default=1, help="clips per batch for clips per second and peak memory")
    add("--repeats", type=PositiveInt, default=10, help="timed passes of each model")
    add("--warmup", type=NonNegativeInt, default=3, help="passes of each model before")
    add("--device", type=str, default="cpu", help="where to measure latency, e.g. cpu or cuda")
    add("--precision", type=Literal[tuple(PRECISIONS)], default="32", help="precision to measure latency in")
    add("--compiled", action="store_true", help="measure latency of what torch.compile makes of the models")
    return parser


def run(name: str, arguments: list[str]) -> int:
    """Run the command; return its exit code."""
    token_options, others = take_nested("tokens", arguments)
    args = build_parser(name).parse_args(others)
    if token_options and args.tokens is None:
        raise ValueError(
            f"--tokens.{next(iter(token_options))} is an option of a token reduction: name one with --tokens NAME."
        )

    from rich.console import Console  # only now, and torch with what follows: --help needs neither

    from sightline.export import cost
    from sightline.tokens import TokenReduction

    options = dict(args.options)
    options.update({key: int(args[key]) for key in ("frames", "size") if args[key] is not None})
    tokens = None if args.tokens is None else TokenReduction.from_text(args.tokens, token_options)
    models = cost.build_models(args.backbone, int(args.num_classes), options, args.remove, tokens)
    rows = {title: cost.describe(model) for title, model in models.items()}
    if args.latency:
        how = cost.Timing(args.batch, args.repeats, args.warmup, args.compiled)
        for title, timing in cost.time_models(models, args.device, PRECISIONS[args.precision], how).items():
            rows[title].update(timing)
    cost.add_changes(rows)
    if args.json:
        print(json.dumps(rows[list(rows)[-1]]))
    else:
        clips = models["full"].backbone.input_spec
        Console().print(cost.as_table(rows, f"{args.backbone}, {clips}, {args.num_classes} classes"))
    return 0
