"""An exported model as an object: `load` it, then classify videos, frames or clips with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sightline.backbones import Backbone, Reducer
from sightline.export.depth import layers_to_skip
from sightline.export.prediction import Prediction, check_windows, classify_parts, read_parts
from sightline.export.reading import ExportError, load_exported, read_description
from sightline.run.paths import DESCRIPTION, RunFolder
from sightline.types import InputSpec
from sightline.video.preprocessing import Preprocessing
from sightline.video.sources import FrameSource, Image, as_source

Device = Literal["auto", "cpu", "cuda"]
Video = FrameSource | str | PathLike[str] | Image | Iterable[Image]
"""A path, frames that are decoded already, or another source of frames."""
Clips = Tensor | NDArray[np.uint8] | Sequence[Tensor]
"""Clips (B, 3, T, H, W), RGB, uint8 or float in [0, 1], or one (3, T, H, W) after the other."""


class Model:
    """An exported model; `load` makes one.

    Attributes:
        folder: The folder that it was read from.
        description: All that the folder's ``model.json`` says, e.g. ``description["provenance"]``.
        backbone: The network, in evaluation mode.
        reducer: The token reduction that the network runs with; None for all tokens.
        classes: Names of the classes, in the order of the network's outputs.
        preprocessing: How a video becomes a clip.
    """

    def __init__(
        self,
        folder: Path,
        description: Mapping[str, Any],
        backbone: Backbone,
        classes: tuple[str, ...],
        preprocessing: Preprocessing,
        reducer: Reducer | None = None,
    ) -> None:
        self.folder = folder
        self.description = description
        self.backbone = backbone
        self.classes = classes
        self.preprocessing = preprocessing
        self.reducer = reducer

    @property
    def plan_id(self) -> str:
        """Name of the plan of what was cut, e.g. ``relevance-r-lowest-k2``."""
        return str(self.description["plan"]["plan_id"])

    @property
    def input_spec(self) -> InputSpec:
        """The clips that it takes: frames, height and width."""
        return self.backbone.input_spec

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.backbone.parameters()).device

    def __repr__(self) -> str:
        return f"Model({str(self.folder)!r}, {len(self.classes)} classes, clips of {self.input_spec}, on {self.device})"

    @torch.no_grad()
    def classify(self, clips: Clips) -> Tensor:
        """Return the probabilities of the classes, float64 (B, classes) on the CPU.

        Args:
            clips: (B, 3, T, H, W), RGB, uint8 or float in [0, 1], or a list of clips as `clip` makes them.

        Raises:
            ValueError: If the clips are not of the size that the model takes.
        """
        return self.backbone(stacked_clips(clips).to(self.device), reducer=self.reducer).cpu().double().softmax(dim=-1)

    def clip(
        self, video: Video, start: float | None = None, end: float | None = None, *, fps: float | None = None
    ) -> Tensor:
        """Return a video, or the part of it between two times in seconds, as the model sees it.

        Args:
            video: A path, or frames as uint8 (T, H, W, 3) or a list of (H, W, 3), RGB, or a source of frames.
            start: Where the part begins.
            end: Where it ends.
            fps: Frames per second of decoded frames.

        Returns:
            uint8 (3, T, H, W).

        Raises:
            UnreadableClip: Where the video cannot be read.
        """
        return self.preprocessing.clip(as_source(video, fps), start, end)

    def predict(
        self,
        video: Video,
        *,
        window: float | None = None,
        stride: float | None = None,
        fps: float | None = None,
        batch: int = 8,
    ) -> list[Prediction]:
        """Classify a video as a whole, or window by window.

        Frames are taken, resized and cut as in the evaluation of the run that exported the model.

        Args:
            video: A path, or frames as uint8 (T, H, W, 3) or a list of (H, W, 3), RGB, or a source of frames.
            window: Seconds of a window that slides over the video; the whole video is one clip if not given.
            stride: Seconds from one window's start to the next one's; the window's length if not given.
            fps: Frames per second of decoded frames.
            batch: Clips per forward pass.

        Returns:
            One prediction per window; a single one without windows.

        Raises:
            UnreadableClip: Where the video cannot be read.
            ValueError: If an option is impossible, or the frames are no frames.
        """
        check_windows(window, stride, batch)
        parts = read_parts(as_source(video, fps), self.preprocessing, window, stride)
        return list(classify_parts(self.classify, parts, self.classes, batch))


def load(folder: str | PathLike[str], *, device: Device = "auto", depth: int = 0) -> Model:
    """Load an exported model.

    Args:
        folder: Its folder, e.g. ``runs/demo/pruned/relevance-r-lowest-k2``.
        device: Where to compute; ``auto`` takes a GPU where there is one.
        depth: How many of the least relevant layers to leave out of an unpruned export.

    Raises:
        FileNotFoundError: If there is no exported model.
        ExportError: If it is damaged, or does not say how clips are made.
        ValueError: If it cannot serve this depth, or there is no such device.
    """
    path = Path(folder)
    chosen = _device(device)
    _check_folder(path)
    description = read_description(path)
    classes, preprocessing = _classes(path, description), _preprocessing(path, description)
    left_out = layers_to_skip(path, depth)
    exported = load_exported(path)
    backbone = exported.backbone.without(left_out) if left_out else exported.backbone
    return Model(path, description, backbone.to(chosen), classes, preprocessing, exported.reducer)


def stacked_clips(clips: Clips) -> Tensor:
    """Return clips as one tensor (B, 3, T, H, W).

    Raises:
        ValueError: If there is none, or they are of several shapes.
    """
    if isinstance(clips, Tensor):
        return clips
    if isinstance(clips, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(clips))
    if not clips or any(clip.shape != clips[0].shape for clip in clips):
        raise ValueError(f"Expected clips of one shape, got {[tuple(clip.shape) for clip in clips]}.")
    return torch.stack(list(clips))


def _check_folder(path: Path) -> None:
    """Say what to pass instead where something near an exported model was passed."""
    if path.is_file():
        inside = (path.parent / DESCRIPTION).is_file()
        raise FileNotFoundError(
            f"{path} is a file. Expected the folder of an exported model, "
            f"{f'here {path.parent}' if inside else 'e.g. runs/demo/pruned/relevance-r-lowest-k2'}."
        )
    found = sorted(str(entry.parent) for entry in RunFolder(path).pruned_folder.glob(f"*/{DESCRIPTION}"))
    if found and not (path / DESCRIPTION).is_file():
        raise FileNotFoundError(f"{path} is a run's folder. Expected one of its exported models: {', '.join(found)}.")


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("Device cuda was asked for, but PyTorch sees no CUDA device. Use auto or cpu.")
    return torch.device("cuda" if name == "auto" and torch.cuda.is_available() else name.replace("auto", "cpu"))


def _classes(folder: Path, description: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the classes; their numbers where no names are known."""
    count, names = description.get("num_classes"), description.get("classes")
    if isinstance(count, int) and not names:
        return tuple(map(str, range(count)))
    if not isinstance(names, list) or len(names) != count or len(set(map(str, names))) != count:
        raise ExportError(
            f"{folder / DESCRIPTION}: expected {count} different names of classes, got {names}. Export the model again."
        )
    return tuple(map(str, names))


def _preprocessing(folder: Path, description: Mapping[str, Any]) -> Preprocessing:
    """Return how a video becomes the model's input."""
    try:
        told, spec = description["sampling"], description["input"]
        made = Preprocessing(**{key: told[key] for key in ("frames", "size", "short_side", "antialias")})
        if (made.frames, made.size, made.size) != (spec["frames"], spec["height"], spec["width"]):
            raise ValueError(f"{told} gives other clips than {spec}")
    except (KeyError, TypeError, ValueError) as error:
        raise ExportError(
            f"{folder / DESCRIPTION} does not say how clips are made (sampling: {error}). Export the model again."
        ) from error
    return made
