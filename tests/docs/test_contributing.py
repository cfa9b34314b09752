"""CONTRIBUTING.md tells what is there: the tree, and the files that its recipes name."""

import re

import pytest

from tests.test_import_order import ROOT
from tests.tree import PAGE, tree, tree_in

TEXT = PAGE.read_text(encoding="utf-8")
# In backquotes, with a slash or an ending; the names of a new family, method or data set are in angle brackets.
NAMED = sorted(set(re.findall(r"`([\w./-]+(?:/|\.py|\.md|\.toml|\.yaml|\.lock))`", TEXT)))


def test_the_tree_is_the_one_there_is():
    assert tree_in(TEXT) == tree(), "The tree has changed: renew it with `make tree`."


@pytest.mark.parametrize("name", NAMED)
def test_what_the_recipes_name_is_there(name: str):
    assert (ROOT / name).exists()


def test_there_are_recipes_to_check():
    assert len(NAMED) > 20
