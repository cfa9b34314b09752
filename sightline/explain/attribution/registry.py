"""The attribution methods that can be asked for by name. A method registers here and nowhere else."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from sightline.backbones import Backbone
from sightline.explain.attribution.method import Method
from sightline.explain.methods.chefer import GenericRelevance
from sightline.explain.methods.controls import Brightness, CentrePrior, MotionEnergy, RandomMap, Untrained
from sightline.explain.methods.grad_cam import GradCAM
from sightline.explain.methods.integrated_gradients import IntegratedGradients
from sightline.explain.methods.layer_attention import HeadAttention, RawAttention, Rollout
from sightline.explain.methods.legrad import LeGrad
from sightline.explain.methods.occlusion import Occlusion
from sightline.explain.methods.relevant_heads import RelevantHeads
from sightline.explain.methods.staa import STAA
from sightline.explain.methods.surrogates import LIME, KernelSHAP
from sightline.explain.methods.token_sampling import TokenSampling
from sightline.options import checked_option, defaults_of, read_option, split_options

_METHODS: tuple[type[Method], ...] = (
    STAA,
    RawAttention,
    Rollout,
    HeadAttention,
    RelevantHeads,
    GenericRelevance,
    LeGrad,
    GradCAM,
    IntegratedGradients,
    Occlusion,
    KernelSHAP,
    LIME,
    TokenSampling,
    RandomMap,
    CentrePrior,
    MotionEnergy,
    Brightness,
    Untrained,
)
METHODS: dict[str, type[Method]] = {method.name: method for method in _METHODS}


def read_method(asked: str | Mapping[str, Any]) -> Method:
    """Read a method as a command line or a configuration names it.

    Args:
        asked: ``staa``, with options ``staa:lam=1.5:window=5``, or ``{"name": "staa", "options": {"lam": 1.5}}``.

    Raises:
        ValueError: If the name or an option is unknown, or a value is not of the option's kind.
    """
    if isinstance(asked, str):
        name, words = split_options(asked)
        defaults = _defaults(name)
        read = {key: read_option(text, defaults.get(key, text), f"{name}.{key}") for key, text in words.items()}
        return _built(name, read)
    given, options = asked.get("name"), asked.get("options", {})
    if not isinstance(given, str) or not isinstance(options, Mapping):
        raise ValueError(f"Expected a method as {{'name': ..., 'options': {{...}}}}, got {dict(asked)!r}.")
    return _built(given, options)


def read_methods(asked: Sequence[str | Mapping[str, Any]]) -> list[Method]:
    """Read methods, each once, in their order.

    Raises:
        ValueError: If there is none, or one cannot be read.
    """
    methods = list(dict.fromkeys(map(read_method, asked)))
    if not methods:
        raise ValueError(f"Name at least one attribution method; known are {', '.join(METHODS)}.")
    return methods


def usable_methods(backbone: Backbone) -> tuple[list[Method], dict[str, str]]:
    """Return all registered methods that work with a backbone, and of every other one why it does not."""
    found, refused = [], {}
    for name in METHODS:
        method = read_method(name)
        try:
            method.check(backbone)
        except ValueError as error:
            refused[name] = str(error)
        else:
            found.append(method)
    return found, refused


def label_of(method: Method) -> str:
    """Return a method's name with the options that differ from their defaults, ``staa lam=1.5``."""
    defaults = defaults_of(type(method))
    given = {key: getattr(method, key) for key in defaults}
    return " ".join([method.name, *(f"{key}={value}" for key, value in given.items() if value != defaults[key])])


def _defaults(name: str) -> dict[str, Any]:
    if name not in METHODS:
        raise ValueError(f"Unknown attribution method {name!r}; known are {', '.join(METHODS)}.")
    return defaults_of(METHODS[name])


def _built(name: str, options: Mapping[str, Any]) -> Method:
    defaults = _defaults(name)
    for key in options:
        if key not in defaults:
            known = ", ".join(defaults) or "none"
            raise ValueError(f"{name} has no option {key!r}; its options are {known}.")
    checked = {key: checked_option(value, defaults[key], f"{name}.{key}") for key, value in options.items()}
    method = dataclasses.replace(METHODS[name](), **checked)
    if not isinstance(method, Untrained):
        return method
    if method.of == name:
        raise ValueError("untrained is the control of another method; got itself. Name another, as untrained:of=staa.")
    return dataclasses.replace(method, method=_built(method.of, {}))
