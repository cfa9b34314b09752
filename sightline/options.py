"""Options of methods that are registered by name, as a command line has them: ``random:layer=2:seed=3``.

A method is a frozen dataclass; its fields, all with defaults, are its options. A field whose metadata say ``given`` is
none: whoever runs the method fills it in.
"""

from __future__ import annotations

import dataclasses
from typing import Any

Value = bool | int | float | str


def defaults_of(kind: type) -> dict[str, Any]:
    """Return the options of a method with their default values."""
    return {field.name: field.default for field in dataclasses.fields(kind) if "given" not in field.metadata}


def split_options(text: str) -> tuple[str, dict[str, str]]:
    """Return the name and the options, as words, of ``name:option=value:option=value``.

    Raises:
        ValueError: If an option is not of that form.
    """
    name, *given = text.split(":")
    pairs = [word.partition("=") for word in given]
    bad = next((word for word, pair in zip(given, pairs, strict=True) if not (pair[0] and pair[1])), None)
    if bad is not None:
        raise ValueError(f"Expected an option of {name} as name=value, got {bad!r} in {text!r}.")
    return name.strip(), {key.strip(): value.strip() for key, _, value in pairs}


def read_option(text: str, default: Value, what: str) -> Value:
    """Read a word of the kind that an option's default has.

    Raises:
        ValueError: If it is of another kind.
    """
    kind = type(default)
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError(f"Option {what} must be true or false, got {text!r}.")
        return text.lower() == "true"
    try:
        return kind(text)
    except ValueError as error:
        raise ValueError(f"Option {what} must be of type {kind.__name__}, got {text!r}.") from error


def checked_option(value: Any, default: Any, what: str) -> Value:
    """Return a value of the kind that an option's default has; a whole number stands for a float as well.

    Raises:
        ValueError: If it is of another kind.
    """
    kind = type(default)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise ValueError(f"Option {what} must be of type {kind.__name__}, got {value!r}.")
    return value
