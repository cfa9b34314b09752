"""Put the figures of docs/results/ into the pages.

    python -m benchmarks.write_results

In a page stands, for a whole table (its name is one of `SECTIONS`, its file docs/results/FILE.json),

    <!-- results: SECTION FILE -->
    (made from the file: the command, what it ran on, the table)
    <!-- end of results -->

and for a single figure in a sentence (a path into the file, and a format of Python's)

    keeps <!--= FILE rows.0.top1 .1f -->97.4<!--/--> %

A test makes both anew and compares, so that text and file agree.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.result_files import RESULTS, ROOT, Records, read_result
from benchmarks.sections import Section, side_by_side
from benchmarks.token_sections import TOKEN_SECTIONS
from sightline.export.other_work import other_work

PAGES = (ROOT / "README.md", ROOT / "docs" / "results.md", ROOT / "docs" / "ia_red2.md")
_BLOCK = re.compile(r"(<!-- results: (\S+) (\S+) -->\n).*?(<!-- end of results -->)", re.DOTALL)
_FIGURE = re.compile(r"(<!--= (\S+) (\S+) (\S+) -->).*?(<!--/-->)", re.DOTALL)
_MARKS = re.compile(r"<!-- (?:results:|end of results)|<!--[=/]")


def _layer_models(content: dict[str, Any]) -> Records:
    return [row for row in content["rows"] if row["tokens"] is None and row["method"] in (None, "relevance")]


def _races(content: dict[str, Any]) -> Records:
    """Put the methods that raced for the same sets side by side."""
    keys = ("table", "clips", "mode", "k")
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in content["rows"]:
        raced = found.setdefault(tuple(row[key] for key in keys), {key: row[key] for key in (*keys, "orders")})
        method = row["method"].split()[-1].replace(".", "_")  # no dots: formats take them for attributes
        raced |= {method: row["saving"], f"{method} wrong": row["wrong"]}
    return list(found.values())


def _kernels(content: dict[str, Any]) -> Records:
    return [{"linear_layers_gflops_chosen": None, "largest_difference": row.get("largest_difference_of_a_score"), **row}
            for row in content["rows"] if row["what"] != "layer"]  # fmt: skip


def _by_r(content: dict[str, Any]) -> Records:
    """Return the unpruned models and those cut by mean r."""
    return [row for row in _layer_models(content) if row["score"] in (None, "r")]


def _methods_beside_all_sets(content: dict[str, Any]) -> Records:
    return side_by_side(content["rows"], lambda row: row["method"], "top1", "beats_pct")


def _differences_beside(content: dict[str, Any]) -> Records:
    rows = [row for row in content["differences"] if row["score"] == "r" and row["other_score"] in OTHERS.values()]
    return side_by_side(rows, lambda row: f"{row['other_method']} {row['other_mode']}", "difference", "low", "high")


def _removed_beside(content: dict[str, Any]) -> Records:
    rows = [row for row in content["layers"] if row["method"] == "relevance" and row["score"] == "r"]
    return side_by_side(rows, lambda row: row["mode"], "removed_by_run", "agreement")


# What removing by mean r is compared with, and the score that each of these goes by.
OTHERS = {
    "relevance highest": "r",
    "greedy lowest": "r",
    "block_influence lowest": "cosine",
    "gradient lowest": "taylor",
    "last lowest": "from_end",
}
SECTIONS = {
    "accuracy": Section(
        {
            "model": "{backbone}", "method": "{method}", "mode": "{mode}", "k": "{k}", "top-1 %": "{top1:.1f}",
            "± over seeds": "{top1_sd:.1f}", "seeds": "{top1_by_run}",
            "change, points": "{change:+.1f}", "95 % over subjects": "{change_low:.1f} to {change_high:.1f}",
            "parameters": "{params_change_pct:+.1f} %", "multiply-adds": "{macs_change_pct:+.1f} %",
        }
    ),
    "speed": Section(
        {
            "model": "{backbone}", "mode": "{mode}", "k": "{k}", "top-1 %": "{top1:.1f} ± {top1_sd:.1f}",
            "multiply-adds": "{macs_change_pct:+.0f} %",
            "speed (IQR of repeats)": "about {speedup:.2f}x ({speedup_iqr:.2f})",
        },
        _layer_models,
        timed=True,
    ),
    "layers": Section(
        {
            "model": "{backbone}", "method": "{method}", "mode": "{mode}", "k": "{k}",
            "removed, by seed": "{removed_by_run}", "agreement of seeds": "{agreement:.2f}",
            "same set in resamples of the clips, %, by seed": "{same_set_by_run}",
        },
        lambda content: content["layers"],
    ),
    "differences": Section(
        {
            "model": "{backbone}", "k": "{k}", "against": "{other_method} {other_mode}",
            "lowest keeps more, points": "{difference:+.1f}", "95 %": "{low:.1f} to {high:.1f}",
        },
        lambda content: content["differences"],
    ),
    "all_sets": Section(
        {
            "model": "{backbone}", "k": "{k}", "method": "{method}", "top-1 %": "{top1:.1f}",
            "mean of all sets": "{mean_of_all:.1f}", "best of all sets": "{best_of_all:.1f}",
            "beats of all other sets": "{beats_pct:.0f} %",
        }
    ),
    "families": Section(
        {
            "model": "{backbone}", "mode": "{mode}", "k": "{k}", "top-1 %": "{top1:.1f} ± {top1_sd:.1f}",
            "seeds": "{top1_by_run}", "change, points": "{change:+.1f}",
            "95 % over subjects": "{change_low:.1f} to {change_high:.1f}",
            "mean class accuracy %": "{mean_class_acc:.1f}", "multiply-adds": "{macs_change_pct:+.1f} %",
        },
        _by_r,
    ),
    "all_sets_by_method": Section(
        {
            "model": "{backbone}", "k": "{k}", "all sets, mean (best)": "{mean_of_all:.1f} ({best_of_all:.1f})",
            **{
                name: f"{{{name} top1:.1f}} ({{{name} beats_pct:.0f}} %)"
                for name in ("lowest r", "highest r", "greedy", "block influence", "gradient", "last")
            },
        },
        _methods_beside_all_sets,
    ),
    "differences_by_method": Section(
        {
            "model": "{backbone}", "k": "{k}",
            **{
                f"- {name.replace('_', ' ')}": f"{{{name} difference:+.1f}} ({{{name} low:.1f}} to {{{name} high:.1f}})"
                for name in OTHERS
            },
        },
        _differences_beside,
    ),
    "removed_by_mode": Section(
        {
            "model": "{backbone}", "k": "{k}", "lowest r, by seed": "{lowest removed_by_run}",
            "agreement": "{lowest agreement:.2f}", "highest r, by seed": "{highest removed_by_run}",
            "agreement ": "{highest agreement:.2f}",
        },
        _removed_beside,
    ),
    "pointing": Section(
        {
            "model": "{backbone}", "target": "{target}", "site": "{site}",
            "relevant deep heads": "{relevant deep heads}",
            "uniform map": "{uniform map}", "to all other heads": "{difference to all other heads}",
            "to other deep heads": "{difference to other deep heads}",
            "correlation with relevance": "{Spearman's correlation with relevance}",
        }
    ),
    "forward": Section(
        {
            "backbone": "{backbone}", "reference": "{reference}", "clips": "{batch}", "ours, s": "{s_per_clip:.2f}",
            "reference, s": "{reference_s_per_clip:.2f}", "times faster": "{times_faster:.2f}",
            "range": "{lowest:.2f}-{highest:.2f}", "largest difference of a logit": "{largest_difference:.0e}",
        },
        timed=True,
    ),
    "ablation": Section(
        {
            "backbone": "{backbone}", "evaluations": "{units}", "multiply-adds": "{macs_ratio:.3f}",
            "CPU time, reference": "{time_ratio_reference:.3f}",
            "CPU time, own kernels": "{time_ratio_own_kernels:.3f}",
            "Captum": "{captum_ratio:.2f}", "peak memory, MB (a forward pass)": "{peak_mb_ours} ({peak_mb_forward})",
        },
        timed=True,
    ),
    "linear_kernels": Section(
        {
            "backbone": "{backbone}", "what": "{what}", "faster kernels, s": "{s:.2f}",
            "PyTorch's own, s": "{s_pytorch:.2f}", "times faster": "{times_faster:.2f}",
            "range": "{lowest:.2f}-{highest:.2f}",
            "linear layers, GFLOP/s": "{linear_layers_gflops_chosen} ({linear_layers_gflops_pytorch})",
            "largest difference": "{largest_difference:.0e}",
        },
        _kernels,
    ),
    "racing": Section(
        {
            "table": "{table}", "clips": "{clips:,}", "set": "{mode} {k}", "guaranteed": "{guaranteed:.1f}",
            "within 0.01": "{0_01:.1f}", "approximate (nominal)": "{approximate:.1f}",
            "wrong sets of the three": "{guaranteed wrong}; {0_01 wrong}; {approximate wrong}",
            "orders": "{orders:,}",
        },
        _races,
    ),
    "recovery": Section(
        {
            "model": "{model}", "top-1 %": "{top1:.1f} ± {top1_sd:.1f}", "seeds": "{top1_by_run}",
            "parameters": "{params_m:.3f} M", "multiply-adds": "{macs_m:.1f} M",
        }
    ),
    "size": Section(
        {
            "backbone": "{backbone}", "classes": "{classes}", "parameters, M": "{params_m:.3f}",
            "published": "{published_params_m}", "multiply-adds, G": "{macs_g:.2f}", "published ": "{published_macs_g}",
        }
    ),
    "removed": Section(
        {
            "backbone": "{backbone}", "layers removed": "{layers}", "parameters": "{params_change_pct:.2f} %",
            "published": "{published_params}", "multiply-adds": "{macs_change_pct:.2f} %",
        },
        lambda content: content["removed"],
    ),
    **TOKEN_SECTIONS,
}  # fmt: skip
_NUMBER = re.compile(r"[-+]?\d[\d.,]*( %|x)?")


def table(section: str, content: dict[str, Any]) -> str:
    """Lay out a section: the command, what it ran on, and the table; columns of numbers are aligned to the right."""
    made = SECTIONS[section]
    cells = [[_cell(form, row) for form in made.columns.values()] for row in made.rows(content)]
    numbers = [all(_NUMBER.fullmatch(cell) or not cell for cell in column) for column in zip(*cells, strict=True)]
    lines = [list(made.columns), ["---:" if number else "---" for number in numbers], *cells]
    machine = content["machine"]
    threads = "1 thread" if machine["threads"] == 1 else f"{machine['threads']} threads"
    where = machine["gpu"] or f"{threads} on {machine['cores']} CPU cores"
    told = f"`{content['command']}` ({where}, {content['date']}, commit {content['commit']})"
    told += _beside(content) if made.timed else ""
    return "\n".join([told, "", *(f"| {' | '.join(line)} |" for line in lines)]) + "\n"


def _beside(content: Mapping[str, Any]) -> str:
    waited = [content["machine"]["waited_pct"], *(row.get("timing_waited_pct") for row in content["rows"])]
    told = other_work(max((share for share in waited if share is not None), default=None), None)
    return f"\n\nTimed beside other work: {told}." if told else ""


def _cell(form: str, row: Mapping[str, Any]) -> str:
    # Keys may hold blanks, which `str.format` takes, and "|", which would end a cell.
    needed = re.findall(r"{([^}:]+)", form)
    if any(row[key] is None for key in needed):
        return ""
    return form.format(**row).replace(" | ", "; ")


def figure(content: dict[str, Any], path: str, form: str) -> str:
    """Return a figure of a result file, e.g. of ``rows.0.top1`` as ``.1f``."""
    found: Any = content
    for key in path.split("."):
        found = found[int(key)] if isinstance(found, list) else found[key]
    return format(found, form)


def made_anew(text: str, folder: Path = RESULTS) -> str:
    """Return a page with its tables and figures made from the files.

    Raises:
        ValueError: If a mark has no counterpart, or a file is missing.
    """
    marks = len(_MARKS.findall(text))
    if marks != 2 * (len(_BLOCK.findall(text)) + len(_FIGURE.findall(text))):
        raise ValueError("A mark of a table or figure is not closed, or is misspelt; see benchmarks/write_results.py.")
    text = _BLOCK.sub(lambda m: m[1] + table(m[2], read_result(m[3], folder)) + m[4], text)
    return _FIGURE.sub(lambda m: m[1] + figure(read_result(m[2], folder), m[3], m[4]) + m[5], text)


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(made_anew(page.read_text(encoding="utf-8")), encoding="utf-8")
