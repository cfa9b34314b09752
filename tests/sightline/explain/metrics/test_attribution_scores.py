"""All metrics together on planted classifiers, and the job over a split."""

import math

import pandas as pd
import pytest
import torch

from sightline.explain.attribution.registry import METHODS, read_method
from sightline.explain.metrics.attribution_job import attribute_split
from sightline.explain.metrics.attribution_scores import GROUPS, QUICK, ClipTask, score_clip
from sightline.explain.metrics.pointing import clip_targets
from sightline.run.ranks import Ranks
from sightline.types import Box, ClipTruth
from tests.sightline.explain.reading import CELL, THROUGH_ATTENTION, clips, reader

FRAME, ROW, COLUMN = CELL
TRUTH = ClipTruth(
    boxes=tuple(Box("object", frame, 8 * COLUMN, 8 * ROW, 8 * COLUMN + 8, 8 * ROW + 8) for frame in (FRAME,)),
    acting=tuple(frame == FRAME for frame in range(4)),
    masks={"object": torch.zeros(4, 32, 32, dtype=torch.bool), "hand": torch.zeros(4, 32, 32, dtype=torch.bool)},
)
TRUTH.masks["object"][FRAME, 8 * ROW : 8 * ROW + 8, 8 * COLUMN : 8 * COLUMN + 8] = True
NAMES = ("occlusion", "random", "centre", "brightness")


def task(seed=0, truth=TRUTH):
    return ClipTask(clips(1), torch.tensor([1]), clip_targets([truth], 4, 32, 32), seed, truth.masks)


@pytest.fixture(scope="module")
def scores():
    methods = {name: read_method(name) for name in NAMES}
    found = score_clip(reader(THROUGH_ATTENTION), methods, QUICK, task())
    return {(one.method, one.metric): one for one in found}


def test_the_right_map_is_right_by_every_metric(scores):
    for metric in ("pointing_object", "energy_object", "rank_object", "pointing_action", "rank_action"):
        assert scores["occlusion", metric].value == pytest.approx(1, abs=1e-3)
    for metric in ("pixel_accuracy_object", "mean_accuracy_object", "mean_iou_object"):
        assert scores["occlusion", metric].value == pytest.approx(1)
        assert scores["occlusion", metric].chance < 1
        for control in ("random", "centre"):
            assert scores[control, metric].value < 0.9
    assert scores["random", "mean_accuracy_object"].chance == pytest.approx(0.5)
    # A box of 8x8 pixels in one of four frames of 32x32; one frame of four.
    assert scores["occlusion", "pointing_object"].chance == pytest.approx(1 / 64)
    assert scores["occlusion", "pointing_action"].chance == pytest.approx(1 / 4)
    assert scores["occlusion", "on_target_object"].value == 1
    assert scores["occlusion", "drift_object"].value < scores["centre", "drift_object"].value
    for base in ("blur", "blur_space"):
        assert scores["occlusion", f"deletion_{base}"].value < scores["occlusion", f"deletion_{base}"].chance
        assert scores["occlusion", f"insertion_{base}"].value > scores["occlusion", f"insertion_{base}"].chance
    # The frame that is read, and then frozen: the class goes with it, whatever the others show.
    assert scores["occlusion", "deletion_freeze_time"].value < scores["occlusion", "deletion_freeze_time"].chance
    assert scores["occlusion", "insertion_freeze_time"].value > scores["occlusion", "insertion_freeze_time"].chance
    assert scores["occlusion", "faithfulness"].value == pytest.approx(1)
    assert abs(scores["occlusion", "faithfulness"].chance) < 0.5
    assert scores["brightness", "luminance_correlation"].value == pytest.approx(1)


def test_controls_know_nothing_of_the_cell(scores):
    assert scores["centre", "pointing_object"].value < 1
    assert scores["random", "pointing_object"].value in (0, 1)
    assert scores["random", "forward"].value == 0


