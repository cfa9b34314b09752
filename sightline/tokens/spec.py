"""Which token reduction a model runs with: a name and options, as plans, files and command lines state it."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sightline.options import Value, checked_option, defaults_of, read_option
from sightline.tokens.registry import REDUCERS
from sightline.tokens.token_reducer import TokenReducer

# Of a label: with the rest of a plan's name it stays near 100 characters, and folders' paths within what systems allow.
LONGEST_LABEL = 60


@dataclass(frozen=True)
class TokenReduction:
    """A registered reducer with the options that differ from its defaults.

    Attributes:
        name: A registered name, see `sightline.tokens.REDUCERS`.
        options: Names and values of its options, sorted by name.
    """

    name: str
    options: tuple[tuple[str, Value], ...] = ()

    @classmethod
    def of(cls, name: str, options: Mapping[str, Any] | None = None) -> TokenReduction:
        """Check a name and its options, and drop those that have their default value.

        Raises:
            ValueError: If the name or an option is unknown, or a value is not of the option's kind.
        """
        if name not in REDUCERS:
            raise ValueError(f"Unknown token reduction {name!r}; known are {', '.join(REDUCERS)}.")
        defaults = _defaults(name)
        given = {}
        for key, value in (options or {}).items():
            if key not in defaults:
                raise ValueError(f"{name} has no option {key!r}; its options are {', '.join(defaults)}.")
            given[key] = checked_option(value, defaults[key], f"{name}.{key}")
        cls(name, tuple(given.items())).build()  # its own checks of the values
        return cls(name, tuple(sorted((key, value) for key, value in given.items() if value != defaults[key])))

    @classmethod
    def from_text(cls, name: str, options: Mapping[str, str]) -> TokenReduction:
        """Read options as a command line has them, each a word of the kind that its default has.

        Raises:
            ValueError: If the name or an option is unknown, or a word is not of the option's kind.
        """
        defaults = _defaults(cls.of(name).name)
        return cls.of(
            name, {key: read_option(text, defaults.get(key, text), f"{name}.{key}") for key, text in options.items()}
        )

    @property
    def label(self) -> str:
        """Its part of a plan's name, without hyphens (a minus is ``m``), e.g. ``random_kept0.7``.

        Two reductions never share a label: where words in it have other characters than letters, digits and dots, or it
        is too long for the name of a folder, a checksum of the values is appended.
        """
        words = [value for _, value in self.options if isinstance(value, str)]
        parts = [
            key + (value if isinstance(value, str) else repr(value).replace("-", "m")) for key, value in self.options
        ]
        plain = re.sub(r"[^A-Za-z0-9._]+", "_", "_".join([self.name, *parts]))
        clear = all(re.fullmatch(r"[A-Za-z0-9.]*", word) for word in words) and "+" not in "".join(parts)
        if clear and len(plain) <= LONGEST_LABEL:
            return plain
        checksum = f"_{zlib.crc32(repr(self.options).encode()):08x}"
        return plain[: LONGEST_LABEL - len(checksum)].rstrip("_.") + checksum

    def build(self) -> TokenReducer:
        """Build the reducer."""
        kind: Any = REDUCERS[self.name]  # each takes options of its own
        return kind(**dict(self.options))

    def plain(self) -> dict[str, Any]:
        """Return plain values for JSON, ``{"name": ..., "options": {...}}``, with all options.

        Those with their default value too: a file keeps its meaning where a later version has other defaults.
        """
        return {"name": self.name, "options": {**_defaults(self.name), **dict(self.options)}}

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> TokenReduction:
        """Read what `plain` returned.

        Raises:
            ValueError: If it is not of that form, or names something unknown.
        """
        if not isinstance(values, Mapping) or not isinstance(values.get("name"), str):
            raise ValueError(f"Expected tokens as {{'name': ..., 'options': {{...}}}}, got {values!r}.")
        options = values.get("options", {})
        if not isinstance(options, Mapping):
            raise ValueError(f"Expected the options of tokens as a mapping, got {options!r}.")
        known = REDUCERS.get(values["name"])
        return cls.of(values["name"], options if known is None else known.of_older(options))


def _defaults(name: str) -> dict[str, Any]:
    return defaults_of(REDUCERS[name])
