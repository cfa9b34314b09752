"""Calling the command line in process (starting it anew costs ten seconds each time)."""

import pytest

import train


def code_of(*arguments: str) -> int:
    """The exit code of a command that ends with one."""
    with pytest.raises(SystemExit) as stopped:
        train.main(list(arguments))
    assert isinstance(stopped.value.code, int), stopped.value.code
    return stopped.value.code


def error_of(capsys: pytest.CaptureFixture, *arguments: str) -> str:
    """What a command that fails says."""
    with pytest.raises(SystemExit) as stopped:
        train.main(list(arguments))
    assert stopped.value.code
    return str(stopped.value) + capsys.readouterr().err
