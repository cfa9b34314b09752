"""Screening of heads by gradient: one forward and one backward pass rank all of them, approximately.

For a sample with loss L (cross-entropy of its label) and output H_h of head h before the output projection,

    proxy_h = | sum over positions and channels of H_h * dL/dH_h |

the first-order estimate of how the loss changes when H_h is set to zero. Source: Michel et al., "Are Sixteen Heads
Really Better than One?", 2019, equation 2, which takes the mean over samples; here it is kept for each sample, as the
exact scores are. Deviation: no normalisation within layers.

It estimates another quantity than r (a change of loss, to first order) and is to be trusted as far as its rank
correlation with exact scores goes, which `agreement` measures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from sightline.backbones import Backbone, Observer
from sightline.relevance.matrix import UNIT
from sightline.statistics.rank_correlation import spearman
from sightline.types import Unit


@dataclass(frozen=True)
class Agreement:
    """How well screening ranks heads as the exact scores do.

    Attributes:
        spearman: Rank correlation of mean proxy and mean exact score over the heads.
        heads: Number of heads compared.
        samples: Number of samples that both means are over.
    """

    spearman: float
    heads: int
    samples: int


def gradient_proxy(backbone: Backbone, clips: Tensor, labels: Tensor) -> Tensor:
    """Return the proxy of every head on every clip of a batch.

    Args:
        backbone: In evaluation mode; its parameters may be frozen.
        clips: (B, 3, T, H, W).
        labels: int64 (B,).

    Returns:
        (heads, B), the heads in the order of ``backbone.units("heads")``.

    Raises:
        ValueError: If the backbone is in training mode.
    """
    if backbone.training:
        raise ValueError("Screening needs the backbone in evaluation mode; call backbone.eval() first.")
    observer = Observer(heads=True)
    with torch.enable_grad():
        state = backbone.embed(clips)
        # Gradients start at the tokens, so that frozen parameters need none.
        state = state.with_tokens(state.tokens.detach().requires_grad_())
        logits = backbone.classify(backbone.run(state, observer=observer))
        # Clips do not influence each other: the gradient of the sum is that of each clip's own loss.
        loss = F.cross_entropy(logits.float(), labels.to(logits.device), reduction="sum")
        # In the order of units; an observer lists sites as they ran.
        sites = [(info.index, site.name) for info in backbone.layers for site in info.sites if site.heads]
        heads = [observer.sites[site].heads for site in sites]
        assert all(part is not None for part in heads)
        gradients = torch.autograd.grad(loss, heads)  # type: ignore[arg-type]
    proxies = [
        (head.detach().float() * gradient.float()).sum(dim=(1, 3)).abs()  # (B, L, h, d) -> (B, h)
        for head, gradient in zip(heads, gradients, strict=True)
        if head is not None
    ]
    return torch.cat(proxies, dim=1).T if proxies else logits.new_empty(0, len(labels))


def unit_rows(values: Tensor, units: Sequence[Unit], sample_ids: Sequence[str], name: str) -> pd.DataFrame:
    """Turn values (U, B) into rows sample_id, layer, site, head and ``name``."""
    rows = [(sample, unit.layer, unit.site, unit.head) for sample in sample_ids for unit in units]
    table = pd.DataFrame(rows, columns=["sample_id", *UNIT])
    return table.assign(**{name: values.T.reshape(-1).double().tolist()})


def agreement(proxies: pd.DataFrame, exact: pd.DataFrame, score: str = "r") -> Agreement:
    """Compare the ranking by proxy with that by exact scores, on the samples that both tables have.

    Args:
        proxies: sample_id, layer, site, head, proxy.
        exact: Rows of a score table of heads.
        score: The exact score to compare with.

    Raises:
        ValueError: If the tables have no sample in common, or not the same heads.
    """
    common = set(proxies["sample_id"]) & set(exact["sample_id"])
    if not common:
        raise ValueError("Screening and exact scores have no sample in common, so there is nothing to compare.")
    ours, theirs = (table[table["sample_id"].isin(common)] for table in (proxies, exact))
    means = pd.concat([ours.groupby(UNIT)["proxy"].mean(), theirs.groupby(UNIT)[score].mean()], axis=1)
    if means.isna().any().any():
        raise ValueError("Screening and exact scores are of different heads; run both on the same model.")
    return Agreement(float(spearman(means["proxy"].to_numpy(), means[score].to_numpy())), len(means), len(common))
