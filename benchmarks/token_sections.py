"""Tables of the pages on token reductions, see `benchmarks.write_results`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.result_files import Records
from benchmarks.sections import Section, side_by_side


def _tokens_beside(content: dict[str, Any], table: str, *by: str) -> Records:
    """Put the token reductions of one model at one share into one row; what keeps all tokens is no row of its own."""
    rows = [row for row in content[table] if row["method"] != "all"]
    values = ("top1", "vs_random", "vs_random_low", "vs_random_high")
    return side_by_side(rows, lambda row: row["method"], *values, by=("backbone", *by))


def _with_all_tokens(content: dict[str, Any]) -> Records:
    dense = {row["backbone"]: row for row in content["rows"] if row["method"] == "all"}
    rows = _tokens_beside(content, "rows", "kept_asked_pct")
    return [{**row, "all top1": dense[row["backbone"]]["top1"]} for row in rows]


def _by_movement(content: dict[str, Any]) -> Records:
    rows = _tokens_beside(content, "by_movement", "kind", "kept_asked_pct")
    return [row for row in rows if row["kept_asked_pct"] == MOVEMENT_AT]


def _columns(form: str, methods: Mapping[str, str]) -> dict[str, str]:
    """Return a column for each method; METHOD in the format is its name in the file."""
    return {heading: form.replace("METHOD", name) for heading, name in methods.items()}


def _token_ablations(content: dict[str, Any]) -> Records:
    """Tell of every trajectory sum how high it could be: the number of earlier frames, 7 in the paper."""
    return [{**row, "earlier": content["grid"][0] - 1} for row in content["rows"]]


def _policies_beside(content: dict[str, Any]) -> Records:
    """Put what was tested at one share, untuned or tuned, into one row."""
    against = [f"vs_{control}{end}" for control in ("random", "temporal_difference") for end in ("", "_low", "_high")]
    rows = [{**row, "model": TUNED if row["tuned"] else "as it is"} for row in content["rows"] if row["kept"] < 1]
    return side_by_side(rows, lambda row: row["method"], "top1", *against, by=("tuned", "kept"))


def _by_views(content: dict[str, Any]) -> Records:
    """Return errors in one and in three crops, untuned, as the paper's table of video has them."""
    rows = [row for row in content["rows"] if not row["tuned"]]
    return [{**row, "clip1": 100 - row["top1"], "video1": 100 - row["video1"]} for row in rows]


def _by_size(content: dict[str, Any]) -> Records:
    """Put all shares of one method and resolution into one row."""
    dense = {row["size"]: row["top1"] for row in content["sizes"] if row["kept"] == 1}
    rows = [row for row in content["sizes"] if row["kept"] < 1]
    beside = side_by_side(rows, lambda row: f"kept {row['kept']:.0%}", "top1", by=("size", "method"))
    return [{**row, "dense": dense[row["size"]]} for row in beside]


