"""Lightning modules."""

from lightning_modules.video_classifier import VideoClassifier

__all__ = ["VideoClassifier"]
