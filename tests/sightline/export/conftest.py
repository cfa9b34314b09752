import pytest

from tests.sightline.export.models import PLANS, export, make


@pytest.fixture
def place(tmp_path):
    return tmp_path / "pruned" / PLANS["layers"].plan_id


@pytest.fixture
def exported(place):
    return export(make(PLANS["layers"]), place, PLANS["layers"])
