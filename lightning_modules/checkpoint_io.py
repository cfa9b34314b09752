"""How Lightning reads and writes checkpoints here: local files only, nothing in them is ever run, and always whole."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.plugins.io import TorchCheckpointIO

from sightline.checkpoints.files import CheckpointError, file_content, is_state_dict, read_checkpoint
from sightline.checkpoints.finite import check_finite
from sightline.run.atomic import replacing

RESUMED = ("epoch", "global_step", "loops", "optimizer_states", "lr_schedulers")
"""What a checkpoint must hold for training to go on from it."""


class SafeCheckpointIO(TorchCheckpointIO):
    """Writes beside the place of the file, and reads as `sightline.checkpoints.loading.read_checkpoint` does.

    Lightning by default fetches addresses and unpickles what comes; a hostile file could then run any code. What it
    writes lies in the system's temporary folder until it is whole, where a killed process leaves it.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write a checkpoint to a file that is either whole or not there."""
        content = file_content(checkpoint)
        with replacing(Path(path)) as temporary:
            temporary.write_bytes(content)

    def load_checkpoint(self, path: str | Path, *_: Any, **__: Any) -> dict[str, Any]:
        """Read a local checkpoint; whatever else Lightning asks for (``weights_only=False``) is not done.

        Raises:
            CheckpointError: If it cannot be read, or is not that of a run.
        """
        content = dict(read_checkpoint(path))
        if "pytorch-lightning_version" not in content or "hyper_parameters" not in content:
            raise CheckpointError(
                f"{path} is not a checkpoint of a run (its keys are {', '.join(map(str, list(content)[:4]))}, ...). "
                "To start from other people's weights, pass them as --model.weights and not as --ckpt_path."
            )
        tensors = content.get("state_dict")
        if not is_state_dict(tensors):
            raise CheckpointError(
                f"{path} holds no state dict (a mapping of names to tensors, dense ones), so no weights."
            )
        check_finite(tensors, path)
        return content


def check_resumable(content: Mapping[str, Any], path: str | Path) -> None:
    """Raise CheckpointError where training cannot go on from a checkpoint."""
    missing = [key for key in RESUMED if key not in content]
    if missing:
        raise CheckpointError(
            f"Training cannot go on from {path}: it lacks {', '.join(missing)}, as exported models do. Resume from a "
            "run's checkpoints/last.ckpt, or start a new run from these weights with --model.weights."
        )
