"""All rules on a run's results, and what they add up to."""

from __future__ import annotations

from sightline.report.numbers import fixed, short
from sightline.report.stored.run_results import RunResults
from sightline.report.verdict.cut_rules import (
    Cut,
    choose_cut,
    class_lost,
    cut_loss,
    deeper,
    named,
    proposals,
    recovered,
    saved,
)
from sightline.report.verdict.data_rules import few_clips, few_subjects, left_out, no_shared_groups
from sightline.report.verdict.evidence import Evidence, read_evidence
from sightline.report.verdict.findings import Finding, Grade, Verdict, worst
from sightline.report.verdict.model_rules import beats_majority, beats_one_frame, classes_alike, memorised
from sightline.report.verdict.pairs import listed
from sightline.report.verdict.ranking_rules import (
    beats_last,
    clear_gap,
    lowest_beats_highest,
    lowest_beats_random,
    same_set,
)
from sightline.report.verdict.token_rules import choose_reduction, fewer_tokens, reductions, tokens_beat_random

LEAST = 3
"""So many of the least relevant layers are named where nothing was cut yet."""


def run_verdict(run: RunResults) -> Verdict:
    """Judge a run by what lies in its folder."""
    return judge(read_evidence(run))


def judge(evidence: Evidence) -> Verdict:
    """Put the rules' findings together: what can be cut, and whether to believe it."""
    cuts = proposals(evidence)
    cut = choose_cut(cuts)
    good = beats_majority(evidence)
    of_the_data = [no_shared_groups(evidence), few_subjects(evidence), few_clips(evidence), left_out(evidence)]
    if good.grade == Grade.BAD:
        return _learned_nothing(good, [finding for finding in of_the_data if finding])
    shown = cut or max(cuts, key=lambda one: one.change.change, default=None)
    found = [
        good, classes_alike(evidence), memorised(evidence), None if evidence.recovery else beats_one_frame(evidence),
        lowest_beats_highest(evidence), lowest_beats_random(evidence), beats_last(evidence),
        same_set(evidence, shown), clear_gap(evidence, shown),
        None if shown is None else class_lost(evidence, shown),
        fewer_tokens(evidence), tokens_beat_random(evidence), *of_the_data,
    ]  # fmt: skip
    findings = [finding for finding in found if finding is not None]
    grade = worst(findings)
    headline, details, advice, command = _what_can_be_cut(evidence, cuts, cut, shown)
    return Verdict(grade, headline, details, _belief(grade, findings), findings, advice, command)


def _learned_nothing(finding: Finding, others: list[Finding]) -> Verdict:
    headline = f"Nothing can be cut: {finding.reason}."
    details = f"{finding.text} Relevance, rankings and cuts of a model that learned nothing are noise."
    belief = "No: trust nothing below before the model is better than guessing."
    return Verdict(Grade.BAD, headline, details, belief, others, finding.advice, finding.command)


def _belief(grade: Grade, findings: list[Finding]) -> str:
    reasons = [finding.reason for finding in findings if finding.grade == grade and finding.reason]
    unknown = sum(finding.grade == Grade.UNKNOWN for finding in findings)
    if grade == Grade.BAD:
        return f"No: {listed(reasons, 6)}."
    if grade == Grade.CAUTION:
        return f"With caution: {listed(reasons, 6)}."
    if grade == Grade.UNKNOWN:
        return "That cannot be said yet: nothing that decides it was measured."
    return "Yes: no rule objects" + (f", and {unknown} could not be checked." if unknown else ".")


def _what_can_be_cut(
    evidence: Evidence, cuts: list[Cut], cut: Cut | None, shown: Cut | None
) -> tuple[str, str, str, str]:
    """Return headline, details, advice and command."""
    layers = 0 if evidence.ranked is None else evidence.ranked["layer"].nunique()
    if evidence.recovery:
        return (*recovered(evidence), "", "")
    if shown is None:
        return _nothing_cut(evidence, layers)
    parts = [cut_loss(evidence, shown), saved(shown.row)]
    missed = "No depth met the targets (tables/targets.csv)." if evidence.target == "" else ""
    if cut is None:
        parts.insert(0, f"The mildest of {len(cuts)} tested is {named(shown.row, layers)}.")
        parts.append(missed)
        advice = "Recovery trains a cut model further (give configs/recovery.yaml your data section):"
        command = (
            f"python train.py fit --config configs/recovery.yaml --model.student {evidence.folder}/pruned/"
            f"{shown.row.plan_id} --model.teacher {evidence.folder}/checkpoints/best.ckpt"
        )
        sure = "Nothing can be cut without a loss."
        headline = sure if shown.change.below else "It is not clear that anything can be cut without a loss."
        return headline, " ".join(filter(None, parts)), advice, command
    parts.append(deeper(cut, cuts))
    what = named(cut.row, layers)
    how = "" if cut.row.method == "relevance" else f", chosen by {cut.row.method.replace('_', ' ')}" * bool(cut.row.k)
    headline = f"You can cut {what}{how}."
    if not cut.small:  # what a target allows
        headline = f"Cutting {what}{how} meets the targets, and loses {fixed(-100 * cut.change.change, 1)} points."
    if cut.by_target:
        return headline, " ".join(filter(None, parts)), "", ""
    advice = (
        "This depth was picked by the test clips, which flatters it a little. A depth picked by validation clips: "
        "set targets: {max_drop: 1.0} of callbacks.PrunedCheckpoints in the run's config.yaml, then"
    )
    parts.append(missed)
    return headline, " ".join(filter(None, parts)), advice, evidence.command("prune")


def _nothing_cut(evidence: Evidence, layers: int) -> tuple[str, str, str, str]:
    if evidence.models is not None and len(evidence.models) > 1:
        told = "The predictions of the tested models are not known clip by clip, so no loss can be judged."
        return "What can be cut is not known.", told, "Test them again:", evidence.command("prune")
    tokens = choose_reduction(reductions(evidence))
    headline = "Nothing was cut yet." if tokens is None else f"No layer was cut yet; {tokens.gone} can go."
    if evidence.ranked is None:
        told = "Neither layers nor cuts were measured."
        return headline, told, "Score the layers, then prune:", evidence.command("ablate")
    first = evidence.ranked[evidence.ranked["score"] == evidence.ranked["score"].iloc[0]]
    least = first.sort_values("mean", kind="stable").head(LEAST)
    told = listed([f"{row.layer} (mean {row.score} {short(row.mean, 2)})" for row in least.itertuples(index=False)])
    details = f"Of {layers} layers the least relevant are {told}. What a cut loses, only a test of the cut model shows."
    return headline, details, "Cut and test:", evidence.command("prune")
