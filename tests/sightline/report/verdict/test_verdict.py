"""What the rules add up to, on evidence made by hand and on recorded runs."""

import io
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from sightline.report.stored.run_results import RunResults
from sightline.report.verdict import verdict as verdict_module
from sightline.report.verdict.evidence import Evidence, read_evidence
from sightline.report.verdict.findings import Finding, Grade, Verdict
from sightline.report.verdict.terminal import print_verdict
from sightline.report.verdict.verdict import judge, run_verdict
from tests.sightline.report.comparison.example_runs import make_run
from tests.sightline.report.verdict.examples import CLIPS, evidence, plan, predicted

ROOT = Path(__file__).resolve().parents[4]
FULL = predicted(range(108))
MODELS = {
    plan("lowest", 1): predicted(range(108)),
    plan("highest", 1): predicted(range(50)),
    plan("lowest", 1, "random", seed=0): predicted(range(60)),
}
RANKED = pd.DataFrame({"score": "r", "layer": [0, 1, 2, 3], "mean": [0.4, 0.125, 0.05, 0.2]})
STABLE = pd.DataFrame(
    {"score": "r", "mode": "lowest", "k": 1, "same_set": 0.99, "resampled": "groups", "chosen": [True], "share": [0.99]}
)


def rules(verdict: Verdict) -> dict[str, Grade]:
    return {finding.rule: finding.grade for finding in verdict.findings}


def test_a_good_run_is_believed(tmp_path):
    more = {"one_frame": predicted(range(50)), "ranked": RANKED, "stability": STABLE}
    found = judge(evidence(tmp_path, FULL, MODELS, **more))
    assert (found.grade, found.headline) == (Grade.GOOD, "You can cut 1 of 4 layers (layer 0).")
    assert found.belief == "Yes: no rule objects."
    assert rules(found) == dict.fromkeys(
        ["beats_majority", "beats_one_frame", "lowest_beats_highest", "lowest_beats_random", "same_set"], Grade.GOOD
    )
    assert "flatters" in found.advice  # the test clips chose the depth
    chosen = judge(evidence(tmp_path, FULL, MODELS, target="relevance-lowest-k1", **more))
    assert (chosen.headline, chosen.advice) == (found.headline, "")


def test_what_was_not_checked_is_counted(tmp_path):
    found = judge(evidence(tmp_path, FULL, MODELS, ranked=RANKED, stability=STABLE))
    assert found.belief == "Yes: no rule objects, and 1 could not be checked."


def test_of_a_model_that_learned_nothing_nothing_is_believed(tmp_path):
    guesses = predicted(np.random.default_rng(0).permutation(CLIPS)[:40])
    found = judge(evidence(tmp_path, guesses, MODELS, ranked=RANKED, stability=STABLE))
    assert found.grade == Grade.BAD
    assert found.headline == "Nothing can be cut: the test does not show that the model learned anything."
    assert found.belief.startswith("No: trust nothing below")
    assert found.command == "python train.py preview"
    assert not rules(found)  # what rankings and cuts of such a model say would only mislead


def test_doubts_are_summed_up(tmp_path):
    who = [f"s{i // 3 % 4}" for i in range(CLIPS)]
    full, cut = predicted(range(108), subjects=who), predicted(range(107), subjects=who)
    shaky = STABLE.assign(same_set=0.5, share=0.5)
    found = judge(evidence(tmp_path, full, {plan("lowest", 1): cut}, ranked=RANKED, stability=shaky))
    assert found.grade == Grade.CAUTION
    assert found.belief == "With caution: the ranking is not stable and only 4 test subjects."


def test_where_every_cut_loses_recovery_is_advised(tmp_path):
    models = {plan("lowest", 1): predicted(range(90)), plan("lowest", 2): predicted(range(60))}
    found = judge(evidence(tmp_path, FULL, models, ranked=RANKED, folder="'a run'"))
    assert found.headline == "Nothing can be cut without a loss."
    assert found.details.startswith("The mildest of 2 tested is 1 of 4 layers (layer 0). Top-1 goes from 90.0 to 75.0")
    assert "--model.student 'a run'/pruned/relevance-lowest-k1 --model.teacher 'a run'/checkpoints" in found.command


def test_a_loss_that_is_not_clear_is_not_called_one(tmp_path):
    found = judge(evidence(tmp_path, FULL, {plan("lowest", 1): predicted(range(106))}, ranked=RANKED))
    assert found.headline == "It is not clear that anything can be cut without a loss."
    assert "Top-1 goes from 90.0 to 88.3" in found.details


def test_a_target_that_allows_a_loss_or_that_nothing_meets_is_told(tmp_path):
    models = {plan("lowest", 1): predicted(range(108)), plan("lowest", 2): predicted(range(90))}
    met = judge(evidence(tmp_path, FULL, models, ranked=RANKED, target="relevance-lowest-k2"))
    assert met.headline == "Cutting 2 of 4 layers (layers 0, 1) meets the targets, and loses 15.0 points."
    assert (met.advice, met.command) == ("", "")
    missed = judge(evidence(tmp_path, FULL, models, ranked=RANKED, target=""))
    assert missed.headline == "You can cut 1 of 4 layers (layer 0)."
    assert missed.details.endswith("No depth met the targets (tables/targets.csv).")
    assert "No depth met" not in judge(evidence(tmp_path, FULL, models, ranked=RANKED)).details


