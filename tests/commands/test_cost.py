"""cost, with layers removed and with fewer tokens."""

import json
import subprocess
import sys

import pytest

from sightline.backbones import build_backbone
from sightline.export.counting import count_cost, percent_change
from sightline.tokens import REDUCERS
from tests.commands.calling import code_of, error_of
from tests.sightline.export.test_cost import demo_macs

DEMO = ("--backbone", "video_swin_demo")


def test_one_json_object_is_printed(capsys):
    assert code_of("cost", "--backbone", "video_swin_demo", "--num_classes", "7", "--remove", "1", "3", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert set(printed) == {"params", "macs", "params_change_pct", "macs_change_pct"}
    assert printed["macs"] == demo_macs(7, (1, 3))
    assert printed["macs_change_pct"] == pytest.approx(percent_change(demo_macs(7, (1, 3)), demo_macs(7)))


def test_it_takes_sizes_and_options(capsys):
    arguments = ["--backbone", "video_swin_demo", "--num_classes", "7", "--frames", "16", "--size", "32", "--json"]
    assert code_of("cost", *arguments, "--options", '{"shifted_windows": false}') == 0
    backbone = build_backbone("video_swin_demo", 7, {"frames": 16, "size": 32, "shifted_windows": False})
    assert json.loads(capsys.readouterr().out)["macs"] == count_cost(backbone).macs


def test_options_of_the_backbone_can_be_given_one_by_one(capsys):
    assert code_of("cost", "--backbone", "video_swin_demo", "--options.shifted_windows", "false", "--json") == 0
    backbone = build_backbone("video_swin_demo", 400, {"shifted_windows": False})
    assert json.loads(capsys.readouterr().out)["macs"] == count_cost(backbone).macs


def test_it_prints_a_table_with_latency(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    arguments = ["--backbone", "video_swin_demo", "--num_classes", "7", "--remove", "1", "--latency"]
    assert code_of("cost", *arguments, "--repeats", "1", "--warmup", "0", "--batch", "2") == 0
    printed = capsys.readouterr().out
    for word in ("full", "without 1", "batch 2", "MiB", " %"):
        assert word in printed
    assert "…" not in printed


def test_small_models_are_told_in_millions(capsys):
    assert code_of("cost", *DEMO) == 0
    printed = capsys.readouterr().out
    macs = count_cost(build_backbone("video_swin_demo", 400)).macs
    assert macs < 1e9
    assert "adds (M)" in printed
    assert f"{macs / 1e6:.2f}" in printed


def vit_demo_macs(patches: int, classes: int) -> int:
    """Closed form for vit_demo, 8x64x64, where some patches go on: multiply-adds, and 5 per element of LayerNorms."""
    d = 64
    embedding = 4 * 8 * 8 * d * 3 * 2 * 8 * 8  # every patch of 2x8x8 pixels is embedded before any is dropped
    layer = 2 * 5 * patches * d + (3 + 1 + 8) * patches * d * d + 2 * patches * patches * d
    return embedding + 6 * layer + 5 * d + d * classes  # the mean of the patches is normalised and classified


def test_tokens_are_counted_beside_the_whole_model(capsys):
    command = ("cost", "--backbone", "vit_demo", "--num_classes", "7", "--json")
    assert code_of(*command) == 0
    full = json.loads(capsys.readouterr().out)
    assert full["macs"] == vit_demo_macs(256, 7)
    assert code_of(*command, "--tokens", "random", "--tokens.kept", "0.25", "--tokens.seed=3") == 0
    fewer = json.loads(capsys.readouterr().out)
    assert fewer["tokens"] == "random_kept0.25_seed3"
    assert fewer["macs"] == vit_demo_macs(64, 7)
    assert fewer["params"] == full["params"]
    assert fewer["macs_change_pct"] == pytest.approx(percent_change(fewer["macs"], full["macs"]))


@pytest.mark.parametrize("name", REDUCERS)
def test_every_token_reduction_has_a_cost(name, capsys):
    assert code_of("cost", "--backbone", "vit_demo", "--num_classes", "7", "--json", "--tokens", name) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["tokens"] == name
    # On a clip of noise, in which every patch changes and RLT drops none.
    assert (found["macs"] < vit_demo_macs(256, 7)) == (name != "rlt")


def test_attention_that_ranks_tokens_counts(capsys):
    """What `attention` keeps costs as much as any half, and before it the first layer's attention on all tokens."""
    counted = {}
    for name in ("grid", "attention"):
        assert code_of("cost", "--backbone", "vit_demo", "--num_classes", "7", "--json", "--tokens", name) == 0
        counted[name] = json.loads(capsys.readouterr().out)["macs"]
    assert counted["grid"] == vit_demo_macs(128, 7)
    n, d = 256, 64
    # LayerNorm, query, key and value, both products, and the mean over queries of the weights summed over heads.
    ranking = 5 * n * d + 3 * n * d * d + 2 * n * n * d + n * n
    assert counted["attention"] - counted["grid"] == ranking


def test_sta_is_counted_from_its_command_line(capsys):
    command = ("cost", "--backbone", "vit_demo", "--num_classes", "7", "--tokens", "sta", "--json")
    assert code_of(*command, "--tokens.schedule", "0,0,0") == 0
    assert json.loads(capsys.readouterr().out)["macs"] == vit_demo_macs(256, 7)
    assert code_of(*command, "--tokens.r", "8", "--tokens.attention", "filled", "--tokens.order", "bfb") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["tokens"] == "sta_attentionfilled_orderbfb_r8"
    # Layers 1 and 2 run on 4 * 56 patches, 3 and 4 on 16 fewer, 5 on 8 fewer than these; choosing costs a little.
    layers = [(vit_demo_macs(kept, 7) - vit_demo_macs(0, 7)) // 6 for kept in (256, 224, 224, 208, 208, 200)]
    exact = vit_demo_macs(0, 7) + sum(layers)
    assert exact < told["macs"] < 1.01 * exact


def test_tokens_and_layers_are_told_and_timed_together(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    arguments = ("--backbone", "vit_demo", "--num_classes", "7", "--remove", "1", "--tokens", "random")
    timing = ("--latency", "--repeats", "1", "--warmup", "0")
    assert code_of("cost", *arguments, "--tokens.kept", "0.5", *timing) == 0
    printed = capsys.readouterr().out
    for word in ("full ", "without 1 ", "without 1, random"):
        assert word in printed
    assert code_of("cost", *arguments, "--tokens.layer", "2", *timing, "--json") == 0
    row = json.loads(capsys.readouterr().out)
    assert row["tokens"] == "random_layer2"
    assert row["macs"] < count_cost(build_backbone("vit_demo", 7).without([1])).macs
    assert row["latency_ms_b1"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--backbone", "video_swin_x"], "Unknown backbone 'video_swin_x'"),
        ([*DEMO, "--remove", "8"], "no layer 8"),
        ([*DEMO, "--num_classes", "0"], "num_classes"),
        ([*DEMO, "--frames", "1"], "hold none"),
        ([*DEMO, "--options", '{"widht": 3}'], "no option 'widht'"),
        ([*DEMO, "--latency", "--device", "tpu9"], "--device must be cpu or cuda"),
        ([*DEMO, "--latency", "--device", "cuda:99"], "PyTorch sees"),
        ([*DEMO, "--tokens", "sometimes"], "Unknown token reduction 'sometimes'; known are random"),
        (
            [*DEMO, "--tokens", "random", "--tokens.share", "0.5"],
            "random has no option 'share'; its options are attention,",
        ),
        ([*DEMO, "--tokens", "random", "--tokens.kept", "half"], "random.kept must be of type float, got 'half'"),
        ([*DEMO, "--tokens", "random", "--tokens.kept=1.5"], "must be above 0 and at most 1, got 1.5"),
        ([*DEMO, "--tokens", "sta", "--tokens.r", "60"], "A frame has 16 tokens at stage 1 (grid 4x4x4); dropping 60"),
        (
            [*DEMO, "--tokens", "sta", "--tokens.schedule", "4,4,4"],
            "is for 3 places; video_swin has 2: stage 1, stage 2",
        ),
        ([*DEMO, "--tokens", "sta", "--tokens.first", "last"], "first must be one of tome, grid, random, got 'last'"),
        ([*DEMO, "--tokens.kept", "0.5"], "--tokens.kept is an option of a token reduction"),
        ([*DEMO, "--tokens", "random", "--tokens.kept"], "Expected a value behind --tokens.kept"),
        ([*DEMO, "--bogus"], "bogus"),
        ([], "backbone"),
    ],
)
def test_what_is_impossible_is_said(arguments, message, capsys):
    told = error_of(capsys, "cost", *arguments)
    assert told.startswith("2")
    assert message in told


def test_the_earlier_name_of_the_command_still_works():
    command = [sys.executable, "-m", "sightline.pruning.cost", *DEMO, "--num_classes", "7", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert json.loads(done.stdout)["macs"] == demo_macs(7)
