"""Is the gap between the last unit cut and the first kept more than rounding?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

TIMES_NOISE_FLOOR = 10
"""A gap must be larger than so many noise floors to be clear.

The floor is the largest r of a sample with nothing ablated: half the error of p_true, and hardly any jsd, which is
quadratic there. Away from the unablated prediction jsd is linear in the errors too, so a sample's r (or jsd, or dprob)
may err by a few floors, and a gap is the difference of two such means. Ten floors leave a margin even if the errors of
all samples point the same way; as they do not, the true error is far below.
"""


@dataclass(frozen=True)
class CutGap:
    """The gap in mean score at a cut.

    Attributes:
        mode: ``lowest`` or ``highest``.
        k: How many units are cut.
        last_cut: The last unit cut.
        first_kept: The first unit kept.
        gap: Distance of their means.
        noise_floor: Largest r of a sample with nothing ablated; None where none was measured.
    """

    mode: str
    k: int
    last_cut: str
    first_kept: str
    gap: float
    noise_floor: float | None

    @property
    def clear(self) -> bool:
        """Whether the gap is clearly above the noise floor."""
        return self.noise_floor is not None and self.gap > TIMES_NOISE_FLOOR * self.noise_floor

    @property
    def warning(self) -> str:
        """Say in one line why the cut may be arbitrary; empty where the gap is clear."""
        if self.clear:
            return ""
        what = (
            f"The {self.k} {self.mode}: {self.last_cut} is cut and {self.first_kept} kept for a gap of {self.gap:.3g}"
        )
        if self.noise_floor is None:
            return f"{what}, and no noise floor is known to compare it with. Make the scores again: train.py ablate."
        return (
            f"{what}, which is not clearly above the scores' noise floor of {self.noise_floor:.3g} (at least "
            f"{TIMES_NOISE_FLOOR} times that is). Which of the two is removed is arbitrary; choose another depth, or "
            "score at higher precision."
        )


def cut_gaps(
    ranking: pd.DataFrame, depths: Sequence[int], modes: Sequence[str], noise_floor: float | None
) -> list[CutGap]:
    """Measure the gap at every cut; none where nothing is kept, or where a race settled it on different samples.

    Args:
        ranking: Of the layers or heads that may be cut, as `rank_units` returns it.
        depths: How many are cut.
        modes: ``lowest``, ``highest`` or both.
        noise_floor: Largest r of a sample with nothing ablated.
    """
    by = "place" if "place" in ranking else "mean"
    found = []
    for mode in modes:
        ranked = ranking.sort_values("layer").sort_values(by, ascending=mode == "lowest", kind="stable")
        for k in depths:
            if not 1 <= k <= len(ranked):
                raise ValueError(f"{k} units cannot be cut from {len(ranked)}.")
            if k == len(ranked):
                continue
            cut, kept = ranked.iloc[k - 1], ranked.iloc[k]
            if cut["n"] == kept["n"]:
                gap = abs(float(kept["mean"] - cut["mean"]))
                found.append(CutGap(mode, k, _name(cut), _name(kept), gap, noise_floor))
    return found


def _name(unit: pd.Series) -> str:
    layer = f"layer {int(unit['layer'])}"
    head = unit.get("head")
    return layer if head is None or pd.isna(head) else f"{layer} {unit['site']} head {int(head)}"
