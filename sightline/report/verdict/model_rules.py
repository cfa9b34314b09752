"""Is the model any good? Relevance and cuts describe this model, and of a poor one they say little."""

from __future__ import annotations

from sightline.report.numbers import fixed
from sightline.report.verdict.evidence import Evidence
from sightline.report.verdict.findings import Finding, Grade
from sightline.report.verdict.pairs import against_answer, compared, points, right, top1
from sightline.statistics.binomial import accuracy_interval
from sightline.statistics.class_accuracy import mean_class_accuracy

WEAK_SKILL = 0.2
"""Share of the way from the majority class to 100 % that a model should have gone. Below, most of its answers are
guesses, and ablation measures how guesses change."""
UNEVEN = 10.0
"""Points by which top-1 may exceed the mean over classes: more, and frequent classes hide rare ones that fail."""
MEMORISED = 20.0
"""Points by which training accuracy, which augmentation makes lower, may exceed that on validation clips."""
LEARNED = 20.0
"""Points above the majority class at which a model has learned its training clips, whatever it does on others."""


def beats_majority(evidence: Evidence) -> Finding:
    """Does the model do better than giving every clip the most frequent class?"""
    name = "beats_majority"
    if evidence.test is None:
        return _on_validation(evidence, name)
    answer = int(evidence.test["label"].mode().iloc[0])
    majority = 100 * float((evidence.test["label"] == answer).mean())
    found, reached = against_answer(evidence.test, answer), top1(evidence.test)
    compared_with = f"always giving the most frequent class ({fixed(majority, 1)} %)"
    if not found.above:
        text = f"Top-1 is {fixed(reached, 1)} %, not clearly better than {compared_with}: {points(found)}."
        return Finding(
            name, Grade.BAD, text, "the test does not show that the model learned anything", *_learn(evidence)
        )
    text = f"Top-1 is {fixed(reached, 1)} %. Against {compared_with} that is {points(found)}."
    if found.change < WEAK_SKILL * (1 - majority / 100):
        return Finding(name, Grade.CAUTION, text, "the model is hardly better than guessing", *_learn(evidence))
    return Finding(name, Grade.GOOD, text)


def _on_validation(evidence: Evidence, name: str) -> Finding:
    """Decide by the validation clips where no test was made; they chose the epoch, so a success is not yet proof."""
    clips = sum(evidence.validation_labels)
    if evidence.validation is None or not clips:
        told = "Whether the model is better than guessing is not known: it was not tested."
        return Finding(name, Grade.UNKNOWN, told, "the model was not tested", "Test it:", evidence.command("test"))
    majority = 100 * max(evidence.validation_labels) / clips
    low, high = accuracy_interval(round(evidence.validation * clips / 100), clips)
    text = (
        f"Top-1 is {fixed(evidence.validation, 1)} % on validation clips (95 %: {fixed(low, 1)} to {fixed(high, 1)}); "
        f"the most frequent class has {fixed(majority, 1)} %."
    )
    if low <= majority:
        return Finding(
            name, Grade.BAD, text, "validation does not show that the model learned anything", *_learn(evidence)
        )
    advice = ("These clips chose the epoch. Test the model:", evidence.command("test"))
    return Finding(name, Grade.CAUTION, text, "there is no test yet, only validation", *advice)


def _learn(evidence: Evidence) -> tuple[str, str]:
    """Say what to do about a model that learned too little: it depends on whether it knows its training clips."""
    known = evidence.training
    counts = evidence.validation_labels
    chance = 100 * max(counts) / sum(counts) if sum(counts) else 100 / max(len(evidence.classes), 1)
    if known is not None and known > chance + LEARNED:
        return (
            f"It has {fixed(known, 1)} % on its training clips: it memorised them. Train with more subjects, "
            "pretrained weights (--model.weights) or augmentation.",
            "",
        )
    trained = "" if known is None else f" It has {fixed(known, 1)} % on its own training clips."
    return (
        f"Train longer, with another learning rate or from pretrained weights (--model.weights).{trained} See first "
        "whether clips and labels are right:",
        evidence.command("preview"),
    )


def beats_one_frame(evidence: Evidence) -> Finding | None:
    """Does the model need more than a single frame?"""
    name = "beats_one_frame"
    if evidence.test is None or "sample_id" not in evidence.test:
        return None
    found = None if evidence.one_frame is None else compared([evidence.test], [evidence.one_frame])
    if found is None or evidence.one_frame is None:
        told = "Whether the model needs motion is not known: it was not tested with one frame repeated."
        return Finding(name, Grade.UNKNOWN, told, "", "Pruning tests that too:", evidence.command("prune"))
    reached = fixed(top1(evidence.one_frame), 1)
    if found.above:
        text = f"It uses motion: with one frame repeated, top-1 is {reached} %; whole clips give {points(found)}."
        return Finding(name, Grade.GOOD, text)
    text = f"One frame repeated gives {reached} %; whole clips add {points(found)}, so no use of motion is shown."
    advice = "Scores say what matters to its still pictures. Where motion should count, train on actions that need it."
    return Finding(name, Grade.CAUTION, text, "one repeated frame does as well as the clip", advice)


def classes_alike(evidence: Evidence) -> Finding | None:
    """Do all classes carry the accuracy, or the frequent ones alone?"""
    if evidence.test is None:
        return None
    of_class = right(evidence.test).groupby(evidence.test["label"].to_numpy()).agg(["sum", "count"])
    mean_class = 100 * mean_class_accuracy(of_class["sum"], of_class["count"])
    if top1(evidence.test) - mean_class <= UNEVEN:
        return None
    text = f"Top-1 is {fixed(top1(evidence.test), 1)} %, but the mean over classes {fixed(mean_class, 1)} %."
    advice = "Frequent classes hide rare ones. Train with --data.init_args.balance_classes true."
    return Finding("classes_alike", Grade.CAUTION, text, "rare classes are hardly recognised", advice)


def memorised(evidence: Evidence) -> Finding | None:
    """Does the model know its training clips, on which it is scored, far better than others?"""
    if evidence.training is None or evidence.validation is None:
        return None
    if evidence.training - evidence.validation <= MEMORISED:
        return None
    text = (
        f"Top-1 is {fixed(evidence.training, 1)} % on training clips and {fixed(evidence.validation, 1)} % on "
        "validation clips: what is scored are clips that were memorised."
    )
    advice = "Score other clips too, and compare:"
    command = evidence.command("ablate", "--split", "val")
    return Finding("memorised", Grade.CAUTION, text, "the model memorised its training clips", advice, command)
