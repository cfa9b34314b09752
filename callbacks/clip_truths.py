"""What is known of a split's clips: where things are in them, and when their action happens."""

from __future__ import annotations

from callbacks.analysis import Context
from sightline.types import ClipTruth
from sightline.video.boxes import read_boxes, video_truth


class ClipTruths:
    """What is known of a split's clips.

    Attributes:
        places: Which clips of the split something is known of; none where nothing is.
    """

    def __init__(self, context: Context, boxes: str | None, masks: bool = False) -> None:
        """Look up what is known.

        Args:
            context: The run.
            boxes: CSV of boxes in pixels of the videos; None for what the data know of themselves.
            masks: Whether to tell which pixels things cover as well, where the data know; a CSV does not.

        Raises:
            ValueError: If the CSV names clips that the data do not have.
        """
        data, clips = context.data, context.data.clips(context.split)
        self._masks = masks
        self._data, self._boxes = data, None if boxes is None else read_boxes(boxes)
        self._clips = {clip.sample_id: clip for clip in clips}
        if self._boxes is not None:
            known = {clip.sample_id for split in ("train", "val", "test") for clip in data.clips(split)}
            strange = sorted(set(self._boxes) - known)
            if strange:
                raise ValueError(
                    f"The boxes name {len(strange)} clips that the data do not have, e.g. {strange[0]}. Write "
                    f"sample_id as the data do, e.g. {min(known, default='')}."
                )
            self.places = [place for place, clip in enumerate(clips) if clip.sample_id in self._boxes]
        else:  # a data set knows of all its clips or of none
            self.places = list(range(len(clips))) if clips and data.truth(clips[0]) is not None else []

    def of(self, name: str) -> ClipTruth:
        """Return what is known of a clip, in the frames and pixels of the model's input; nothing may be."""
        clip = self._clips[name]
        if self._boxes is not None:
            return video_truth(clip, self._boxes.get(name, ()), self._data.settings)
        return self._data.truth(clip, self._masks) or ClipTruth()