def test_what_is_not_to_be_seen_has_no_row():
    found = score_clip(reader(THROUGH_ATTENTION), {"centre": read_method("centre")}, QUICK, task(truth=ClipTruth()))
    metrics = {one.metric for one in found}
    assert not any(metric.startswith(("pointing", "energy", "rank", "on_target", "drift")) for metric in metrics)
    assert not any("_object" in metric or "_hand" in metric for metric in metrics)
    assert {"strongest_two", "faithfulness", "luminance_correlation"} <= metrics


def test_further_groups_make_further_maps():
    methods = {name: read_method(name) for name in ("centre", "raw")}
    found = score_clip(reader(THROUGH_ATTENTION), methods, GROUPS[5:], task())
    values = {(one.method, one.metric): one.value for one in found}
    assert values["centre", "sensitivity_max"] == 0
    assert values["centre", "sanity_embedding"] == pytest.approx(1)
    assert values["centre", "sanity_alone_embedding"] == pytest.approx(1)
    assert values["centre", "spot_rank_gain"] == values["centre", "spot_mass_gain"] == 0
    assert {"sanity_alone_layer_1", "sanity_layer_0", "spot_rank_after", "spot_probability_change"} <= {
        one.metric for one in found
    }


def test_which_methods_are_controls():
    assert {name for name in METHODS if METHODS[name].control} == {
        "random",
        "centre",
        "motion",
        "brightness",
        "untrained",
    }


def batches_of(shown, at, broken=()):
    for place in at:
        good = [] if place in broken else [place]
        yield {
            "clip": shown[good],
            "label": torch.ones(len(good), dtype=torch.int64),
            "sample_id": [f"clip{i}" for i in good],
            "group": [f"subject{i % 2}" for i in good],
            "seed": [],
            "unreadable": [] if good else [(f"clip{place}", "no frames")],
        }


def run(path, batches, names=("clip0", "clip1", "clip2"), ranks=None, made=None):
    methods = {name: read_method(name) for name in ("raw", "centre")}
    model, groups = reader(THROUGH_ATTENTION), ["localisation"]
    return attribute_split(
        names, batches, model, methods, groups, lambda name: TRUTH, path, ranks, "label", made, seconds_per_part=0
    )


def table(path):
    frame = pd.read_parquet(path)
    frame = frame[frame["metric"] != "seconds"]
    # Categories are in the order in which parts of the job were written, which is not always the same.
    frame = frame.astype(dict.fromkeys(["sample_id", "group", "method", "metric"], str))
    return frame.sort_values(["sample_id", "method", "metric"]).reset_index(drop=True)


def test_a_split_has_a_row_per_clip_method_and_metric(tmp_path):
    shown = clips(3)
    found = table(run(tmp_path / "one.parquet", lambda at: batches_of(shown, at)))
    assert set(found["sample_id"]) == {"clip0", "clip1", "clip2"}
    one = found[(found["method"] == "raw") & (found["metric"] == "pointing_object")]
    assert one["value"].tolist() == [1, 1, 1]
    assert one["chance"].tolist() == pytest.approx([1 / 64] * 3)
    assert (found["metric"] == "mean_iou_object").sum() == 6  # clips by methods; no clip shows a hand
    assert not (found["metric"] == "mean_iou_hand").any()
    assert found["target"].unique().tolist() == [1]


def test_an_interrupted_job_goes_on_where_it_was(tmp_path):
    shown, seen = clips(3), []

    def stops(at):
        for batch in batches_of(shown, at):
            if batch["sample_id"] == ["clip2"]:
                raise KeyboardInterrupt
            yield batch

    made = {"weights": "a"}
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "two.parquet", stops, made=made)

    def counted(at):
        seen.extend(at)
        yield from batches_of(shown, at)

    found = table(run(tmp_path / "two.parquet", counted, made=made))
    whole = table(run(tmp_path / "whole.parquet", lambda at: batches_of(shown, at)))
    assert len(seen) < 3
    pd.testing.assert_frame_equal(found, whole)


def test_a_bad_clip_loses_nothing_else(tmp_path):
    shown = clips(3)
    found = table(run(tmp_path / "bad.parquet", lambda at: batches_of(shown, at, broken=(1,)), ranks=Ranks()))
    assert set(found["sample_id"]) == {"clip0", "clip2"}
    assert not any(map(math.isnan, found["value"]))
