"""What is refused, what is warned of, and what is said of a result."""

import pytest

from sightline.relevance.race_settings import RaceSettings, is_exact, promise_of

CLASSES = ["drive"] * 60 + ["text"] * 37 + ["yawn"] * 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ks": (4,)}, "at least 1 and at most the number of units, 3"),
        ({"ks": ()}, "sizes of sets of at least 1"),
        ({"modes": ("low",)}, "lowest, highest or both"),
        ({"confidence": 99}, "below 1"),
        ({"method": "sure"}, "guaranteed or approximate"),
        ({"tolerance": 1.0}, "below 1"),
        ({"tolerance": 0.01, "method": "approximate"}, "needs race.method guaranteed"),
        ({"min_samples": 100}, "a guaranteed race needs no minimum"),
        ({"min_samples": 1, "method": "approximate"}, "at least 2"),
    ],
)
def test_what_makes_no_sense_is_refused(options, message):
    settings = RaceSettings(**{"ks": (1,), **options})
    with pytest.raises(ValueError, match=message):
        settings.check(3)


def test_a_guaranteed_race_warns_of_a_low_confidence_alone():
    assert RaceSettings().warnings(CLASSES) == []
    (warning,) = RaceSettings(confidence=0.8).warnings(CLASSES)
    assert "one race in 5.0 be wrong" in warning


def test_an_approximate_race_warns_of_rare_classes_and_of_early_decisions():
    (rare,) = RaceSettings(method="approximate").warnings(CLASSES)
    assert "1 of 3 classes have less than 5% of the clips (fewest: yawn, 3.0%)" in rare
    assert "nominal confidence" in rare
    assert RaceSettings(method="approximate").warnings(["drive"] * 95 + ["yawn"] * 5) == []
    (early,) = RaceSettings(method="approximate", min_samples=30).warnings(["drive"] * 100)
    assert "decides after 30 clips" in early


def test_the_confidence_of_an_approximate_race_is_called_nominal():
    settings = RaceSettings(method="approximate")
    assert "approximate, nominal 0.99, first look 100" in str(settings)
    assert settings.promise() == {"method": "approximate", "nominal_confidence": 0.99, "min_samples": 100}
    assert "at a nominal 0.99, which nothing guarantees" in promise_of(settings.promise())
    assert not is_exact(settings.promise())
    # As earlier versions recorded it.
    assert "nominal 0.95" in promise_of({"score": "r", "confidence": 0.95, "min_samples": 100})
    assert not is_exact({"score": "r", "confidence": 0.95})


def test_a_guarantee_says_what_it_covers():
    exact, within = RaceSettings(), RaceSettings(tolerance=0.01)
    assert str(exact) == "racing for lowest and highest 1 2 3 by r, guaranteed at 0.99, seed 0"
    assert str(within) == "racing for lowest and highest 1 2 3 by r within 0.01, guaranteed at 0.99, seed 0"
    assert promise_of({"score": "r", **exact.promise()}).startswith(
        "The race's sets are those of all clips, guaranteed"
    )
    assert "within a tolerance of 0.01, guaranteed" in promise_of({"score": "r", **within.promise()})
    assert is_exact(exact.promise())
    assert not is_exact(within.promise())
