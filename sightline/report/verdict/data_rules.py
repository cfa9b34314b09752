"""Can these clips tell? Few subjects, few clips, and clips that are missing or seen before."""

from __future__ import annotations

import numpy as np

from sightline.report.numbers import fixed
from sightline.report.verdict.evidence import Evidence
from sightline.report.verdict.findings import Finding, Grade
from sightline.report.verdict.pairs import listed
from sightline.statistics.few_subjects import caution

FEW_CLIPS = 100
"""With fewer test clips, one of them is more than a point, the loss that a cut may have."""
FEW_OF_A_CLASS = 6
"""A class of fewer test clips cannot show a loss: even if all 5 are lost, that may be chance (two-sided sign test,
2 * 0.5^5 = 6 %)."""
MOST_UNREADABLE = 0.05
"""Share of a class's clips that may be unreadable before its numbers are of other clips than were meant."""


def few_subjects(evidence: Evidence) -> Finding | None:
    """Are there enough test subjects to speak of new ones?"""
    if evidence.test is None:
        return None
    group = evidence.test["group"]
    subjects = 0 if (group == "").any() else group.nunique()
    told = caution(subjects, len(evidence.test))
    if not told:
        return None
    advice = "Test on 8 subjects or more, or train several seeds with other divisions and join them:"
    command = "python train.py compare --runs <runs> --out runs/comparison"
    shown = "1 test subject" if subjects == 1 else f"{subjects} test subjects"
    return Finding("few_subjects", Grade.CAUTION, f"Tested on {told}.", f"only {shown}", advice, command)


def few_clips(evidence: Evidence) -> Finding | None:
    """Are there enough test clips to see a small loss?"""
    if evidence.test is None:
        return None
    clips = len(evidence.test)
    counts = np.bincount(evidence.test["label"].to_numpy(dtype=int))
    few = [evidence.class_name(label) for label, n in enumerate(counts) if 0 < n < FEW_OF_A_CLASS]
    if clips >= FEW_CLIPS and not few:
        return None
    told = f"{clips} test clips: one is {fixed(100 / clips, 1)} points." if clips < FEW_CLIPS else ""
    if few:
        told = f"{told} Too few test clips of {listed(few)} to see whether they lose.".strip()
    reason = "few test clips" if clips < FEW_CLIPS else "few test clips of some classes"
    return Finding("few_clips", Grade.CAUTION, told, reason, "Test on more clips.")


def no_shared_groups(evidence: Evidence) -> Finding | None:
    """Is nobody in two splits?"""
    shared = evidence.shared_groups
    if not shared:
        return None
    told = f"{listed(list(shared), 3)} in more than one split: the model is tested on people it was trained on."
    advice = "Divide the clips by subject, and train again (docs/data.md)."
    return Finding("no_shared_groups", Grade.BAD, told, "the test is too easy, with subjects of other splits", advice)


def left_out(evidence: Evidence) -> Finding | None:
    """Could the clips be read, and of all classes alike?"""
    lost = {name: (n, of) for name, (n, of) in evidence.unreadable.items() if n > MOST_UNREADABLE * of}
    if not lost:
        return None
    told = listed([f"{name} {n} of {of}" for name, (n, of) in lost.items()])
    command = evidence.command("check-data")
    advice = "See what is wrong with them:"
    return Finding("left_out", Grade.CAUTION, f"Unreadable clips: {told}.", "clips could not be read", advice, command)
