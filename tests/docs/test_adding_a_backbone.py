"""The page on adding a backbone works as it is written: its code is run, and its family does what every family must."""

import importlib.util
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from sightline.backbones import VARIANTS, Backbone, build_backbone
from sightline.tokens import KeepRandom
from tests.conftest import randomise
from tests.sightline.backbones import test_autocast_and_compile as precision
from tests.sightline.backbones import test_conformance as conformance

PAGE = Path(__file__).parents[2] / "docs" / "adding_a_backbone.md"
CHECKS = [
    check
    for name, check in {**vars(conformance), **vars(precision)}.items()
    if name.startswith("test_")
    and not any(mark.name == "slow" for mark in getattr(check, "pytestmark", []))
    and "monkeypatch" not in inspect.signature(check).parameters
]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The page's blocks of Python as one module, imported, with its variants registered meanwhile."""
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    path = tmp_path_factory.mktemp("page") / "page_code.py"
    path.write_text("\n".join(blocks), encoding="utf-8")
    spec = importlib.util.spec_from_file_location("page_code", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before = dict(VARIANTS)
    sys.modules["page_code"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["page_code"]
    VARIANTS.clear()
    VARIANTS.update(before)


@pytest.fixture(scope="module")
def backbone(page: ModuleType) -> Backbone:
    return randomise(build_backbone("frames_demo", 7))


@pytest.fixture(scope="module")
def given(backbone: Backbone) -> dict[str, object]:
    spec = backbone.input_spec
    shape = (2, 3, spec.frames, spec.height, spec.width)
    clips = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        return {"backbone": backbone, "clips": clips, "logits": backbone(clips)}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_family_conforms(check, given: dict[str, object]):
    check(**{name: given[name] for name in inspect.signature(check).parameters})


def test_a_family_that_says_nothing_of_dropped_tokens_refuses_them(given: dict[str, object]):
    with pytest.raises(ValueError, match="frames needs all of its tokens"):
        given["backbone"](given["clips"], reducer=KeepRandom())  # type: ignore[operator]


def test_what_the_page_shows_at_its_end_is_right(page: ModuleType):
    assert len(page.heads) == 9
    assert page.logits.shape == (9, 2, 6)
    assert page.maps.shape == page.flow.shape == (2, 4, 32, 32)
    # Rows of a head's weights add up to 1, and so does their mean in each frame; 64 pixels have a cell's value.
    torch.testing.assert_close(page.maps.sum(dim=(2, 3)) / 64, torch.ones(2, 4))
    torch.testing.assert_close(page.flow.sum(dim=(1, 2, 3)) / 64, torch.ones(2))


def test_the_larger_variant_can_be_built_and_takes_options(page: ModuleType):
    backbone = build_backbone("frames_small", 20, {"depth": 2})
    assert len(backbone.layers) == 2
    with pytest.raises(ValueError, match="does not divide"):
        build_backbone("frames_small", 20, {"size": 225})
