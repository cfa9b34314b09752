"""The section on where the numbers come from: commands, versions, hashes, configuration; and the page's first lines."""

from __future__ import annotations

from sightline.report.numbers import NONE, fixed, interval
from sightline.report.page.blocks import Code, Column, Folded, Section, Table, Text
from sightline.report.stored.clips import split_counts
from sightline.report.stored.run_results import RunResults
from sightline.report.tables.pruning import pruning_rows, reference_rows
from sightline.run.provenance import versions


def facts(run: RunResults) -> list[tuple[str, str, str]]:
    """The run in a few numbers: what, value, remark."""
    found = [("model", str(run.setting("model", "init_args", "backbone") or "?"), "")]
    counts = split_counts(run)
    if counts is not None:
        clips = counts.groupby("split", sort=False)["clips"].sum()
        told = " / ".join(f"{split} {fixed(n, 0)}" for split, n in clips.items())
        found.append(("clips", fixed(clips.sum(), 0), told))
        found.append(("classes", fixed(counts["label"].nunique(), 0), ""))
    table = run.pruning()
    full = None if table is None else next(iter(pruning_rows(table[reference_rows(table)])), None)
    if full is not None:
        found.append(("test top-1", f"{fixed(full.top1, 1)} %", f"95 %: {interval(full.top1_low, full.top1_high, 1)}"))
        found.append(("parameters", _large(full.params), ""))
        found.append(("multiply-adds", _large(full.macs), "per clip"))
    return found


def _large(value: int | None) -> str:
    if value is None:
        return NONE
    scale, unit = next(((s, u) for s, u in ((1e9, " G"), (1e6, " M"), (1e3, " k")) if value >= s), (1.0, ""))
    return f"{value / scale:.3g}{unit}"


def provenance_section(run: RunResults) -> Section:
    """Commands, versions, hashes, and the configuration."""
    section = Section(
        "provenance",
        "Where this comes from",
        "What is needed to reproduce these results. Scores belong to the weights and clips with the hashes below.",
    )
    commands = (run.provenance or {}).get("commands", [])
    if commands:
        rows = [
            [str(entry["time"]).replace("+00:00", "").replace("T", " "), str(entry["command"])] for entry in commands
        ]
        section.blocks.append(Table([Column("time (UTC)"), Column("command")], rows, "Commands run on this folder."))
        section.blocks.append(_versions(dict(commands[-1]["versions"])))
    else:
        section.blocks.append(Text("The commands of this run were not recorded.", note=True))
    hashes = _hashes(run)
    if hashes.rows:
        section.blocks.append(hashes)
    config = run.paths.config.read_text(encoding="utf-8")
    section.blocks.append(Folded("Configuration (config.yaml)", [Code(config)]))
    section.blocks.append(Text(f"Page made by Sightline {versions()['sightline']} from {run.folder}.", note=True))
    return section


def _versions(found: dict[str, str]) -> Table:
    return Table([Column(name) for name in found], [list(map(str, found.values()))], "Versions of the last command.")


def _hashes(run: RunResults) -> Table:
    rows = [
        [
            f"{kind}, {split}", str(entry["weights_sha256"])[:12], str(entry["data_sha256"])[:12],
            str(entry.get("precision", "")), str(entry.get("checkpoint", "")), fixed(entry["samples"], 0),
        ]
        for split in run.scored_splits()
        for kind, entry in run.manifest(split).items()
    ]  # fmt: skip
    names = ("score table", "weights", "data", "precision", "checkpoint")
    caption = "What was scored; hashes are SHA-256, shortened. In full: relevance/*/manifest.json."
    return Table([*map(Column, names), Column("clips", True)], rows, caption)
