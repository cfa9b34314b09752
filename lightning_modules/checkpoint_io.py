"""How Lightning reads checkpoints here: local files only, and nothing in them is ever run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch.plugins.io import TorchCheckpointIO

from sightline.backbones.checkpoints import read_checkpoint


class SafeCheckpointIO(TorchCheckpointIO):
    """Writes as Lightning does, and reads as `sightline.backbones.checkpoints.read_checkpoint` does.

    Lightning by default fetches addresses and unpickles what comes; a hostile file could then run any code.
    """

    def load_checkpoint(self, path: str | Path, *_: Any, **__: Any) -> dict[str, Any]:
        """Read a local checkpoint; whatever else Lightning asks for (``weights_only=False``) is not done."""
        return dict(read_checkpoint(path))
