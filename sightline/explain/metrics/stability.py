"""Whether a map stays when the clip hardly changes, and changes when the model does.

- **Sensitivity-max** (Yeh et al., "On the (In)fidelity and Sensitivity of Explanations", NeurIPS 2019, definition 3.1):
  the largest relative change of the map, ||a(x') - a(x)|| / ||a(x)||, among clips x' within a ball around the clip. Low
  is good, and 0 for a map that does not look at the clip at all. As captum's, but pixels stay within [0, 1].
- **Sanity** (Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018): weights are drawn anew, from the
  classifier down to the embedding, each part besides those before (cascade) or each alone (independent). Spearman's
  correlation with the trained model's map has to fall along the cascade; where it does not, the map shows the clip and
  not the model. What belongs neither to a layer nor to the classifier (the last norm, patch merging) is drawn with the
  embedding. The paper compares absolute values too; here values have the sign that the method gives them.

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
Copies = Callable[[Backbone, int], Iterator[tuple[str, Backbone]]]


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
    gone: frozenset[str] = frozenset()
    for name, members in _parts(backbone):
        gone |= members
        yield name, with_new_weights(backbone, seed, gone)


def independent(backbone: Backbone, seed: int) -> Iterator[tuple[str, Backbone]]:
    """Yield copies of which one part's weights are drawn anew, from the classifier down, each with that part."""
    for name, members in _parts(backbone):
        yield name, with_new_weights(backbone, seed, members)


def _parts(backbone: Backbone) -> list[tuple[str, frozenset[str]]]:
    """Return the parts of a model from the classifier down, with the names of their parameters."""
    layers = sorted(backbone.layer_modules().items(), reverse=True)
    own = {f"layer {index}": {id(p) for p in module.parameters()} for index, module in layers}
    taken = set().union(*own.values()) if own else set()
    named = {id(parameter): name for name, parameter in backbone.named_parameters()}
    classifier = {id(backbone.get_parameter(key)) for key in backbone.classifier_keys()}
    groups = [(CLASSIFIER, classifier), *own.items(), (EMBEDDING, set(named) - taken - classifier)]
    return [(name, frozenset(named[one] for one in members)) for name, members in groups]


def sanity(
    method: Method, backbone: Backbone, clips: Tensor, targets: Tensor, copies: Copies = cascade, seed: int = 0
) -> dict[str, list[float]]:
    """Return the rank correlation of every clip's map with the trained model's, by what was drawn anew last.

    Args:
        method: Whose maps.
        backbone: The trained model; it is left as it is.
        clips: (B, 3, T, H, W).
        targets: int64 (B,).
        copies: `cascade` or `independent`.
        seed: Of the weights.

    Returns:
        Part -> B values; NaN where a map is constant.
    """
    trained = _flat(method.attribute(backbone, clips, targets).cells.values)
    found = {}
    for name, fresh in copies(backbone, seed):
        other = _flat(method.attribute(fresh, clips, targets).cells.values)
        found[name] = [float(spearman(a.numpy(), b.numpy())) for a, b in zip(trained, other, strict=True)]
    return found


def _flat(values: Tensor) -> Tensor:
    return values.detach().double().flatten(1).cpu()
