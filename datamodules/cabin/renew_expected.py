"""Take the clips of a rendered folder as what is expected of its settings.

    python -m datamodules.cabin.renew_expected data/synthetic_cabin/FOLDER

To be run after a change of `datamodules.cabin.files.FORMAT_VERSION`, from a folder that a plain run has rendered.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from datamodules.cabin import digests
from sightline.run.atomic import write_json


def main(folders: list[str]) -> None:
    """Take the clips of rendered folders as what is expected of their settings from now on."""
    expected = json.loads(digests.EXPECTED.read_text()) if digests.EXPECTED.is_file() else {}
    for folder in map(Path, folders):
        expected[folder.name] = digests.expected_of(digests.read_digests(folder))
    write_json(digests.EXPECTED, expected)


if __name__ == "__main__":
    main(sys.argv[1:])
