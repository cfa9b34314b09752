"""Sightline's command line in this repository: ``python train.py --help`` lists the commands.

They stand in `sightline.commands.registry`; ``sightline <command>`` is the same.
"""

from sightline.commands.main import main

if __name__ == "__main__":
    main()
