"""All metrics of all methods on one clip, beside what chance would get.

Values and chance by metric name. Chance is the mean over `ORDERS` random orders of the parts (removal, agreement), a
uniform map (localisation, tracking), or nothing (costs, correlations).

Shapes: T frames, (H, W) pixels, M parts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from sightline.backbones import Backbone
from sightline.explain.attribution.method import Attribution, Method, attribute
from sightline.explain.attribution.scores import class_probability
from sightline.explain.attribution.tubelets import tubelet_grid, tubelet_ids
from sightline.explain.cell_map import CellMap
from sightline.explain.methods.controls import cell_means, luminance
from sightline.explain.metrics.brightness import mass_at, rank_at, with_spots
from sightline.explain.metrics.localisation import rank_accuracy, segmentation, segmentation_chance
from sightline.explain.metrics.pointing import Targets, mass_inside, peak_inside
from sightline.explain.metrics.removal import Parts, part_means, removal_metrics
from sightline.explain.metrics.stability import cascade, independent, sanity, sensitivity_max
from sightline.explain.metrics.subsets import agreement_metrics, single_falls, subset_falls
from sightline.explain.metrics.tracking import track
from sightline.statistics.rank_correlation import spearman

GROUPS = ("removal", "agreement", "localisation", "tracking", "brightness", "spot", "sensitivity", "sanity")
QUICK = GROUPS[:5]
"""Those that need no further maps."""
REMOVALS = (("all", "blur"), ("all", "freeze"), ("space", "blur"), ("time", "freeze"))
"""Which parts go, and what stands in their place."""
ORDERS = 3


class Found(NamedTuple):
    """One number of one method on one clip.

    Attributes:
        method: Label of the method.
        metric: Name of the metric.
        value: What the method got.
        chance: What chance gets; NaN where there is none.
    """

    method: str
    metric: str
    value: float
    chance: float


NOTHING = float("nan")


@dataclass(frozen=True)
class ClipTask:
    """One clip to score methods on.

    Attributes:
        clip: (1, 3, T, H, W).
        target: The class that is explained, int64 (1,).
        truth: What is to be seen in it.
        seed: Of its random orders.
        masks: Pixels that things cover, bool (T, H, W) by their name; empty where that is not known.
    """

    clip: Tensor
    target: Tensor
    truth: Targets
    seed: int
    masks: Mapping[str, Tensor] = field(default_factory=dict)


def score_clip(backbone: Backbone, methods: Mapping[str, Method], groups: Sequence[str], task: ClipTask) -> list[Found]:
    """Score all methods on one clip, on the same perturbed clips.

    Args:
        backbone: In evaluation mode.
        methods: By label.
        groups: Which of `GROUPS`.
        task: The clip.
    """
    yardstick = _Yardstick(backbone, groups, task)
    found: list[Found] = []
    for label, method in methods.items():
        made = attribute(method, backbone, task.clip, task.target)
        numbers = {"seconds": made.seconds, "forward": made.passes.forward, "backward": made.passes.backward}
        found += [Found(label, metric, value, NOTHING) for metric, value in numbers.items()]
        for metric, (value, chance) in yardstick.scores(made, method).items():
            found.append(Found(label, metric, value, chance))
    return found


Scores = dict[str, tuple[float, float]]


class _Yardstick:
    """What does not depend on the method, computed once for a clip."""

    def __init__(self, backbone: Backbone, groups: Sequence[str], task: ClipTask) -> None:
        self.backbone, self.groups, self.task = backbone, groups, task
        self.grid = tubelet_grid(backbone)
        self.ids = tubelet_ids(self.grid, backbone).to(task.clip.device)
        self.all = Parts.of("all", self.ids, self.grid)
        self.score = partial(_probability, backbone, task.target)
        generator = torch.Generator().manual_seed(task.seed)
        device = task.clip.device
        self.noise = {
            kind: torch.rand(ORDERS, Parts.of(kind, self.ids, self.grid).count, generator=generator).to(device)
            for kind, _ in REMOVALS
        }
        self.removed: dict[tuple[str, str], dict[str, float]] = {}
        if "removal" in groups:
            for kind, base in REMOVALS:
                parts = Parts.of(kind, self.ids, self.grid)
                fall = partial(removal_metrics, self.score, task.clip, parts=parts, base=base, seed=task.seed)
                drawn = [fall(values) for values in self.noise[kind]]
                self.removed[kind, base] = _means(drawn)
        if "agreement" in groups:
            self.single = single_falls(self.score, task.clip, self.all, "blur")
            self.subsets = subset_falls(self.score, task.clip, self.all, "blur", task.seed)
            drawn = [agreement_metrics(values, self.single, self.subsets) for values in self.noise["all"]]
            self.agreed = _means(drawn)

    def scores(self, made: Attribution, method: Method) -> Scores:
        """Return value and chance of every metric that was asked for."""
        found: Scores = {}
        steps = {
            "removal": self._removal, "agreement": self._agreement, "localisation": self._localisation,
            "tracking": self._tracking, "brightness": self._brightness,
        }  # fmt: skip
        for name, step in steps.items():
            if name in self.groups:
                found |= step(made)
        further = {"spot": self._spot, "sensitivity": self._sensitivity, "sanity": self._sanity}
        for name, ask in further.items():
            if name in self.groups:
                found |= ask(made, method)
        return found

    def _removal(self, made: Attribution) -> Scores:
        found: Scores = {}
        for kind, base in REMOVALS:
            parts = Parts.of(kind, self.ids, self.grid)
            values = self._values(made, kind)
            own = removal_metrics(self.score, self.task.clip, values, parts, base, self.task.seed)
            ending = f"_{base}" + ("" if kind == "all" else f"_{kind}")
            found |= {name + ending: (value, self.removed[kind, base][name]) for name, value in own.items()}
        return found

    def _values(self, made: Attribution, kind: str) -> Tensor:
        """Return the value of every part, (M,): of frames the method's own, where it has one."""
        cells = made.cells
        if kind == "time":
            own = made.by_frame[:, :, None, None]
            cells = CellMap(own, (cells.cell[0], cells.clip.height, cells.clip.width), cells.clip)
        return part_means(cells, Parts.of(kind, self.ids, self.grid))[0]

    def _agreement(self, made: Attribution) -> Scores:
        own = agreement_metrics(self._values(made, "all"), self.single, self.subsets)
        return {name: (value, self.agreed[name]) for name, value in own.items()}

    def _localisation(self, made: Attribution) -> Scores:
        truth = self.task.truth
        found: Scores = {}
        maps = made.cells.pixels().flatten(1)
        inside = truth.inside.flatten(2).to(maps.device)
        shares = inside.double().mean(dim=2)[0]
        columns = {
            "pointing": peak_inside(maps, truth.near.flatten(2).to(maps.device)),
            "energy": mass_inside(maps.clamp(min=0), inside),
            "rank": rank_accuracy(maps, inside),
        }
        for place, name in enumerate(truth.names):
            if bool(truth.shown[0, place]):
                chance = float(shares[place])
                found |= {f"{metric}_{name}": (float(values[0, place]), chance) for metric, values in columns.items()}
        if bool(truth.timed[0]):
            spec, size = made.cells.clip, made.cells.cell[0]
            frames = made.by_frame.repeat_interleave(size, dim=1)[:, : spec.frames]
            acting = truth.acting[:, None].to(frames.device)
            chance = float(acting.double().mean())
            times = {
                "pointing": peak_inside(frames, acting),
                "energy": mass_inside(frames.clamp(min=0), acting),
                "rank": rank_accuracy(frames, acting),
            }
            found |= {f"{metric}_action": (float(values), chance) for metric, values in times.items()}
        return found | self._segmentation(maps)

    def _segmentation(self, maps: Tensor) -> Scores:
        found: Scores = {}
        for name, mask in self.task.masks.items():
            if bool(mask.any()):
                of = maps, mask.flatten()[None].to(maps.device)
                own, chance = segmentation(*of), segmentation_chance(*of)
                found |= {f"{metric}_{name}": (float(own[metric]), float(chance[metric])) for metric in own}
        return found

    def _tracking(self, made: Attribution) -> Scores:
        own, truth = made.cells.pixels()[0].clamp(min=0), self.task.truth
        found: Scores = {}
        even = torch.ones_like(own)
        for place, name in enumerate(truth.names):
            if bool(truth.shown[0, place]):
                target = truth.inside[0, place].to(own.device)
                one, chance = track(own, target), track(even, target)
                found |= {
                    f"on_target_{name}": (one.on_target, chance.on_target),
                    f"drift_{name}": (one.drift, chance.drift),
                }
        nobody = torch.zeros_like(own, dtype=torch.bool)
        found["strongest_two"] = (track(own, nobody).strongest_two, track(even, nobody).strongest_two)
        return found

    def _brightness(self, made: Attribution) -> Scores:
        values = self._values(made, "all").cpu().numpy()
        grey = cell_means(luminance(self.task.clip), self.grid).double().flatten().cpu().numpy()
        found = {"luminance_correlation": (float(spearman(values, grey)), NOTHING)}
        covered = self.task.truth.inside[0].any(dim=0).float()[None] if self.task.truth.names else None
        if covered is not None and bool(covered.any()):
            boxes = cell_means(covered, self.grid).double().flatten().numpy()
            found["box_correlation"] = (float(spearman(values, boxes)), NOTHING)
        return found

    def _spot(self, made: Attribution, method: Method) -> Scores:
        truth = self.task.truth
        covered = truth.inside[0].flatten(0, 1).any(dim=0).float() if truth.names else torch.zeros(self.ids.shape[1:])
        taken = cell_means(covered[None, None], (1, *self.grid[1:]))[:, 0] > 0
        spots = with_spots(self.task.clip, self.grid, taken.to(self.task.clip.device))
        if not bool(spots.found):
            return {}
        painted = attribute(method, self.backbone, spots.clips, self.task.target)
        values = [self._values(one, "all")[None] for one in (made, painted)]
        before, after = (rank_at(own, spots.places, self.grid) for own in values)
        mass_before, mass_after = (mass_at(own, spots.places, self.grid) for own in values)
        change = self.score(spots.clips) - self.score(self.task.clip)
        return {
            "spot_rank_gain": (float(after - before), 0.0),
            "spot_rank_after": (float(after), 0.5),
            "spot_mass_gain": (float(mass_after - mass_before), 0.0),
            "spot_probability_change": (float(change), 0.0),
        }

    def _sensitivity(self, made: Attribution, method: Method) -> Scores:
        def maps(clips: Tensor) -> Tensor:
            return method.attribute(self.backbone, clips, self.task.target).cells.values

        return {"sensitivity_max": (float(sensitivity_max(maps, self.task.clip, self.task.seed)), NOTHING)}

    def _sanity(self, made: Attribution, method: Method) -> Scores:
        found: Scores = {}
        for start, copies in (("sanity", cascade), ("sanity_alone", independent)):
            by_part = sanity(method, self.backbone, self.task.clip, self.task.target, copies)
            found |= {f"{start}_{part.replace(' ', '_')}": (abs(rho), 0.0) for part, [rho] in by_part.items()}
        return found


def _probability(backbone: Backbone, target: Tensor, clips: Tensor) -> Tensor:
    return class_probability(backbone, clips, target.expand(len(clips)))


def _means(drawn: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: sum(one[name] for one in drawn) / len(drawn) for name in drawn[0]}
