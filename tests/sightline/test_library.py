"""The package as a library: its public names, what importing them costs, and scores and maps of clips in memory."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import sightline
from sightline.backbones import build_backbone
from sightline.explain import head_maps
from sightline.export.writing import export_model
from sightline.pruning import PruningPlan
from sightline.relevance.heads import extreme_heads
from sightline.relevance.scores import score as scores_of
from sightline.tokens import TokenReduction
from sightline.types import ModelRecord, Unit
from tests.conftest import TINY_SWIN, randomise

ROOT = Path(__file__).resolve().parents[2]
CLASSES = ("eating", "texting", "writing", "yawning", "steering")
# What an environment that only uses models need not have.
TRAINING_ONLY = ("lightning", "wandb", "pytorchvideo")


def in_a_fresh_process(code: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_names_agree_everywhere():
    names = sightline.__all__
    assert names == sorted(names)
    assert sorted(name for of_module in sightline._MODULES.values() for name in of_module) == names
    assert all(getattr(sightline, name) is not None for name in names)
    assert set(names) <= set(dir(sightline))
    # Those that type checkers see.
    [checked] = (node for node in ast.parse(Path(sightline.__file__).read_text()).body if isinstance(node, ast.If))
    imports = {node.module: tuple(alias.name for alias in node.names) for node in checked.body}
    assert imports == sightline._MODULES
    page = (ROOT / "docs" / "library.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| ((?:`sightline\.\w+`(?:, )?)+) \|", page, flags=re.MULTILINE)
    assert sorted(re.findall(r"`sightline\.(\w+)`", " ".join(listed))) == names


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'laod'; its public names are Backbone"):
        _ = sightline.laod
    with pytest.raises(ImportError):
        from sightline import laod  # noqa: F401


def test_importing_the_package_imports_nothing_heavy():
    code = """
import json, sys, time
before = set(sys.modules)
start = time.process_time()
import sightline
print(json.dumps([time.process_time() - start, sorted(set(sys.modules) - before)]))
"""
    seconds, modules = json.loads(in_a_fresh_process(code))
    assert {name.partition(".")[0] for name in modules} & {"torch", "numpy", "pandas", "torchvision", "timm"} == set()
    assert [name for name in modules if name.startswith("sightline")] == ["sightline"]
    assert seconds < 0.2


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    backbone = randomise(build_backbone("video_swin_demo", 5, TINY_SWIN))
    backbone.set_record(ModelRecord(class_names=CLASSES))
    plan = PruningPlan("relevance", "r", "lowest", 2, (0, 2))
    return export_model(
        backbone.without((0, 2)), tmp_path_factory.mktemp("runs") / "pruned" / plan.plan_id, name="video_swin_demo",
        options=TINY_SWIN, plan=plan, provenance={},
        sampling={"frames": 4, "size": 32, "short_side": 36, "antialias": True},
    )  # fmt: skip


def test_everything_works_where_nothing_for_training_is_installed(exported):
    code = f"""
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {TRAINING_ONLY}:
            raise ModuleNotFoundError(f"blocked: {{name}}")

sys.meta_path.insert(0, Blocked())
import numpy as np
import sightline

for name in sightline.__all__:
    getattr(sightline, name)
