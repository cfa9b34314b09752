"""The choice of kernels is stored with a run, used again by later commands, and never by another machine."""

import json
from pathlib import Path

import pytest
import torch

from sightline.backbones import stored_kernels
from sightline.backbones.parts import linear_kernels
from sightline.backbones.parts.linear_kernels import LinearKernels, Measured, current_kernels
from sightline.backbones.stored_kernels import machine, settle_kernels
from sightline.run.ranks import Ranks

ONE = LinearKernels({100: Measured("pytorch", 0.5, 0.0), 10**6: Measured("onednn", 2.0, 1e-7)})
OTHER = LinearKernels({100: Measured("onednn", 1.3, 0.0)})


@pytest.fixture(autouse=True)
def measured(monkeypatch: pytest.MonkeyPatch) -> list[LinearKernels]:
    """What measurements find from now on, the last first; each of a process that has measured nothing before."""
    answers = [OTHER, ONE]
    monkeypatch.setattr(linear_kernels, "measure", lambda: answers.pop())
    monkeypatch.setattr(linear_kernels, "_CHOSEN", None)
    return answers


def new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_kernels, "_CHOSEN", None)


def test_a_later_process_measures_nothing(tmp_path, monkeypatch, measured):
    path = tmp_path / "run" / "kernels.json"
    settle_kernels(path)
    assert current_kernels() == ONE
    written = path.read_bytes()
    new_process(monkeypatch)
    settle_kernels(path)
    assert current_kernels() == ONE
    assert measured == [OTHER]
    assert path.read_bytes() == written


def test_a_stored_choice_goes_before_what_this_process_measured(tmp_path, monkeypatch):
    settle_kernels(tmp_path / "kernels.json")
    new_process(monkeypatch)
    assert current_kernels() == OTHER
    settle_kernels(tmp_path / "kernels.json")
    assert current_kernels() == ONE


def test_a_process_that_has_measured_writes_that_down(tmp_path, measured):
    current_kernels()
    settle_kernels(tmp_path / "one.json")
    settle_kernels(tmp_path / "two.json")
    assert measured == [OTHER]
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()


@pytest.mark.parametrize("key", ["processor", "torch", "threads", "instructions", "settings"])
def test_a_choice_of_another_machine_is_measured_anew_and_kept(tmp_path, monkeypatch, key):
    path = tmp_path / "kernels.json"
    here = machine()
    monkeypatch.setattr(stored_kernels, "machine", lambda: {**here, key: "another"})
    settle_kernels(path)
    monkeypatch.setattr(stored_kernels, "machine", lambda: here)
    new_process(monkeypatch)
    settle_kernels(path)
    assert current_kernels() == OTHER
    for where, expected in (({**here, key: "another"}, ONE), (here, OTHER)):  # nothing is left to measure
        monkeypatch.setattr(stored_kernels, "machine", lambda where=where: where)
        new_process(monkeypatch)
        settle_kernels(path)
        assert current_kernels() == expected


def test_a_machine_is_known_by_what_changes_kernels(monkeypatch):
    before = machine()
    assert before["torch"] == torch.__version__
    assert before["threads"] == torch.get_num_threads()
    assert json.loads(json.dumps(before)) == before
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert machine() != before


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"machines": [{}]}', '{"machines": [{"machine": {"torch": 1}, "linear": {"100": {}}}]}']
)
def test_a_damaged_file_is_replaced(tmp_path, content, caplog):
    path = tmp_path / "kernels.json"
    path.write_text(content)
    settle_kernels(path)
    assert "measured again" in caplog.text
    assert current_kernels() == ONE
    assert len(json.loads(path.read_text())["machines"]) == 1


def test_the_others_take_what_the_first_process_measured(tmp_path, monkeypatch, measured):
    path = tmp_path / "kernels.json"

    def as_rank(rank: int) -> Ranks:
        return Ranks(rank, 2, lambda flag: flag)

    settle_kernels(path, as_rank(0))
    new_process(monkeypatch)
    settle_kernels(path, as_rank(1))
    assert current_kernels() == ONE
    assert measured == [OTHER]


def test_switched_off_nothing_is_measured_or_written(tmp_path: Path, monkeypatch, measured):
    monkeypatch.setenv("SIGHTLINE_PLAIN_LINEAR", "1")
    settle_kernels(tmp_path / "kernels.json")
    assert not (tmp_path / "kernels.json").exists()
    assert len(measured) == 2
