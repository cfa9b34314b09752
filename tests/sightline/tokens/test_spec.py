"""Naming a token reduction in plans, files and on the command line."""

import dataclasses
import json
import re
from dataclasses import dataclass

import pytest

from sightline.pruning import PruningPlan
from sightline.tokens import REDUCERS, KeepRandom, TokenReduction


def test_options_are_checked_and_defaults_left_out():
    found = TokenReduction.of("random", {"kept": 0.7, "seed": 0, "layer": -1})
    assert found.options == (("kept", 0.7),)
    assert found == TokenReduction.of("random", {"kept": 0.7})
    assert found.build() == KeepRandom(kept=0.7)
    assert TokenReduction.of("random", {"kept": 1}).build() == KeepRandom(kept=1.0)  # whole numbers are floats too


def test_labels_fit_into_a_folder_name():
    assert TokenReduction.of("random").label == "random"
    assert TokenReduction.of("random", {"seed": 3, "kept": 0.25}).label == "random_kept0.25_seed3"
    assert TokenReduction.of("random", {"layer": 2, "seed": -4}).label == "random_layer2_seedm4"


def test_two_reductions_never_share_a_label():
    values = [0.1234561, 0.1234562, 1e-06, 0.5, 0.25, 1.0]
    labels = [TokenReduction.of("random", {"kept": kept, "seed": seed}).label for kept in values for seed in (-1, 0, 1)]
    assert len(set(labels)) == len(labels)
    assert not any("-" in label or "+" in label for label in labels)


def test_it_survives_json_and_later_defaults():
    found = TokenReduction.of("random", {"kept": 0.7, "layer": 2})
    options = {"attention": "sparse", "kept": 0.7, "layer": 2, "at": "own", "seed": 0}
    assert found.plain() == {"name": "random", "options": options}
    assert TokenReduction.from_plain(json.loads(json.dumps(found.plain()))) == found


def test_a_stored_random_reduction_keeps_its_meaning():
    """Before there was ``at``, layer -1 meant the embedding, also in families that now drop at several places."""
    stored = {"name": "random", "options": {"kept": 0.4, "layer": -1, "seed": 3}}
    assert TokenReduction.from_plain(stored).build() == KeepRandom(kept=0.4, at="embedding", seed=3)
    stored = {"name": "random", "options": {"kept": 0.4, "layer": 2, "seed": 0}}
    assert TokenReduction.from_plain(stored).build() == KeepRandom(kept=0.4, layer=2)
    assert TokenReduction.from_plain({"name": "random", "options": {"kept": 0.4}}).build() == KeepRandom(kept=0.4)
    now = TokenReduction.of("random", {"kept": 0.4})
    assert TokenReduction.from_plain(now.plain()) == now


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "magic"}, "Unknown token reduction 'magic'; known are random"),
        ({"name": "random", "options": {"r": 3}}, "no option 'r'; its options are attention, kept, layer, at, seed"),
        ({"name": "random", "options": {"seed": 0.5}}, r"random\.seed must be of type int, got 0\.5"),
        ({"name": "random", "options": {"kept": True}}, "must be of type float"),
        ({"name": "random", "options": {"kept": 7.0}}, "above 0 and at most 1"),
        ({"name": "random", "options": [1]}, "as a mapping"),
        ({"options": {}}, "Expected tokens as"),
        ("random", "Expected tokens as"),
    ],
)
def test_what_is_wrong_is_said(values, message):
    with pytest.raises(ValueError, match=message):
        TokenReduction.from_plain(values)


def test_every_registered_reducer_has_defaults_for_all_its_options():
    for name, reducer in REDUCERS.items():
        assert all(field.default is not dataclasses.MISSING for field in dataclasses.fields(reducer)), name
        assert TokenReduction.of(name).build() == reducer()


def test_labels_of_long_and_odd_options_stay_short_and_apart(monkeypatch):
    @dataclass(frozen=True)
    class Many:
        schedule: str = ""
        a: str = ""
        rather_a_long_name: float = 0.0

    monkeypatch.setitem(REDUCERS, "many", Many)
    label = lambda **options: TokenReduction.of("many", options).label  # noqa: E731
    assert label(schedule="48") == "many_schedule48"
    # Alike but for what a folder's name cannot tell.
    odd = [label(schedule=schedule) for schedule in ("1-2", "1m2", "1,2", "1 2", "1_2", "-1", "m1")]
    odd += [label(a="b_schedulec"), label(a="b", schedule="c")]
    long = [label(schedule=",".join(["64"] * 30 + [last]), rather_a_long_name=0.1) for last in ("1", "2", "11")]
    assert len(set(odd + long)) == len(odd + long)
    assert all(re.fullmatch(r"[A-Za-z0-9._]{1,60}", found) for found in odd + long)


@pytest.mark.parametrize("name", REDUCERS)
def test_labels_of_registered_reducers_are_names_of_folders(name):
    """With every option changed that takes another value: not one says what a plan's folder cannot be called."""
    changed = {}
    for field in dataclasses.fields(REDUCERS[name]):
        tried = [not field.default] if isinstance(field.default, bool) else WORDS
        if isinstance(field.default, int | float) and not isinstance(field.default, bool):
            tried = [type(field.default)(value) for value in (1, 2, 0.5, -1)]
        for value in tried:
            try:
                found = TokenReduction.of(name, {**changed, field.name: value})
            except ValueError:
                continue
            if len(found.options) > len(changed):
                changed[field.name] = value
                break
    assert "attention" in changed
    plan = PruningPlan("layers12_heads", "dprob", "lowest", 1, (1,), seed=1000, tokens=TokenReduction.of(name, changed))
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,105}", plan.plan_id)
    labels = {TokenReduction.of(name, {key: value}).label for key, value in _valid_alone(name, changed)}
    assert len(labels) == len(list(_valid_alone(name, changed)))


WORDS = ("filled", "grid", "random", "single", "bfb", "values", "tokens", "kept", "decreasing", "semantics", "places",
         "share", "embedding", "constant")  # fmt: skip


def _valid_alone(name, options):
    for key, value in options.items():
        try:
            TokenReduction.of(name, {key: value})
        except ValueError:
            continue
        yield key, value


@dataclass(frozen=True)
class Options:
    """As much of a reducer as its options."""

    share: float = 0.5
    count: int = 3
    merge: bool = False
    by: str = "keys"


def test_words_of_a_command_line_have_the_kinds_of_the_defaults(monkeypatch):
    monkeypatch.setitem(REDUCERS, "options", Options)
    words = {"share": "1", "count": "4", "merge": "True", "by": "4"}
    assert TokenReduction.from_text("options", words).build() == Options(1.0, 4, True, "4")
    assert TokenReduction.from_text("options", {"merge": "false"}) == TokenReduction("options")
    assert TokenReduction.from_text("random", {"kept": "0.7"}).build() == KeepRandom(kept=0.7)


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("options", {"share": "much"}, "options.share must be of type float, got 'much'"),
        ("options", {"count": "4.5"}, "options.count must be of type int, got '4.5'"),
        ("options", {"merge": "1"}, "options.merge must be true or false, got '1'"),
        ("options", {"size": "1"}, "options has no option 'size'; its options are share, count, merge, by"),
        ("other", {}, "Unknown token reduction 'other'; known are random, .*options"),
    ],
)
def test_words_that_do_not_fit_are_refused(name, words, message, monkeypatch):
    monkeypatch.setitem(REDUCERS, "options", Options)
    with pytest.raises(ValueError, match=message):
        TokenReduction.from_text(name, words)
