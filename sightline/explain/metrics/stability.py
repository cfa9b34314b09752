"""Whether a map stays when the clip hardly changes, and changes when the model does.

- **Sensitivity-max** (Yeh et al., "On the (In)fidelity and Sensitivity of Explanations", NeurIPS 2019, definition 3.1):
  the largest relative change of the map, ||a(x') - a(x)|| / ||a(x)||, among clips x' within a ball around the clip. Low
  is good, and 0 for a map that does not look at the clip at all.
- **Sanity** (Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018): weights are drawn anew, from the
  classifier down to the embedding, each part besides those before (cascade). Spearman's correlation with the trained
  model's map has to fall; where it does not, the map shows the clip and not the model.

Shapes: B clips, M cells of a map.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from sightline.backbones import Backbone
from sightline.explain.attribution.method import Method
from sightline.explain.attribution.tubelets import as_pixels
from sightline.explain.methods.controls import with_new_weights
from sightline.statistics.rank_correlation import spearman

RADIUS, SAMPLES = 0.02, 10
"""How far a pixel in [0, 1] may be off, as in captum, and how many clips are drawn."""
CLASSIFIER, EMBEDDING = "classifier", "embedding"


def sensitivity_max(
    maps: Callable[[Tensor], Tensor], clips: Tensor, seed: int, radius: float = RADIUS, samples: int = SAMPLES
) -> Tensor:
    """Return the largest relative change of each clip's map, float64 (B,); NaN where the map is all zero.

    Args:
        maps: Returns the maps (B, ...) of clips.
        clips: (B, 3, T, H, W), uint8 or float in [0, 1].
        seed: Of the noise, which is uniform and the same for every clip of a shape.
        radius: How far a pixel may be off.
        samples: How many clips are drawn.
    """
    pixels = as_pixels(clips)
    own = maps(pixels).double().flatten(1)
    generator = torch.Generator().manual_seed(seed)
    largest = own.new_zeros(len(own))
    for _ in range(samples):
        noise = torch.rand(pixels.shape[1:], generator=generator).to(pixels) * 2 - 1
        other = maps((pixels + radius * noise).clamp(0, 1)).double().flatten(1)
        largest = torch.maximum(largest, (other - own).norm(dim=1))
    length = own.norm(dim=1)
    return torch.where(length > 0, largest / length, float("nan"))


def cascade(backbone: Backbone, seed: int) -> Iterator[tuple[str, Backbone]]:
    """Yield copies of which more and more weights are drawn anew, from the classifier down, each with the last part."""
    layers = sorted(backbone.layer_modules().items(), reverse=True)
    own = {f"layer {index}": {id(p) for p in module.parameters()} for index, module in layers}
    taken = set().union(*own.values()) if own else set()
    named = {id(parameter): name for name, parameter in backbone.named_parameters()}
    classifier = {id(backbone.get_parameter(key)) for key in backbone.classifier_keys()}
    groups = [(CLASSIFIER, classifier), *own.items(), (EMBEDDING, set(named) - taken - classifier)]
    gone: set[str] = set()
    for name, members in groups:
        gone |= {named[one] for one in members}
        yield name, with_new_weights(backbone, seed, frozenset(gone))


def sanity(method: Method, backbone: Backbone, clips: Tensor, targets: Tensor, seed: int = 0) -> dict[str, list[float]]:
    """Return the rank correlation of every clip's map with the trained model's, by what was drawn anew last.

    NaN where a map is constant.
    """
    trained = _flat(method.attribute(backbone, clips, targets).cells.values)
    found = {}
    for name, fresh in cascade(backbone, seed):
        other = _flat(method.attribute(fresh, clips, targets).cells.values)
        found[name] = [float(spearman(a.numpy(), b.numpy())) for a, b in zip(trained, other, strict=True)]
    return found


def _flat(values: Tensor) -> Tensor:
    return values.detach().double().flatten(1).cpu()
