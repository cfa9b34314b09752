import pytest
import torch

from sightline.relevance import memory
from sightline.relevance.ablation import ablated_logits
from sightline.relevance.memory import PeakMemory, StackSize, budget, free_memory

CPU = torch.device("cpu")


def test_peak_counts_what_is_alive_at_once():
    given = torch.zeros(1000)  # not made within
    with PeakMemory() as found:
        a = given + 1  # 4000 bytes
        b = a.view(10, 100) * 2  # 8000 together; the view is no new memory
        del a
        c = b + 1  # again 8000
        b.add_(1)
        del b, c
        torch.zeros(500)  # 2000
    assert found.peak == 8000


def test_size_follows_from_what_one_variant_took(monkeypatch):
    monkeypatch.setattr(memory, "budget", lambda device: 100_000)
    size = StackSize()
    assert size.of(3, 2, CPU) == 1  # not measured yet
    with size.measured(3, clips=2):
        torch.zeros(1000)  # 2000 bytes per clip
    assert size.of(3, 2, CPU) == 25
    assert size.of(3, 5, CPU) == 10
    assert size.of(3, 1000, CPU) == 1
    assert size.of(4, 2, CPU) == 1
    size.halve(3)
    assert size.of(3, 2, CPU) == 12
    with size.measured(3, clips=2):  # measured once
        torch.zeros(1)
    assert size.of(3, 2, CPU) == 12


def test_size_never_exceeds_the_largest(monkeypatch):
    monkeypatch.setattr(memory, "budget", lambda device: 100_000)
    size = StackSize(4)
    with size.measured(0, clips=1):
        torch.zeros(1000)
    assert size.of(0, 1, CPU) == 4
    assert size.of(0, 12, CPU) == 2
    with pytest.raises(ValueError, match="at least 1, got 0"):
        StackSize(0)


def test_free_memory_is_what_the_system_or_the_container_says(monkeypatch, tmp_path):
    everything = free_memory(CPU)
    assert everything > 0
    limit, used = tmp_path / "max", tmp_path / "current"
    monkeypatch.setattr(memory, "_CGROUP_LIMITS", ((limit, used),))
    limit.write_text("max\n")
    used.write_text("10\n")
    assert free_memory(CPU) > 0.5 * everything
    limit.write_text("5000010\n")
    assert free_memory(CPU) == 5_000_000
    assert budget(CPU) == 2_500_000
    used.write_text("6000000\n")
    assert free_memory(CPU) == 0


def test_stacks_really_grow_and_stay_in_the_budget(tiny_swin, tiny_clips, monkeypatch):
    sizes = []
    readout = type(tiny_swin).readout
    monkeypatch.setattr(
        type(tiny_swin),
        "readout",
        lambda self, state, start, **rest: sizes.append(state.batch) or readout(self, state, start, **rest),
    )
    units = tiny_swin.units("heads") + tiny_swin.units("layers")
    size = StackSize()
    ablated_logits(tiny_swin, tiny_clips, units, stack=size)
    assert max(sizes) > 3  # several variants of three clips
    sizes.clear()
    ablated_logits(tiny_swin, tiny_clips, units, stack=size)
    assert len(sizes) == tiny_swin.depth  # all variants of a layer at once, now that it is known that they fit
    monkeypatch.setattr(memory, "budget", lambda device: 1)
    sizes.clear()
    ablated_logits(tiny_swin, tiny_clips, units, stack=StackSize())
    assert sizes == [3] * len(units)


def test_running_out_of_memory_halves_the_stack(tiny_swin, tiny_clips, monkeypatch):
    units = tiny_swin.units("heads")
    expected = ablated_logits(tiny_swin, tiny_clips, units).units
    readout, fits = type(tiny_swin).readout, 2 * len(tiny_clips)

    def small_device(self, state, start, **rest):
        if state.batch > fits:
            raise torch.OutOfMemoryError("no more")
        return readout(self, state, start, **rest)

    monkeypatch.setattr(type(tiny_swin), "readout", small_device)
    size = StackSize()
    for _ in range(2):
        torch.testing.assert_close(ablated_logits(tiny_swin, tiny_clips, units, stack=size).units, expected)
    fits = 1
    with pytest.raises(torch.OutOfMemoryError):
        ablated_logits(tiny_swin, tiny_clips, units, stack=size)