model = sightline.load(sys.argv[1], device="cpu")
frames = np.zeros((9, 40, 50, 3), dtype=np.uint8)
print(model.predict(frames)[0].class_name)
clips = model.clip(frames)[None]
scores = sightline.score(model, clips, [0])
print(len(scores), len(sightline.maps(model, clips, sightline.most_relevant(scores, 2))))
import sightline.commands.predict_files
assert not set(sys.modules) & {set(TRAINING_ONLY)}
"""
    name, counts = in_a_fresh_process(code, str(exported)).splitlines()
    assert name in CLASSES
    assert counts == f"{2 + 2 + 4} 2"


@pytest.fixture(scope="module")
def model(exported):
    return sightline.load(exported, device="cpu")


@pytest.fixture
def clips():
    return torch.randint(0, 256, (3, 3, 4, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def slowly(backbone, clips, labels):
    """Every unit gated or skipped in a call of its own: r by layer, site and head, in the order of clips and units."""
    units = [*backbone.units("layers"), *backbone.units("heads")]
    with torch.no_grad():
        base = backbone(clips)
        ablated = []
        for unit in units:
            if unit.is_layer:
                ablated.append(backbone(clips, skip=(unit.layer,)))
                continue
            [heads] = (s.heads for i in backbone.layers if i.index == unit.layer for s in i.sites)
            gate = torch.tensor([float(head != unit.head) for head in heads])
            ablated.append(backbone(clips, gates={(unit.layer, unit.site): gate}))
    return units, scores_of(base, torch.stack(ablated), torch.tensor(labels))


def test_a_model_with_a_token_reduction_is_scored_and_shown_with_it(model, clips):
    reducer = TokenReduction.of("random", {"kept": 0.5}).build()
    backbone = randomise(build_backbone("vit_demo", 5, {"frames": 4, "size": 32, "width": 24, "depth": 3, "heads": 3}))
    reduced = sightline.Model(model.folder, model.description, backbone, CLASSES, model.preprocessing, reducer)
    with torch.no_grad():
        logits = backbone(clips, reducer=reducer)
        ablated = backbone(clips, reducer=reducer, skip=(1,))
    assert torch.allclose(reduced.classify(clips), logits.double().softmax(-1))
    assert not torch.allclose(logits, backbone(clips), atol=1e-3)
    scores = sightline.score(reduced, clips, [0, 1, 2], units="layers")
    expected = scores_of(logits, ablated[None], torch.tensor([0, 1, 2]))
    assert scores.loc[scores["layer"] == 1, "r"].tolist() == pytest.approx(expected.r[0].tolist(), abs=1e-5)
    head = backbone.units("heads")[-1]
    found = sightline.maps(reduced, clips, [head])[head].values
    assert torch.equal(found, head_maps(backbone, clips, [head], reducer)[head].values)
    assert (found == 0).float().mean() >= 0.4  # half of the tokens are gone


@pytest.mark.parametrize("batch", [1, 2, 8])
def test_scores_are_those_of_ablating_one_unit_after_the_other(model, clips, batch):
    labels = [4, 0, 2]
    units, expected = slowly(model.backbone, clips, labels)
    table = sightline.score(model, clips, labels, batch=batch)
    assert len(table) == 3 * len(units) == 3 * (2 + 2 + 4)
    assert table["sample_id"].tolist() == [name for name in "012" for _ in units]
    found = [
        Unit(layer) if pd.isna(head) else Unit(layer, site, head)
        for layer, site, head in table[["layer", "site", "head"]].itertuples(index=False)
    ]
    assert found == [*units] * 3
    for column in ("r", "jsd", "dprob", "p_true_ablated"):
        # float32 logits, added up in another order.
        assert np.allclose(table[column], getattr(expected, column).T.reshape(-1), atol=1e-5), column
    assert table["label"].tolist() == [label for label in labels for _ in units]
    assert np.allclose(table["p_true"].to_numpy()[:: len(units)], expected.p_true, atol=1e-5)


def test_a_backbone_names_arrays_and_lists_give_the_same_scores(model, clips):
    expected = sightline.score(model, clips, [4, 0, 2])
    named = ["steering", "eating", "writing"]
    pd.testing.assert_frame_equal(sightline.score(model.backbone, clips, named), expected)
    pd.testing.assert_frame_equal(sightline.score(model, clips.numpy(), torch.tensor([4, 0, 2])), expected)
    pd.testing.assert_frame_equal(sightline.score(model, list(clips), np.array([4, 0, 2])), expected)
    heads = sightline.score(model, clips, named, units="heads", sample_ids=["a", "b", "c"], groups=["x", "x", "y"])
    assert heads["head"].notna().all()
    assert heads["r"].tolist() == pytest.approx(expected.loc[expected["head"].notna(), "r"].tolist(), abs=1e-5)
    assert heads.groupby("sample_id")["group"].first().to_dict() == {"a": "x", "b": "x", "c": "y"}
    assert len(sightline.score(model, clips, named, units="layers")) == 3 * 2
    # What is computed from a run's tables can be computed from these.
    assert set(extreme_heads(heads, early=0, deep=0)["extreme"]) == {"most", "least"}


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        ([0, 1], {}, "one label per clip, got 2 labels and 3 clips"),
        (["eating", "jumping", "writing"], {}, "no class 'jumping'; its classes are eating, texting"),
        ([0, 5, 1], {}, "labels from 0 to 4, got 5"),
        ([0, 1, 2], {"batch": 0}, "batch of at least 1"),
        ([0, 1, 2], {"units": "neurons"}, "'layers' or 'heads'"),
        ([0, 1, 2], {"sample_ids": ["a", "a", "b"]}, "3 different sample_ids"),
        ([0, 1, 2], {"groups": ["a"]}, "3 groups, one per clip"),
    ],
)
def test_what_cannot_be_scored_is_refused(model, clips, labels, options, message):
    with pytest.raises(ValueError, match=message):
        sightline.score(model, clips, labels, **options)


def test_other_models_and_clips_are_refused(model, clips):
    with pytest.raises(ValueError, match="returns, or a backbone, got str"):
        sightline.score("runs/demo", clips, [0, 1, 2])
    with pytest.raises(ValueError, match="was built for clips"):
        sightline.score(model, clips[..., :16], [0, 1, 2])
    with pytest.raises(ValueError, match="clips of one shape"):
        sightline.score(model, [clips[0], clips[1, :, :2]], [0, 1])
    with pytest.raises(ValueError, match="clips of one shape"):
        sightline.maps(model, [])


def test_most_relevant_heads_by_hand():
    rows = [("a", 0, None, None, 0.9), ("a", 3, "attention", 1, 0.2), ("b", 3, "attention", 1, 0.4),
            ("a", 1, "attention", 0, 0.3), ("b", 1, "attention", 0, 0.3), ("a", 2, "attention", 0, 0.1)]  # fmt: skip
    table = pd.DataFrame(rows, columns=["sample_id", "layer", "site", "head", "r"])
    first, second, third = Unit(1, "attention", 0), Unit(3, "attention", 1), Unit(2, "attention", 0)
    table.loc[table["layer"] == 3, "r"] = 0.3  # equal means: the lower index comes first
    assert sightline.most_relevant(table, 2) == [first, second]
    assert sightline.most_relevant(table, 9) == [first, second, third]
    with pytest.raises(ValueError, match="by must be one of r, jsd, dprob"):
        sightline.most_relevant(table, by="relevance")
    with pytest.raises(ValueError, match="Expected scores of heads"):
        sightline.most_relevant(table[table["head"].isna()])


def test_maps_are_those_of_the_heads(model, clips):
    heads = [Unit(3, "attention", 1), Unit(1, "attention", 0)]
    expected = head_maps(model.backbone, clips, heads)
    for given in (clips, list(clips), clips.numpy()):
        found = sightline.maps(model, given, heads)
        assert list(found) == heads
        for head in heads:
            assert torch.equal(found[head].values, expected[head].values)
            assert found[head].pixels().shape == (3, 4, 32, 32)
    assert list(sightline.maps(model.backbone, clips)) == model.backbone.units("heads")
