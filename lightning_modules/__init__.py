"""The classifier, recovery after pruning, and safe reading of checkpoints."""

from lightning_modules.recovering_classifier import RecoveringClassifier
from lightning_modules.video_classifier import VideoClassifier

__all__ = ["RecoveringClassifier", "VideoClassifier"]
