"""The report of a run: one HTML file that holds everything it shows, made from what lies in the run's folder.

It runs no model. It opens by double click, without a network: styles, scripts, figures and (up to a limit) pictures
and clips are in the file. All text that comes from a run is escaped by the template.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from sightline.report.figures.style import BAND, BLUE, GREEN, INK, MUTED, ORANGE, PAPER, PURPLE, RULE, SKY, VERMILLION
from sightline.report.page.attribution_section import attribution_section
from sightline.report.page.blocks import Chart, Folded, Section
from sightline.report.page.confusion_section import confusion_section
from sightline.report.page.gallery_section import Embedding, gallery_section
from sightline.report.page.heads_section import heads_section
from sightline.report.page.kept_section import kept_section
from sightline.report.page.pointing_section import pointing_section
from sightline.report.page.provenance_section import facts, provenance_section
from sightline.report.page.pruning_section import pruning_section
from sightline.report.page.ranking_section import ranking_section
from sightline.report.page.relevance_section import relevance_section
from sightline.report.page.run_sections import data_section, training_section, unreadable_section
from sightline.report.page.tokens_section import tokens_section
from sightline.report.stored.run_results import RunResults
from sightline.report.verdict.verdict import run_verdict
from sightline.run.atomic import replacing

# Colours that figures are drawn with -> the page's variables, which differ between light and dark.
THEME = {
    INK: "--ink", MUTED: "--muted", RULE: "--rule", BAND: "--band", PAPER: "--paper", BLUE: "--blue",
    VERMILLION: "--vermillion", GREEN: "--green", PURPLE: "--purple", ORANGE: "--orange", SKY: "--sky",
}  # fmt: skip
# What was cut comes first, then whether the model is good, then what the cut rests on.
_SECTIONS: tuple[Callable[[RunResults], Section], ...] = (
    pruning_section, tokens_section, confusion_section, training_section, data_section, relevance_section,
    ranking_section, heads_section, pointing_section, attribution_section,
)  # fmt: skip


def write_report(run: Path | str, out: Path | str | None = None, embed_mb: float = 30.0) -> Path:
    """Write the report of a run; an older one is replaced when the new one is whole.

    Args:
        run: The run's folder.
        out: The file to write; ``report.html`` in the folder if not given.
        embed_mb: Megabytes of pictures and clips that become part of the file at most; the others are linked.

    Returns:
        The file.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it is not a run's, or holds results of another version.
    """
    if not (math.isfinite(embed_mb) and embed_mb >= 0):
        raise ValueError(f"Expected embed_mb of at least 0 megabytes, got {embed_mb}.")
    results = RunResults(Path(run))
    page = results.paths.report if out is None else Path(out)
    if page.is_dir():
        raise ValueError(
            f"--out names a file to write, but {page} is a folder. Try {page / results.paths.report.name}."
        )
    text = render(results, page, embed_mb)
    with replacing(page) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return page


def render(results: RunResults, page: Path, embed_mb: float) -> str:
    """Make the page's text."""
    sections = [make(results) for make in _SECTIONS]
    embedding = Embedding(page, embed_mb)
    sections += [gallery_section(results, embedding), kept_section(results, embedding)]
    sections += [unreadable_section(results), provenance_section(results)]
    environment = Environment(
        loader=PackageLoader("sightline.report.page", "template"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip

    def part(name: str) -> Markup:
        # Our own files, which hold nothing of a run.
        return Markup(environment.loader.get_source(environment, name)[0])  # type: ignore[union-attr]

    return environment.get_template("report.html").render(
        name=results.folder.resolve().name,
        verdict=run_verdict(results),
        facts=facts(results),
        sections=sections,
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        theme=THEME,
        style=part("report.css"),
        script=part("report.js"),
        plotly=Markup(get_plotlyjs()) if any(_has_chart(section.blocks) for section in sections) else "",
    )


def _has_chart(blocks: list) -> bool:
    return any(isinstance(b, Chart) or (isinstance(b, Folded) and _has_chart(list(b.blocks))) for b in blocks)
