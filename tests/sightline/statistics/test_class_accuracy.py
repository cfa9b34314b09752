import math

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_accuracy

from sightline.statistics.class_accuracy import mean_class_accuracy


def test_by_hand():
    assert mean_class_accuracy([1, 3], [2, 3]) == (1 / 2 + 1) / 2
    assert mean_class_accuracy([1, 0, 3], [2, 0, 3]) == (1 / 2 + 1) / 2  # a class without clips has no accuracy
    assert mean_class_accuracy([0, 0], [0, 7]) == 0
    assert math.isnan(mean_class_accuracy([0, 0], [0, 0]))


def test_torchmetrics_agrees_where_every_class_occurs_and_not_where_one_is_only_predicted():
    generator = torch.Generator().manual_seed(0)
    labels = torch.cat([torch.arange(4), torch.randint(0, 4, (30,), generator=generator)])
    predicted = torch.randint(0, 4, (34,), generator=generator)

    def ours(classes: int) -> float:
        right = np.bincount(labels[labels == predicted], minlength=classes)
        return mean_class_accuracy(right, np.bincount(labels, minlength=classes))

    assert ours(4) == pytest.approx(float(multiclass_accuracy(predicted, labels, 4, average="macro")), abs=1e-6)
    predicted[0] = 4
    theirs = float(multiclass_accuracy(predicted, labels, 5, average="macro"))
    assert theirs == pytest.approx(ours(5) * 4 / 5, abs=1e-6)
