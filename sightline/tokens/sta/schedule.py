"""How many tokens are dropped at each place of a backbone, and from which frames.

Numbers are told per frame of the token grid at the first place, and shared out among the frames by one rule, so that
reading frames alone or several as one drops equally many tokens of a clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count, pairwise

from sightline.backbones import Backbone, Place

Size3 = tuple[int, int, int]
# Factor of what goes at place p relative to the first, as (numerator, denominator) by p, per share of a frame.
FACTORS = {
    "constant": lambda place: (1, 1),
    "decreasing": lambda place: (1, 2**place),
    "increasing": lambda place: (2**place, 1),
    "rising": lambda place: (2 + place, 2),
}
PAPER = "paper"
# Of a frame, what goes at the first place unless asked otherwise: 64 of 196 tokens, 256 of 784.
SHARE = (16, 49)
SINGLE, SUPER, AUTO = "single", "super", "auto"


@dataclass(frozen=True)
class PlacePlan:
    """What happens at one place, the same for every clip.

    Attributes:
        before: Tokens of each frame that chooses by itself (several frames of the grid, where they are read as one).
        kept: How many of them go on.
        frames: How many frames of the grid each of these is.
    """

    before: tuple[int, ...]
    kept: tuple[int, ...]
    frames: tuple[int, ...]

    @property
    def drops(self) -> bool:
        return self.before != self.kept


def check_schedule(schedule: str, r: int) -> None:
    """Raise ValueError where a schedule is neither a known name nor a list of whole numbers that stands without r."""
    if schedule == PAPER or schedule in FACTORS:
        return
    if not _listed(schedule):
        raise ValueError(
            f"The schedule must be {PAPER}, {', '.join(FACTORS)}, or how many tokens of a frame go at each place, like "
            f"48,48,48; got {schedule!r}."
        )
    if r >= 0:
        raise ValueError(f"The schedule {schedule} says itself how many tokens go; leave r out, got r={r}.")


def place_plans(backbone: Backbone, r: int = -1, schedule: str = PAPER, frames: str = AUTO) -> dict[Place, PlacePlan]:
    """Return what happens at each of a backbone's places for token reduction.

    Args:
        backbone: Says its places, and on which grids tokens lie there.
        r: Tokens that each frame of the grid drops at the first place; -1 for 16/49 of them.
        schedule: What goes at later places. ``constant``: as many; ``decreasing``: half as many from place to place;
            ``increasing``: twice as many; ``rising``: 1.5 times as many at the second place, twice at the third. Where
            the grid is coarser there, the same share of a frame is meant. ``paper``: decreasing, or rising where the
            grid is whole again at every place. Or numbers for each place, per frame of the grid, like ``48,48,48``.
        frames: ``single``: each frame by itself. ``super``: twice as many frames as one from place to place (an odd
            one out stays alone), each of which drops what its frames would. ``auto``: super, or single where the grid
            is whole again at every place.

    Raises:
        ValueError: If nothing is left of a frame, or the schedule is for another number of places.
    """
    found = _plans(backbone, r, schedule, frames)
    for (place, plan), grid in zip(found.items(), backbone.reduction_grids, strict=True):
        worst = min(range(len(plan.kept)), key=lambda group: plan.kept[group])
        if plan.kept[worst] < 1:
            before, dropped = plan.before[worst], plan.before[worst] - plan.kept[worst]
            who = "A frame has" if plan.frames[worst] == 1 else f"{plan.frames[worst]} frames read as one have"
            if _listed(schedule):
                most = min((there - 1) // span for there, span in zip(plan.before, plan.frames, strict=True))
                advice = f"The schedule {schedule} can have {most} at most there, for each frame."
            else:
                advice = (
                    f"The largest r for {backbone.family} here is {largest_r(backbone, schedule, frames)}, got {r}."
                )
            raise ValueError(
                f"{who} {before} tokens at {place} (grid {'x'.join(map(str, grid))}); dropping {dropped} leaves none. "
                f"{advice}"
            )
    return found


def largest_r(backbone: Backbone, schedule: str = PAPER, frames: str = AUTO) -> int:
    """Return the largest r that leaves a token in every frame."""
    low, high = 0, backbone.reduction_grids[0][1] * backbone.reduction_grids[0][2]
    while high - low > 1:
        middle = (low + high) // 2
        kept = (plan.kept for plan in _plans(backbone, middle, schedule, frames).values())
        low, high = (middle, high) if min(map(min, kept)) > 0 else (low, middle)
    return low


def scaled_schedules(backbone: Backbone, schedule: str, frames: str = AUTO) -> list[str]:
    """Return a listed schedule scaled in steps of one of its largest number, as far as every frame keeps a token.

    A schedule that drops nothing comes back alone: it says nothing of where tokens are to go.
    """
    numbers = _listed(schedule)
    most, found = max(numbers), [schedule]
    for step in count(0) if most else ():
        scaled = ",".join(str((2 * number * step + most) // (2 * most)) for number in numbers)
        if min(min(plan.kept) for plan in _plans(backbone, -1, scaled, frames).values()) < 1:
            break
        found = [scaled] if not step else [*found, scaled]
    return found


def _plans(backbone: Backbone, r: int, schedule: str, frames: str) -> dict[Place, PlacePlan]:
    places, grids = backbone.reduction_places, backbone.reduction_grids
    joined = frames == SUPER or (frames == AUTO and not backbone.refilled)
    found: dict[Place, PlacePlan] = {}
    left: tuple[int, ...] = ()
    for number, (place, grid) in enumerate(zip(places, grids, strict=True)):
        length = 2**number if joined else 1
        ends = [*range(0, grid[0], length), grid[0]]
        spans = list(pairwise(ends))
        if backbone.refilled or not number:
            before = tuple((stop - start) * grid[1] * grid[2] for start, stop in spans)
        elif joined:
            before = tuple(sum(left[start : start + 2]) for start in range(0, len(left), 2))
        else:
            before = left
        total = _dropped(backbone, r, schedule, number)
        # Shares that add up to the total whatever it is, as even as whole tokens allow.
        goes = [total * stop // grid[0] - total * start // grid[0] for start, stop in spans]
        left = tuple(there - gone for there, gone in zip(before, goes, strict=True))
        found[place] = PlacePlan(before, left, tuple(stop - start for start, stop in spans))
    return found


def _dropped(backbone: Backbone, r: int, schedule: str, number: int) -> int:
    """Return how many tokens of a clip go at the place of that number."""
    grids = backbone.reduction_grids
    frames, height, width = grids[number]
    if numbers := _listed(schedule):
        if len(numbers) != len(grids):
            raise ValueError(
                f"The schedule {schedule} is for {len(numbers)} places; {backbone.family} has {len(grids)}: "
                f"{', '.join(map(str, backbone.reduction_places))}."
            )
        return frames * numbers[number]
    cells, first = height * width, grids[0][1] * grids[0][2]
    if r < 0:
        r = _rounded(SHARE[0] * first, SHARE[1])
    name = ("rising" if backbone.refilled else "decreasing") if schedule == PAPER else schedule
    numerator, denominator = FACTORS[name](number)
    return _rounded(frames * r * cells * numerator, first * denominator)


def _rounded(numerator: int, denominator: int) -> int:
    """Return a fraction rounded to a whole number, halves up; whole numbers alone give the same on every machine."""
    return (2 * numerator + denominator) // (2 * denominator)


def _listed(schedule: str) -> Sequence[int]:
    """Return the numbers of a listed schedule; none where it is a name."""
    parts = [part.strip() for part in schedule.split(",")]
    return [int(part) for part in parts] if all(part.isdecimal() for part in parts) else []
