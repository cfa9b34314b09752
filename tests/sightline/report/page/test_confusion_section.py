"""What the report's section on the test says, by hand."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sightline.report.page.blocks import Folded, Matrix, Table
from sightline.report.page.confusion_section import confusion_section
from sightline.report.stored.confusion import confusion
from sightline.report.stored.run_results import RunResults
from tests.sightline.report.comparison.example_runs import make_run


@pytest.fixture
def run(tmp_path) -> Path:
    return make_run(tmp_path / "run")


def test_counts_by_hand(run):
    names, counts, source = confusion(RunResults(run))
    assert (names, source) == (["drowsy", "texting", "steering"], "tables/predictions")
    assert counts.tolist() == [[1, 1, 0], [0, 2, 0], [1, 0, 0]]
    matrix, confused = confusion_section(RunResults(run)).blocks
    assert matrix.shares == [[0.5, 0.5, 0], [0, 1, 0], [1, 0, 0]]
    assert confused.rows == [["drowsy", "texting", "1", "50.0"], ["steering", "drowsy", "1", "100.0"]]


def test_without_pruning_the_test_is_shown(run):
    (run / "tables/predictions/none-k0.csv").unlink()
    assert confusion(RunResults(run)) is None
    pd.DataFrame([[3, 1], [0, 2]], index=["1", "b"], columns=["1", "b"]).to_csv(run / "tables/confusion.csv")
    names, counts, source = confusion(RunResults(run))
    assert (names, counts.tolist(), source) == (["1", "b"], [[3, 1], [0, 2]], "tables/confusion.csv")
    (run / "tables/confusion.csv").write_text("true,a,b\na,x,1\nb,0,2\n")
    with pytest.raises(ValueError, match=r"not a confusion matrix.*train\.py test"):
        confusion(RunResults(run))


def test_of_many_classes_the_hardest_are_listed(run):
    labels = np.repeat(np.arange(30), 4)
    predicted = np.where((labels == 7) | ((labels == 3) & (np.arange(120) % 2 == 0)), 0, labels)
    frame = pd.DataFrame({"label": labels, "predicted": predicted})
    frame.to_csv(run / "tables/predictions/none-k0.csv", index=False)
    hardest, folded, _ = confusion_section(RunResults(run)).blocks
    assert isinstance(hardest, Table)
    assert hardest.rows[:3] == [["class 7", "4", "0.0"], ["class 3", "4", "50.0"], ["drowsy", "4", "100.0"]]
    assert isinstance(folded, Folded)
    assert isinstance(folded.blocks[0], Matrix)
