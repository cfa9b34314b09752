"""The command line of ``sightline`` and ``python train.py``.

Only what every command needs is imported here, so that the list of commands and the light ones start at once.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from sightline.commands.messages import message_of
from sightline.commands.registry import COMMANDS, load_function, what_is_lacking

# Threads that spin while they wait for each other slow everything down many times where other programs use the cores as
# well: an epoch of the demo took 145 s instead of 19. OpenMP reads this once, when PyTorch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

DESCRIPTION = """\
Fine-tune, test, ablate and prune video transformers.

  python train.py fit --config configs/demo.yaml
  python train.py ablate --run runs/demo --split test
  python train.py prune --run runs/demo
  python train.py tokens --run runs/demo --kept [0.9,0.7,0.5]
  python train.py explain --run runs/demo
  python train.py test --run runs/demo --ckpt_path runs/demo/pruned/relevance-r-lowest-k2/model.ckpt
  sightline predict --exported runs/demo/pruned/relevance-r-lowest-k2 --video a.mp4 b.mp4
  sightline report --run runs/demo
  sightline compare --runs runs/seed0 runs/seed1 runs/seed2 --out runs/comparison
  sightline cost --backbone video_swin_s --num_classes 20 --remove 7 9 15

Every command can be given to both: sightline <command> is python train.py <command>."""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's name alone: a command parses its own arguments."""
    parser = argparse.ArgumentParser(description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    subparsers = parser.add_subparsers(dest="command", metavar="<command>", required=True)
    for name, command in COMMANDS.items():
        lacking = what_is_lacking(command)
        subparsers.add_parser(name, help=command.summary + (f" [{lacking}]" if lacking else ""), add_help=False)
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; mistakes of the user give one line.

    Raises:
        SystemExit: With the command's exit code; not after a command that trains or analyses a model has finished, so
            that a process that called it in Python goes on.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    given = list(sys.argv[1:] if arguments is None else arguments)
    name = build_parser().parse_args(given[:1]).command
    command = COMMANDS[name]
    try:
        code = load_function(command.function, name)(name, given[1:])
    except (ValueError, OSError, RuntimeError) as error:
        told = message_of(error)
        if told is None or os.environ.get("SIGHTLINE_TRACEBACK"):
            raise
        message = f"error: {told}\n(SIGHTLINE_TRACEBACK=1 shows where it was raised.)"
        if command.error_code == 1:
            sys.exit(message)
        print(message, file=sys.stderr)
        sys.exit(command.error_code)
    if code is not None:
        sys.exit(code)
