"""Controls: maps that know nothing of the model, or of what it has learned. No better than these is worth nothing.

Cells are those of `tubelet_grid`, which all metrics remove.

Shapes: B clips, (T, H, W) cells.
"""

from __future__ import annotations

import copy
import zlib
from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from sightline.backbones import Backbone
from sightline.explain.attribution.method import Attribution, Method
from sightline.explain.attribution.tubelets import as_pixels, tubelet_grid
from sightline.explain.cell_map import CellMap

# Of red, green and blue in luminance (ITU-R BT.601).
LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class RandomMap(Method):
    """Uniform noise.

    Attributes:
        seed: Another seed draws others. A draw depends on it and on the clip's pixels, so that it is the same in every
            batch and process.
    """

    name: ClassVar[str] = "random"
    control: ClassVar[bool] = True
    seed: int = 0

    def attribute(self, backbone: Backbone, clips: Tensor, targets: Tensor) -> Attribution:
        grid = tubelet_grid(backbone)
        maps = []
        for clip in clips:
            seed = zlib.crc32(clip.cpu().contiguous().numpy().tobytes(), self.seed)
            maps.append(torch.rand(grid, generator=torch.Generator().manual_seed(seed)))
        return _map(torch.stack(maps).to(clips.device), backbone)


@dataclass(frozen=True)
class CentrePrior(Method):
    """The middle of every frame: a Gaussian whose deviation is a quarter of the frame, alike in all frames."""

    name: ClassVar[str] = "centre"
    control: ClassVar[bool] = True

    def attribute(self, backbone: Backbone, clips: Tensor, targets: Tensor) -> Attribution:
        t, h, w = tubelet_grid(backbone)
        down, across = ((torch.arange(n, device=clips.device) + 0.5) / n - 0.5 for n in (h, w))
        values = torch.exp(-8 * (down[:, None] ** 2 + across[None] ** 2))
        return _map(values.expand(len(clips), t, h, w).clone(), backbone)


@dataclass(frozen=True)
class MotionEnergy(Method):
    """How much pixels change from the frame before, mean of the squares; of the first frame, to the next one."""

    name: ClassVar[str] = "motion"
    control: ClassVar[bool] = True

    def attribute(self, backbone: Backbone, clips: Tensor, targets: Tensor) -> Attribution:
        grey = luminance(clips)
        if grey.shape[1] == 1:
            return _map(grey.new_zeros(len(clips), *tubelet_grid(backbone)), backbone)
        change = grey.diff(dim=1).square()
        return _map(cell_means(torch.cat((change[:, :1], change), dim=1), tubelet_grid(backbone)), backbone)


@dataclass(frozen=True)
class Brightness(Method):
    """Mean luminance."""

    name: ClassVar[str] = "brightness"
    control: ClassVar[bool] = True

    def attribute(self, backbone: Backbone, clips: Tensor, targets: Tensor) -> Attribution:
        return _map(cell_means(luminance(clips), tubelet_grid(backbone)), backbone)


@dataclass(frozen=True)
class Untrained(Method):
    """Another method's map of the same model with weights drawn anew.

    Attributes:
        of: Name of the other method.
        seed: Of the weights.
        method: The other method itself, which the registry fills in.
    """

    name: ClassVar[str] = "untrained"
    control: ClassVar[bool] = True
    of: str = "chefer"
    seed: int = 0
    method: Method | None = field(default=None, compare=False, metadata={"given": True})

    def check(self, backbone: Backbone) -> None:
        if self.method is None:
            raise ValueError("untrained is the control of another method: name it, as untrained:of=staa.")
        self.method.check(backbone)

    def attribute(self, backbone: Backbone, clips: Tensor, targets: Tensor) -> Attribution:
        assert self.method is not None
        return self.method.attribute(with_new_weights(backbone, self.seed), clips, targets)


def with_new_weights(backbone: Backbone, seed: int, names: frozenset[str] | None = None) -> Backbone:
    """Return a copy with weights drawn anew: normal, each tensor with its own mean and standard deviation.

    So drawn, activations keep their size, and a map that stays the same owes nothing to what was learned. (The
    families' own initialisation, with which training begins, makes attention nearly uniform in all of them.)

    Args:
        backbone: The trained model.
        seed: Of the draws; a tensor's depends on it and on the tensor's name.
        names: Which parameters; all if None.
    """
    fresh = copy.deepcopy(backbone)
    with torch.no_grad():
        for name, parameter in fresh.named_parameters():
            if names is None or name in names:
                generator = torch.Generator().manual_seed(zlib.crc32(name.encode(), seed))
                noise = torch.randn(parameter.shape, generator=generator).to(parameter)
                spread = parameter.std() if parameter.numel() > 1 else parameter.abs().mean()
                parameter.copy_(noise * spread + parameter.mean())
    return fresh.train(fresh.training)  # which drops what was cached of the old weights


def luminance(clips: Tensor) -> Tensor:
    """Return the luminance of clips (B, 3, T, H, W), uint8 or float in [0, 1], in [0, 1], (B, T, H, W)."""
    return torch.einsum("bcthw,c->bthw", as_pixels(clips).float(), torch.tensor(LUMA, device=clips.device))


def cell_means(values: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """Return the mean over each cell of what pixels have, (B, T, H, W) -> (B, *grid)."""
    return F.adaptive_avg_pool3d(values.unsqueeze(1), grid).squeeze(1)


def _map(values: Tensor, backbone: Backbone) -> Attribution:
    return Attribution(CellMap.over(values, backbone.input_spec))
