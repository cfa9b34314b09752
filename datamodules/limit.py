"""Fewer training clips: the same few of every class, from as many groups as there are."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence

from sightline.video.clips import Clip


def limit_per_class(clips: Sequence[Clip], limit: int, seed: int = 0) -> list[Clip]:
    """Keep at most ``limit`` clips of every class, taking turns among its groups; their order stays.

    A smaller limit keeps a part of what a larger one keeps. The choice of a class depends on its own clips only.

    Args:
        clips: The clips of one split.
        limit: How many of each class, at least 1.
        seed: Fixes the choice.
    """
    classes: dict[int, dict[str, list[Clip]]] = defaultdict(lambda: defaultdict(list))
    for clip in sorted(clips, key=lambda clip: clip.sample_id):
        classes[clip.label][clip.group].append(clip)
    kept: set[str] = set()
    for label, groups in classes.items():
        chance = random.Random(f"limit/{seed}/{label}")
        queues = [chance.sample(group, len(group)) for group in groups.values()]
        chance.shuffle(queues)
        turns = max(map(len, queues))
        in_turn = [queue[turn] for turn in range(turns) for queue in queues if turn < len(queue)]
        kept.update(clip.sample_id for clip in in_turn[:limit])
    return [clip for clip in clips if clip.sample_id in kept]