def test_without_a_cut_the_next_command_is_told(tmp_path):
    found = judge(Evidence(test=FULL, ranked=RANKED))
    assert (found.headline, found.command) == ("Nothing was cut yet.", "python train.py prune")
    assert "Of 4 layers the least relevant are 2 (mean r 0.05), 1 (mean r 0.12) and 3 (mean r 0.2)" in found.details
    assert judge(Evidence(test=FULL)).command == "python train.py ablate"
    nothing = judge(Evidence())
    assert nothing.grade == Grade.UNKNOWN
    assert nothing.belief.startswith("That cannot be said yet")


def test_a_recovery_is_set_against_the_full_and_the_pruned_model():
    models = {"full": FULL, "pruned": predicted(range(60)), "recovered": predicted(range(107))}
    found = judge(Evidence(test=models["recovered"], recovery=models))
    assert found.headline == "The recovered model can take the full one's place."
    assert found.details.startswith("Its top-1 is 89.2 %; against the full model that is −0.8 points (95 %: ")
    assert "against the merely pruned one +39.2 points" in found.details
    poor = judge(Evidence(test=models["pruned"], recovery=models | {"recovered": predicted(range(61))}))
    assert poor.headline == "The recovered model does not reach the full one."
    recorded = read_evidence(RunResults(ROOT / "tests/old_run/recovered"))
    assert set(recorded.recovery) == {"full", "pruned", "recovered"}
    assert recorded.test.equals(recorded.recovery["recovered"])


def test_old_tables_without_predictions_give_no_loss(tmp_path):
    run = make_run(tmp_path / "run")
    shutil.rmtree(run / "tables/predictions")
    found = run_verdict(RunResults(run))
    assert found.headline == "What can be cut is not known."
    assert found.command == f"python train.py prune --run {run}"


def test_a_runs_folder_is_read(tmp_path):
    run = make_run(tmp_path / "run")
    found = read_evidence(RunResults(run))
    assert found.classes == ("drowsy", "texting", "steering")
    assert (found.validation, found.training) == (75.0, None)
    assert set(found.outcomes) == {"none-k0", "lowest-k1"}
    assert found.unreadable == {"drowsy": (0, 10), "texting": (0, 10), "steering": (0, 10)}
    assert (found.one_frame, found.target) == (None, None)
    tried = pd.DataFrame({"plan_id": ["lowest-k2", "lowest-k1"], "k": [2, 1], "meets": [False, False]})
    for meets, plan_id in (([False, False], ""), ([False, True], "lowest-k1")):
        trials = tried.assign(meets=meets, gmacs=1.0, latency_ms=None, val_top1_drop=2.0)
        trials.to_csv(run / "tables/targets.csv", index=False)
        assert read_evidence(RunResults(run)).target == plan_id
    (run / "tables/predictions/none-k0.csv").rename(run / "tables/predictions/one-frame.csv")
    assert len(read_evidence(RunResults(run)).one_frame) == 5


def test_a_recorded_run_of_an_earlier_version_is_judged():
    found = run_verdict(RunResults(ROOT / "tests/old_run/run"))
    assert found.grade == Grade.BAD  # 8 clips, of which 6 are right
    assert "75.0 %, not clearly better than always giving the most frequent class (50.0 %)" in found.details


def test_the_terminal_tells_the_same_and_does_not_break_commands():
    findings = [
        Finding("a", Grade.GOOD, "All is well. " * 12),
        Finding("b", Grade.CAUTION, "Few subjects.", "few", "Train more:", "python train.py compare " + "run " * 40),
    ]
    verdict = Verdict(
        Grade.CAUTION, "You can cut.", "Details.", "With caution: few.", findings, "Do:", "python " + "x " * 80
    )
    out = io.StringIO()
    print_verdict(verdict, Console(file=out, width=80))
    lines = out.getvalue().splitlines()
    assert lines[0] == "Verdict: You can cut."
    assert "    python train.py compare " + "run " * 40 in [f"{line.rstrip()} " for line in lines]
    assert "    python " + ("x " * 80).strip() in [line.rstrip() for line in lines]
    assert max(len(line.rstrip()) for line in lines if "python" not in line) <= 80
    assert any(line.strip().startswith("! Few subjects.") for line in lines)


def test_every_rule_is_in_the_guide():
    folder = Path(verdict_module.__file__).parent
    source = "".join(path.read_text() for path in folder.glob("*_rules.py"))
    named = {a or b for a, b in re.findall(r'Finding\(\s*"(\w+)"|    name = "(\w+)"', source)}
    guide = (ROOT / "docs" / "reading_results.md").read_text()
    assert len(named) >= 13
    assert [rule for rule in sorted(named) if f"`{rule}`" not in guide] == []


@pytest.mark.parametrize("text", ["<b>", "[bold]x[/bold]"])
def test_names_of_classes_are_no_markup(text):
    out = io.StringIO()
    verdict = Verdict(Grade.GOOD, text, text, text, [Finding("a", Grade.GOOD, text)])
    print_verdict(verdict, Console(file=out, width=80))
    assert out.getvalue().count(text) == 4
