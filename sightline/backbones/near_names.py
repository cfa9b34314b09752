"""Which registered names are meant by another program's name of a model, or by a misspelt one."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping

SIZES = {"tiny": "t", "small": "s", "base": "b", "large": "l"}


def near_names(wanted: object, known: Iterable[str], elsewhere: Mapping[str, str]) -> list[str]:
    """Return the known names that a name is nearest to, at most three; none where it is near to none.

    Args:
        wanted: The name as it was given, e.g. ``swin3d_s`` or ``owner/videomae-base-k400``.
        known: The registered names. Small ones made for trials (``..._demo``) are named only where asked for.
        elsewhere: What another library calls the registered ones exactly; empty where it does not have them.
    """
    name = str(wanted).rpartition("/")[2].lower()
    exact = [own for own, other in elsewhere.items() if other == name]
    if exact:
        return exact
    candidates = [own for own in known if "demo" in name or not own.endswith("_demo")]
    scores = {own: _common_words(_words(name), _words(own)) for own in candidates}
    best = max(scores.values(), default=0)
    if best:
        return [own for own, score in scores.items() if score == best][:3]
    return difflib.get_close_matches(name.replace("-", "_"), candidates, n=3, cutoff=0.7)


def _words(name: str) -> set[str]:
    return {SIZES.get(word, word) for word in re.split(r"[^a-z0-9]+", name) if word}


def _common_words(ours: set[str], theirs: set[str]) -> int:
    """Count words in common; ``swin3d`` and ``mvitv2`` count as ``swin`` and ``mvit``. Sizes alone do not count."""
    plain = ours | {re.sub(r"(v?\d.*)$", "", word) for word in ours}
    longer = {word for word in theirs & plain if len(word) > 2}
    return len(longer) + len(theirs & ours - longer) if longer else 0
