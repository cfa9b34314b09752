"""What a plan may say, and what it is called."""

import pytest

from sightline.pruning.plan import PruningPlan, unpruned_plan, unremoved_plan
from sightline.tokens import TokenReduction
from sightline.types import Unit


def test_plan_ids():
    assert unpruned_plan().plan_id == "relevance-r-none-k0"
    assert PruningPlan("random", "r", "lowest", 2, (3, 5), seed=7).plan_id == "random-r-lowest-k2-seed7"
    heads = (Unit(0, "attention", 1), Unit(3, "attention", 0))
    assert PruningPlan("relevance", "dprob", "highest", 2, removed_heads=heads).plan_id == "relevance-dprob-highest-k2"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("../x", "r", "lowest", 1, (1,)), "lower-case words"),
        (("relevance", "r", "lowest", 2, (5, 3)), "ascending"),
        (("relevance", "r", "lowest", 2, (3, 3)), "ascending"),
        (("relevance", "r", "lowest", 3, (3, 5)), "which is 2, got 3"),
        (("relevance", "r", "none", 1, (3,)), "Mode none"),
        (("relevance", "r", "lowest", 0), "Mode none"),
    ],
)
def test_inconsistent_plans_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        PruningPlan(*arguments)


HALF = TokenReduction.of("random", {"kept": 0.5})


@pytest.mark.parametrize(
    ("plan", "plan_id"),
    [
        (unremoved_plan(HALF), "tokens-none-reduced-k0-random"),  # a half is its default
        (
            unremoved_plan(TokenReduction.of("random", {"kept": 0.7, "seed": 3})),
            "tokens-none-reduced-k0-random_kept0.7_seed3",
        ),
        (unremoved_plan(format="int8"), "format-none-converted-k0-int8"),
        (unremoved_plan(HALF, "bf16"), "tokens-none-reduced-k0-random-bf16"),
        (PruningPlan("relevance", "r", "lowest", 1, (2,), tokens=HALF), "relevance-r-lowest-k1-random"),
        (
            PruningPlan("random", "draw", "lowest", 1, (2,), seed=4, tokens=HALF, format="int8"),
            "random-draw-lowest-k1-seed4-random-int8",
        ),
    ],
)
def test_tokens_and_format_stand_at_the_end_of_the_name(plan, plan_id):
    assert plan.plan_id == plan_id
    assert len(plan.plan_id.split("-")) == 4 + (plan.seed is not None) + (plan.tokens is not None) + (
        plan.format != "fp32"
    )


@pytest.mark.parametrize(
    ("arguments", "changes", "message"),
    [
        (("relevance", "r", "lowest", 1, (3,)), {"format": "fp16"}, "one of fp32, bf16, int8, got 'fp16'"),
        (("relevance", "r", "none", 0), {"tokens": HALF}, "method tokens, score none and mode reduced; got relevance"),
        (("relevance", "r", "none", 0), {"format": "int8"}, "method format, score none and mode converted; got"),
        (("format", "none", "converted", 0), {"tokens": HALF, "format": "int8"}, "changes the tokens alone"),
        (("tokens", "none", "reduced", 0), {}, "has tokens None and fp32"),
        (("tokens", "none", "reduced", 1, (3,)), {"tokens": HALF}, "removes 1 and has tokens random"),
        (("relevance", "none", "lowest", 1, (3,)), {"tokens": HALF}, "score must be one of r"),
        (("relevance", "r", "reduced", 1, (3,)), {"tokens": HALF}, "mode must be one of lowest"),
    ],
)
def test_tokens_and_formats_that_do_not_fit_the_rest_are_refused(arguments, changes, message):
    with pytest.raises(ValueError, match=message):
        PruningPlan(*arguments, **changes)
