"""The mean of the classes' accuracies as a metric that batches and processes add to."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics.classification import MulticlassAccuracy

from sightline.statistics.class_accuracy import mean_class_accuracy


class MeanClassAccuracy(MulticlassAccuracy):
    """`sightline.statistics.class_accuracy.mean_class_accuracy` of the counts that torchmetrics keeps by class."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes, average="none")

    def compute(self) -> Tensor:
        """Return the mean, a scalar."""
        correct, missed = self.tp, self.fn
        assert isinstance(correct, Tensor)  # and no list, which averages of other kinds keep
        assert isinstance(missed, Tensor)
        return torch.tensor(mean_class_accuracy(correct.cpu(), (correct + missed).cpu()), device=correct.device)
