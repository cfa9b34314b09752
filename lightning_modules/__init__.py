"""Lightning modules."""

from lightning_modules.recovering_classifier import RecoveringClassifier
from lightning_modules.video_classifier import VideoClassifier

__all__ = ["RecoveringClassifier", "VideoClassifier"]
