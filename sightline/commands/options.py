"""Options of a command, made from the signature and docstring of the function that does its work."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser


def usage_name(command: str) -> str:
    """Return how a command was called, for its --help: ``train.py fit`` or ``sightline fit``."""
    return f"{Path(sys.argv[0]).name} {command}"


def explanation(function: Callable[..., Any]) -> str:
    """Return what a function's docstring says before its arguments."""
    return inspect.cleandoc(function.__doc__ or "").partition("\nArgs:")[0].strip()


def call_with_options(
    function: Callable[..., Any], command: str, arguments: list[str], words: Mapping[str, str] | None = None
) -> Any:
    """Call a function with the options on a command line.

    Args:
        function: Its parameters become options, explained as its docstring does.
        command: The command's name.
        arguments: What stands behind that name.
        words: Parameters that take several words and may be given several times, with their explanations.
    """
    parser = ArgumentParser(prog=usage_name(command), description=explanation(function))
    parser.add_function_arguments(function, as_group=False, skip=set(words or ()))
    for name, text in (words or {}).items():
        parser.add_argument(f"--{name}", type=str, nargs="+", action="extend", required=True, help=text)
    return function(**parser.parse_args(arguments).as_dict())


def take_nested(option: str, arguments: list[str]) -> tuple[dict[str, str], list[str]]:
    """Split ``--option.KEY VALUE`` and ``--option.KEY=VALUE`` from the other arguments.

    Args:
        option: The name before the dot, without hyphens.
        arguments: A command line.

    Returns:
        The values by key, and what is left.

    Raises:
        ValueError: If a key has no value.
    """
    found: dict[str, str] = {}
    others: list[str] = []
    rest = iter(arguments)
    for word in rest:
        if not word.startswith(f"--{option}."):
            others.append(word)
            continue
        name, has_value, value = word.partition("=")
        if not has_value:
            try:
                value = next(rest)
            except StopIteration:
                raise ValueError(f"Expected a value behind {name}, got none.") from None
        found[name.removeprefix(f"--{option}.")] = value
    return found, others
