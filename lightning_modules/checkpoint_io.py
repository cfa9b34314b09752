"""How Lightning reads checkpoints here: local files only, and nothing in them is ever run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch.plugins.io import TorchCheckpointIO

from sightline.checkpoints.files import CheckpointError, read_checkpoint, state_dict_of
from sightline.checkpoints.finite import check_finite


class SafeCheckpointIO(TorchCheckpointIO):
    """Writes as Lightning does, and reads as `sightline.checkpoints.loading.read_checkpoint` does.

    Lightning by default fetches addresses and unpickles what comes; a hostile file could then run any code.
    """

    def load_checkpoint(self, path: str | Path, *_: Any, **__: Any) -> dict[str, Any]:
        """Read a local checkpoint; whatever else Lightning asks for (``weights_only=False``) is not done."""
        content = dict(read_checkpoint(path))
        if "pytorch-lightning_version" not in content or "hyper_parameters" not in content:
            raise CheckpointError(
                f"{path} is not a checkpoint of a run (its keys are {', '.join(list(content)[:4])}, ...). "
                "To start from other people's weights, pass them as --model.weights and not as --ckpt_path."
            )
        check_finite(state_dict_of(content, path), path)
        return content
