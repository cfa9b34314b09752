"""The confusion matrix."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from sightline.report.figures.confusion import confusion_figure


def test_colours_are_shares_of_the_true_class_and_counts_are_printed():
    figure = confusion_figure(np.array([[3, 1], [0, 0]]), ["drink", "sleep"])
    axes = figure.axes[0]
    shares = axes.images[0].get_array()
    np.testing.assert_allclose(shares[0], [0.75, 0.25])
    assert shares.mask[1].all()
    assert [text.get_text() for text in axes.texts if text.get_gid() != "notes"] == ["3", "1"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["drink (4)", "sleep (0)"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["drink", "sleep"]


def test_summary_counts_present_classes_only():
    figure = confusion_figure(np.array([[3, 1, 0], [2, 2, 0], [0, 0, 0]]), ["a", "b", "c"])
    note = next(text.get_text() for text in figure.axes[0].texts if text.get_gid() == "notes").replace("\n", " ")
    assert note == "8 clips, top-1 62.5 %, mean over classes 62.5 %; classes without a clip: 1 of 3"


@pytest.mark.parametrize(("classes", "printed"), [(9, True), (20, True), (101, False)])
def test_sizes_are_legible(classes, printed):
    figure = confusion_figure(np.eye(classes, dtype=int) * 7, [f"placing_an_object_{i}" for i in range(classes)])
    axes = figure.axes[0]
    figure.draw_without_rendering()
    texts = [text for text in axes.texts if text.get_gid() != "notes"]
    assert len(texts) == (classes if printed else 0)
    labels = axes.get_yticklabels()
    assert min(label.get_fontsize() for label in labels) >= 6
    boxes = [label.get_window_extent() for label in labels]
    assert all(upper.y0 >= lower.y1 - 1 for upper, lower in pairwise(boxes))


def test_long_names_keep_both_ends():
    names = ["opening_the_door_from_the_outside_left", "opening_the_door_from_the_outside_right"]
    labels = [label.get_text() for label in confusion_figure(np.eye(2), names).axes[0].get_xticklabels()]
    assert len(set(labels)) == 2
    assert all(len(label) <= 29 for label in labels)


@pytest.mark.parametrize(
    ("matrix", "names", "message"),
    [
        (np.ones((2, 3)), ["a", "b"], "square"),
        (np.ones((2, 2)), ["a"], "got 1 names"),
        (np.full((2, 2), 0.5), ["a", "b"], "normalised"),
        (np.array([[1, -1], [0, 1]]), ["a", "b"], "whole numbers"),
        (np.zeros((2, 2)), ["a", "b"], "no clip was tested"),
    ],
)
def test_wrong_matrices_are_refused(matrix, names, message):
    with pytest.raises(ValueError, match=message):
        confusion_figure(matrix, names)
