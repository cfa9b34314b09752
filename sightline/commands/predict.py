"""``predict``: classes of a run's test clips, or of plain video files with an exported model."""

from __future__ import annotations

import argparse

from sightline.commands.registry import TRAINING, load_function


def run(name: str, arguments: list[str]) -> int | None:
    """Run the command; with ``--exported`` it needs neither a run nor a data set, and none of the training code."""
    chooser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    chooser.add_argument("--exported")
    if chooser.parse_known_args(arguments)[0].exported is None:
        return load_function(TRAINING, name)(name, arguments)
    return load_function("sightline.commands.predict_files:run", name)(name, arguments)
