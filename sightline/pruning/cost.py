"""``python -m sightline.pruning.cost``, the earlier name of ``sightline cost``."""

import sys

if __name__ == "__main__":
    from sightline.commands.main import main

    sys.argv[0] = "sightline"  # how --help names the program
    main(["cost", *sys.argv[1:]])
