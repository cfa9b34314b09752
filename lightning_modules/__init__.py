"""The classifier, recovery after pruning, learning which tokens to drop, and safe reading of checkpoints."""

from lightning_modules.policy_classifier import PolicyClassifier
from lightning_modules.recovering_classifier import RecoveringClassifier
from lightning_modules.video_classifier import VideoClassifier

__all__ = ["PolicyClassifier", "RecoveringClassifier", "VideoClassifier"]
