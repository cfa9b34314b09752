"""``compare``: tables and figures over several finished runs."""

from __future__ import annotations

from sightline.commands.options import call_with_options


def run(name: str, arguments: list[str]) -> int:
    """Run the command; return its exit code."""
    call_with_options(compare, name, arguments, words={"runs": "Folders of finished runs."})
    return 0


def compare(runs: list[str], out: str) -> None:
    """Compare the pruned models of several runs: averages and spread over seeds, one section per backbone.

    Writes comparison.md; methods.csv (top-1 of all methods side by side); differences.csv (lowest relevance against
    every other way at the same depth); accuracy.csv (accuracy, intervals over subjects, cost, classes that lose most),
    removed_layers.csv (which layers each run removes, and how far runs agree), scores.csv (r, jsd and dprob compared),
    by_class.csv and by_subject.csv (every model of every run), and the figures accuracy_against_cost and
    accuracy_against_depth as PNG and SVG.

    Args:
        runs: Folders of finished runs; those of the same backbone are averaged.
        out: Folder to write to.
    """
    from sightline.report.comparison.compare import compare_runs  # not needed for --help

    compare_runs(runs, out)
