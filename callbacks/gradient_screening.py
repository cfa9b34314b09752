"""A cheap ranking of all heads by gradient, and how well it agrees with the exact scores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pandas as pd
import torch
from tqdm.auto import tqdm

from callbacks.analysis import Analysis, Context
from callbacks.logging_results import log_to_wandb
from sightline.relevance.ablation import ablated_logits
from sightline.relevance.matrix import UNIT
from sightline.relevance.memory import StackSize
from sightline.relevance.precision import forward_precision
from sightline.relevance.scores import score
from sightline.relevance.screening import agreement, gradient_proxy, unit_rows
from sightline.run.atomic import replacing


class GradientScreening(Analysis):
    """Ranks all heads by gradient: tables/screening_<split>.csv, and its rank correlation with exact scores.

    One forward and one backward pass per clip instead of one suffix of the model per head. The exact scores of a
    subsample say how far the ranking is to be trusted.
    """

    command: ClassVar[str] = "ablate"

    def __init__(self, exact_samples: int = 32, batch_size: int | None = None) -> None:
        """Set up the screening.

        Args:
            exact_samples: Clips, spread over the split, on which heads are also ablated exactly, to compare.
            batch_size: Clips per batch; the data module's if not given.
        """
        if exact_samples < 1:
            raise ValueError(f"Expected exact_samples >= 1, to say how well screening ranks, got {exact_samples}.")
        self.exact_samples = exact_samples
        self.batch_size = batch_size

    def analyse(self, context: Context) -> None:
        count = len(context.data.clips(context.split))
        mine = list(range(count))[context.ranks.rank :: context.ranks.world]
        compared = set(torch.linspace(0, count - 1, min(self.exact_samples, count)).round().int().tolist())
        folder = context.folder / "tables"

        def share(rank: int) -> Path:
            return folder / f".screening_{context.split}.{rank}"

        context.ranks.together(lambda: self._score(context, mine, compared, share(context.ranks.rank)))
        context.ranks.together(lambda: self._report(context, share, folder), only_first=True)

    def _score(self, context: Context, mine: list[int], compared: set[int], share: Path) -> None:
        """Score this process's clips and write them down for the first one to gather."""
        backbone = context.backbone
        device = next(backbone.parameters()).device
        units = backbone.units("heads")
        names = {context.data.clips(context.split)[place].sample_id for place in compared}
        stack, proxies, exact = StackSize(), [], []
        bar = tqdm(total=len(mine), desc=f"Screening {len(units)} heads", unit="clip", disable=context.ranks.rank != 0)
        with bar, forward_precision("float32", device):
            for batch in context.batches(context.split, mine, self.batch_size):
                clips, labels, ids = batch["clip"].to(device), batch["label"], batch["sample_id"]
                if ids:
                    proxies.append(unit_rows(gradient_proxy(backbone, clips, labels), units, ids, "proxy"))
                chosen = [place for place, name in enumerate(ids) if name in names]
                if chosen:
                    logits = ablated_logits(backbone, clips[chosen], units, stack=stack)
                    r = score(logits.base, logits.units, labels[chosen]).r
                    exact.append(unit_rows(r, units, [ids[place] for place in chosen], "r"))
                bar.update(len(ids) + len(batch["unreadable"]))
        share.parent.mkdir(exist_ok=True)
        for rows, kind in ((proxies, "proxy"), (exact, "r")):
            empty = unit_rows(torch.empty(0, 0), [], [], kind)
            pd.concat(rows or [empty]).to_parquet(share.with_suffix(f".{kind}"))

    def _report(self, context: Context, share: Callable[[int], Path], folder: Path) -> None:
        tables = {}
        for kind in ("proxy", "r"):
            files = [share(rank).with_suffix(f".{kind}") for rank in range(context.ranks.world)]
            tables[kind] = pd.concat([pd.read_parquet(file) for file in files], ignore_index=True)
            for file in files:
                file.unlink()
        found = agreement(tables["proxy"], tables["r"])
        ranking = tables["proxy"].groupby(UNIT, sort=True)["proxy"].agg(["mean", "median"]).reset_index()
        ranking = ranking.sort_values(["mean", *UNIT], ignore_index=True)
        path = folder / f"screening_{context.split}.csv"
        with replacing(path) as unfinished:
            ranking.assign(spearman=found.spearman, exact_samples=found.samples).to_csv(unfinished, index=False)
        log_to_wandb(context.loggers, {f"screening_{context.split}": ranking})
        print(
            f"Wrote {path}: {found.heads} heads by gradient, the least relevant first. Rank correlation with the exact "
            f"scores (mean r) on {found.samples} clips: {found.spearman:.3f}."
        )
