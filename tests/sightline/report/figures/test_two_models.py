"""What is said of two models on one clip."""

import numpy as np
import pytest
import torch

from sightline.relevance.clip_heads import ShownHead
from sightline.report.figures.two_models import ModelView, TwoModels
from sightline.types import Unit

RISING = torch.arange(8.0).reshape(2, 2, 2)


def view() -> TwoModels:
    swin = ModelView(
        "violins", "video_swin", "Violin", 0.75, "Violin",
        (ShownHead(Unit(5, "attention", 2), "deep", "specialised", 0.125),), (RISING,),
    )  # fmt: skip
    timesformer = ModelView(
        "driving", "timesformer", "talking", 0.5, None,
        (ShownHead(Unit(0, "spatial", 1), "all", "most", 0.25), ShownHead(Unit(3, "temporal", 0), "all", "most", 0.5)),
        (2 * RISING, -RISING),
    )  # fmt: skip
    return TwoModels("a.mp4", "Violin", np.zeros((2, 2, 2, 3), np.uint8), swin, timesformer, "r")


def test_every_map_is_named_with_its_model_and_prediction():
    assert [panel.title for panel in view().panels()] == [
        "violins (video_swin), predicts Violin (75%): attention layer 5 head 2, specialised in Violin, r 0.12",
        "driving (timesformer), predicts talking (50%): spatial layer 0 head 1, most relevant of all, r 0.25",
        "driving (timesformer), predicts talking (50%): temporal layer 3 head 0, most relevant of all, r 0.5",
    ]
    assert torch.equal(view().panels()[2].pixels, -RISING)
    assert view().title == "Violin: violins above, driving below"


def test_the_caption_is_short():
    assert view().caption() == (
        "Two models on the same frames: attention of the head of violins most relevant to Violin, and of the heads of "
        "driving most relevant to all its clips. Clip a.mp4: Violin, predicted Violin (75%) and talking (50%)."
    )


def test_the_table_has_a_row_per_pair_of_heads():
    first, second = view().table()
    assert first == {
        "sample_id": "a.mp4", "class": "Violin",
        "run": "violins", "predicted": "Violin", "probability": 0.75, "choice": "specialised", "site": "attention",
        "layer": 5, "head": 2, "r": 0.125,
        "other_run": "driving", "other_predicted": "talking", "other_probability": 0.5, "other_choice": "most",
        "other_site": "spatial", "other_layer": 0, "other_head": 1, "other_r": 0.25, "spearman": pytest.approx(1.0),
    }  # fmt: skip
    assert (second["other_site"], second["spearman"]) == ("temporal", pytest.approx(-1.0))
