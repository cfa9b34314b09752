"""What runs around and after a fit."""

from callbacks.ablation import HeadAblation, LayerAblation
from callbacks.attribution.comparison import AttributionComparison
from callbacks.galleries.attention import AttentionGallery
from callbacks.galleries.side_by_side import SideBySideGallery
from callbacks.galleries.tokens import TokenGallery
from callbacks.galleries.transfer import TransferGallery
from callbacks.gradient_screening import GradientScreening
from callbacks.pointing_game import PointingGame
from callbacks.pruned_checkpoints import PrunedCheckpoints
from callbacks.recovered_model import RecoveredModel
from callbacks.relevance_boxplots import RelevanceBoxplots
from callbacks.report import Report
from callbacks.run_checkpoint import RunCheckpoint
from callbacks.run_records import RunRecords
from callbacks.segment_results import SegmentResults
from callbacks.tokens.comparison import TokenComparison

__all__ = [
    "AttentionGallery",
    "AttributionComparison",
    "GradientScreening",
    "HeadAblation",
    "LayerAblation",
    "PointingGame",
    "PrunedCheckpoints",
    "RecoveredModel",
    "RelevanceBoxplots",
    "Report",
    "RunCheckpoint",
    "RunRecords",
    "SegmentResults",
    "SideBySideGallery",
    "TokenComparison",
    "TokenGallery",
    "TransferGallery",
]
