"""Calling the command line in process (starting it anew costs ten seconds each time)."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import train

HEAVY = {"torch", "torchvision", "timm", "lightning", "wandb", "pandas", "matplotlib", "plotly"}


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


def imported_by(*arguments: str) -> set[str]:
    """The heavy packages that a command imports, in a process of its own."""
    code = (
        "import json, sys\nfrom sightline.commands.main import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=Path(train.__file__).parent,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return HEAVY & set(json.loads(done.stdout.splitlines()[-1]))
