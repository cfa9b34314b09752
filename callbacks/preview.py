"""Pictures of batches as the model sees them, before any training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from datamodules.clip_data_module import ClipDataModule
from sightline.report.figures.contact_sheet import contact_sheet
from sightline.report.figures.style import DPI, styled
from sightline.run.atomic import replacing
from sightline.types import ClipBatch


def preview(data: ClipDataModule, folder: Path, out: str | None = None, clips: int = 8) -> None:
    """Draw clips of a training batch and of an evaluation batch as the model sees them, with their labels.

    The training clips are the first ones of the first epoch, augmented. The evaluation clips are spread over the test
    split (or the validation split, where there is no test split) and are shown in all the views that a test averages.

    Args:
        data: The data.
        folder: Where the pictures go by default.
        out: Folder for preview_train.png and preview_test.png; by default the current one, or the run's figures/.
        clips: How many clips to draw of each.
    """
    if clips < 1:
        raise ValueError(f"Expected clips >= 1, got {clips}.")
    data.prepare_data()
    target = folder if out is None else Path(out)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if data.clips("train"):
        batch = next(iter(data.train_dataloader()))
        batch["clip"] = batch["clip"].to(device)
        _draw(data.augment(batch), data.class_names, clips, "Training", target / "preview_train.png")
    split = next((split for split in ("test", "val") if data.clips(split)), None)
    if split is not None:
        every = data.clips(split)
        chosen = [every[place] for place in np.linspace(0, len(every) - 1, min(clips, len(every))).round().astype(int)]
        [batch] = data.evaluation_loader(chosen, batch_size=len(chosen), views=split == "test")
        title = "Evaluation (test split)" if split == "test" else "Evaluation (validation split)"
        _draw(batch, data.class_names, clips, title, target / f"preview_{split}.png")


def _draw(batch: ClipBatch, class_names: list[str], count: int, title: str, path: Path) -> None:
    for name, reason in batch["unreadable"]:
        print(f"Left out, unreadable: {name}: {reason}")
    samples = len(batch["label"])
    if not samples:
        print(f"{title}: none of the clips could be read, so there is no picture.")
        return
    views = len(batch["clip"]) // samples
    captions = [
        f"{class_names[label]}  |  {name}" + (f"  |  view {view + 1} of {views}" if views > 1 else "")
        for label, name in zip(batch["label"].tolist(), batch["sample_id"], strict=True)
        for view in range(views)
    ]
    shown = min(count, samples) * views
    frames = batch["clip"][:shown].permute(0, 2, 3, 4, 1).cpu().numpy()
    _, length, height, width, _ = frames.shape
    heading = f"{title}: {min(count, samples)} clips of {length} frames, {width}x{height} pixels"
    figure = contact_sheet(list(frames), captions[:shown], heading)
    with styled(), replacing(path) as temporary:
        figure.savefig(temporary, dpi=DPI)
    print(f"{title}: {path}")