TUNED = "tuned for it"
MOVEMENT_AT = 70
"""Share of kept tokens, in percent, at which kinds of clips are told apart."""
RIVALS = {
    "STA": "sta", "random at STA's places": "random at=places", "grid": "grid",
    "temporal difference": "temporal_difference", "attention": "attention", "RLT": "rlt",
    "RLT, fixed share": "rlt fixed=share", "ToMe": "tome",
}  # fmt: skip
"""Token reductions that are compared with random dropping: heading -> name in the file."""
POLICIES = {
    "random": "random", "temporal difference": "temporal_difference", "attention": "attention", "STA": "sta",
    "one map for all clips": "one map", "IA-RED²": "ia_red2", "with motion": "ia_red2 motion",
}  # fmt: skip
"""What is compared with IA-RED²: heading -> name in the file."""
AGAINST_RANDOM = "{METHOD vs_random:+.1f} ({METHOD vs_random_low:.1f} to {METHOD vs_random_high:.1f})"
TOKEN_SECTIONS = {
    "token_methods": Section(
        {
            "model": "{backbone}", "kept": "{kept_asked_pct:.0f} %", "all tokens": "{all top1:.1f}",
            **_columns("{METHOD top1:.1f}", {"random": "random", **RIVALS}),
        },
        _with_all_tokens,
    ),
    "token_methods_against_random": Section(
        {"model": "{backbone}", "kept": "{kept_asked_pct:.0f} %", **_columns(AGAINST_RANDOM, RIVALS)},
        _with_all_tokens,
    ),
    "token_methods_by_macs": Section(
        {
            "model": "{backbone}", "multiply-adds": "{macs_pct:.0f} %", "random": "{random top1:.1f}",
            **_columns(AGAINST_RANDOM, RIVALS),
        },
        lambda content: _tokens_beside(content, "by_macs", "macs_pct"),
    ),
    "token_methods_by_movement": Section(
        {
            "model": "{backbone}", "clips": "{kind}", "number": "{clips}", "random": "{random top1:.1f}",
            **_columns(AGAINST_RANDOM, RIVALS),
        },
        _by_movement,
    ),
    "ia_red2": Section(
        {"kept": "{kept:.0%}", "model": "{model}", **_columns("{METHOD top1:.1f}", POLICIES)}, _policies_beside
    ),
    "ia_red2_differences": Section(
        {
            "kept": "{kept:.0%}", "model": "{model}",
            **{
                f"{heading} - {control.replace('_', ' ')}": (
                    AGAINST_RANDOM.replace("METHOD", name).replace("random", control)
                )
                for heading, name in (("IA-RED²", "ia_red2"), ("with motion", "ia_red2 motion"))
                for control in ("random", "temporal_difference")
            },
        },
        _policies_beside,
    ),
    "ia_red2_views": Section(
        {
            "method": "{method}", "kept": "{kept:.0%}", "clip-1 error, %": "{clip1:.1f}",
            "video-1 error, %": "{video1:.1f}", "clips/s": "{clips_per_s:.0f}",
        },
        _by_views,
        timed=True,
    ),
    "ia_red2_sizes": Section(
        {
            "pixels": "{size}", "tokens": "{tokens}", "method": "{method}", "all tokens": "{dense:.1f}",
            **{f"kept {share}": f"{{kept {share} top1:.1f}}" for share in ("70%", "50%", "30%")},
        },
        _by_size,
    ),
    "tokens_speed": Section(
        {
            "backbone": "{backbone}", "frames": "{frames}", "clips": "{clips}", "batch": "{batch}",
            "tokens": "{tokens}", "share of multiply-adds": "{share_of_macs:.2f}",
            "share of CPU time (range)": "{share_of_time:.2f} ({lowest:.2f}-{highest:.2f})", "limit": "{limit:.2f}",
        },
        timed=True,
    ),
    "token_ablations": Section(
        {
            "table": "{table}", "row": "{row}", "kept": "{kept_pct:.1f} %", "top-1 %": "{top1:.1f}",
            "± over draws": "{top1_sd:.1f}", "top-5 %": "{top5:.1f}",
            "against the defaults, points": "{change:+.1f} ({change_low:.1f} to {change_high:.1f})",
            "trajectory sum": "{trajectory:.2f} of {earlier}", "printed top-1": "{printed:.2f}",
            "printed sum": "{printed_trajectory:.2f} of 7",
        },
        _token_ablations,
    ),
    "token_amounts": Section(
        {
            "r of 196": "{papers_r}", "r here": "{r}", "kept": "{kept_pct:.1f} %", "STA, top-1 %": "{top1:.1f}",
            "random, top-1 %": "{random_top1:.1f}", "± over draws": "{random_top1_sd:.1f}",
            "STA - random, points": "{change:+.1f}", "95 %": "{change_low:.1f} to {change_high:.1f}",
            "printed for STA": "{printed:.1f}",
        },
        lambda content: content["amounts"],
    ),
}  # fmt: skip
