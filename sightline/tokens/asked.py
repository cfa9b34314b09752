"""Which token reductions a user asks to have compared: methods with options, and draws of the random control."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sightline.backbones import Backbone
from sightline.backbones.contract.reducer import ReductionPoints
from sightline.options import split_options
from sightline.tokens.registry import REDUCERS
from sightline.tokens.spec import TokenReduction

CONTROL = "random"
"""What every other method has to beat. Its answer is up to chance, so that several draws of it are tested."""
SEED = "seed"
"""The control's option that tells draws apart."""


def read_method(asked: str | Mapping[str, Any]) -> TokenReduction:
    """Read a method as a command line or a configuration names it.

    Args:
        asked: ``random``, with options ``random:layer=2:seed=3``, or ``{"name": "random", "options": {"layer": 2}}``.

    Raises:
        ValueError: If the name or an option is unknown, or a value is not of the option's kind.
    """
    if not isinstance(asked, str):
        return TokenReduction.from_plain(asked)
    if asked.startswith("["):  # a command line's list that was not one of words
        raise ValueError(
            f"Expected a list of token reductions, got {asked}. Commas within an option need quotes there: "
            "--methods \"['sta:schedule=48,48,48',random]\"."
        )
    return TokenReduction.from_text(*split_options(asked))


def read_methods(asked: Sequence[str | Mapping[str, Any]]) -> list[TokenReduction]:
    """Read methods, each once, in their order.

    Raises:
        ValueError: If there is none, or one cannot be read.
    """
    methods = list(dict.fromkeys(map(read_method, asked)))
    if not methods:
        raise ValueError(f"Name at least one token reduction; known are {', '.join(REDUCERS)}.")
    return methods


def with_draws(method: TokenReduction, draws: int) -> list[TokenReduction]:
    """Return the draws of the control, one per seed from 0; any other method, or a seed that was asked for, alone."""
    options = dict(method.options)
    if method.name != CONTROL or SEED in options:
        return [method]
    return [TokenReduction.of(method.name, {**options, SEED: seed}) for seed in range(draws)]


def check_method(method: TokenReduction, backbone: Backbone) -> None:
    """Raise ValueError where a method cannot work with a backbone whatever amount it drops, or names that amount."""
    amounts = method.build().amounts(backbone)
    for name, value in method.options:
        # A list of amounts says how they are shared among places as well: it stays an option.
        if not isinstance(value, str) and getattr(amounts[0], name) != getattr(amounts[-1], name):
            raise ValueError(
                f"How many tokens {method.name} keeps is chosen here, by the shares to keep (kept); got "
                f"{name}={value}. Leave {name} out."
            )
    ReductionPoints(backbone, amounts[0])  # its checks


def usable_methods(backbone: Backbone) -> tuple[list[TokenReduction], dict[str, str]]:
    """Return all registered methods that work with a backbone, and of every other one why it does not."""
    found, refused = [], {}
    for name in REDUCERS:
        method = TokenReduction.of(name)
        try:
            check_method(method, backbone)
        except ValueError as error:
            refused[name] = str(error)
        else:
            found.append(method)
    return found, refused
