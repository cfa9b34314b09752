"""KernelSHAP and LIME over tubelets: a linear model of the class's probability by which tubelets are there, by captum.

Sources: Lundberg and Lee, "A Unified Approach to Interpreting Model Predictions", NIPS 2017 (theorem 2); Ribeiro, Singh
and Guestrin, "Why Should I Trust You?", KDD 2016 (section 3). Both run captum's implementations. What is gone shows the
blurred clip: captum mixes a clip with one base, so a frozen frame, which depends on what else is gone, cannot be one.

LIME's linear model is a ridge regression and its kernel an exponential one of the cosine distance of the masks with a
width of .25, as in the authors' code for images. (captum's default, a lasso with alpha .01, finds nothing in
probabilities: a tubelet among hundreds changes them by less.) With fewer samples than tubelets neither has a unique
solution; the regressions then return the smallest one.

Draws are seeded by the clip's pixels, so that they are the same in every batch and process.
"""

from __future__ import annotations

import importlib
import zlib
from abc import abstractmethod
from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar

import torch
from torch import Tensor

from sightline.backbones import Backbone
from sightline.explain.attribution.method import Attribution, Method, Passes
from sightline.explain.attribution.scores import BATCH, class_probability
from sightline.explain.attribution.tubelets import as_pixels, base_clips, tubelet_grid, tubelet_ids
from sightline.explain.cell_map import CellMap

WIDTH = 0.25
"""Of LIME's kernel."""


@dataclass(frozen=True)
class Surrogate(Method):
    """A linear model fitted to the scores of clips of which tubelets are gone at random.

    Attributes:
        samples: Clips that are run for each.
        seed: Another seed draws others.
    """

    samples: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.samples < 3:
            raise ValueError(f"{self.name} takes at least 3 samples, got {self.samples}.")

    def check(self, backbone: Backbone) -> None:
        captum()

    def attribute(self, backbone: Backbone, clips: Tensor, targets: Tensor) -> Attribution:
        grid = tubelet_grid(backbone)
        ids = tubelet_ids(grid, backbone).to(clips.device)[None, None]

        def scores(pixels: Tensor, target: Tensor) -> Tensor:
            return class_probability(backbone, pixels, target.expand(len(pixels)))

        maps = []
        for clip, target in zip(clips.unsqueeze(1), targets, strict=True):
            seed = zlib.crc32(clip.cpu().contiguous().numpy().tobytes(), self.seed)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                found = self.explainer(scores).attribute(
                    as_pixels(clip),
                    baselines=base_clips(clip, "blur"),
                    additional_forward_args=(target,),
                    feature_mask=ids,
                    n_samples=self.samples,
                    perturbations_per_eval=BATCH,
                    return_input_shape=False,
                )
            maps.append(found.flatten().double())
        values = torch.stack(maps).unflatten(1, grid)
        return Attribution(CellMap.over(values, backbone.input_spec), passes=Passes(forward=self.samples))

    @abstractmethod
    def explainer(self, scores: Any) -> Any:
        """Return captum's object that explains a function of clips."""


@dataclass(frozen=True)
class KernelSHAP(Surrogate):
    """KernelSHAP over tubelets."""

    name: ClassVar[str] = "kernel_shap"

    def explainer(self, scores: Any) -> Any:
        return captum().KernelShap(scores)


@dataclass(frozen=True)
class LIME(Surrogate):
    """LIME over tubelets."""

    name: ClassVar[str] = "lime"

    def explainer(self, scores: Any) -> Any:
        models = importlib.import_module("captum._utils.models.linear_model")
        return captum().Lime(scores, interpretable_model=models.SkLearnRidge(alpha=1.0), similarity_func=likeness)


def likeness(_: Tensor, __: Tensor, mask: Tensor, **___: object) -> Tensor:
    """Return how much a sample counts by its mask of tubelets, (1, M): exp(-d^2 / width^2), d the cosine distance."""
    share = mask.double().mean(dim=1)
    return torch.exp(-((1 - share.sqrt()) ** 2) / WIDTH**2).sqrt()


def captum() -> ModuleType:
    """Return captum's attribution module.

    Raises:
        ValueError: If captum, or scikit-learn, which its linear models are, is not installed.
    """
    try:
        importlib.import_module("sklearn")
        return importlib.import_module("captum.attr")
    except ModuleNotFoundError as error:
        raise ValueError(
            f"kernel_shap and lime need {error.name}, which is not installed: pip install 'sightline[explain]'."
        ) from error
