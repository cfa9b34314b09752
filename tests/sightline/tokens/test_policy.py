"""The policy's mathematics, on cases small enough to list every draw."""

from itertools import product

import pytest
import torch

from sightline.tokens.policy import advantages, draws, noise_of, policy_loss, rewards


def test_rewards_by_hand():
    right, share = torch.tensor([True, True, False]), torch.tensor([0.5, 1.0, 0.5])
    assert rewards(right, share, 2.0).tolist() == [0.75, 0.0, -2.0]


def test_baselines_by_hand():
    found, greedy = torch.tensor([[3.0, 1.0], [1.0, 1.0], [2.0, 4.0]]), torch.tensor([2.0, 0.0])
    assert advantages(found, greedy, "self_critical").tolist() == [[1.0, 1.0], [-1.0, 1.0], [0.0, 4.0]]
    # The others of 3 have the mean 1.5, those of the two 1 have 2.5.
    assert advantages(found, greedy, "leave_one_out").tolist() == [[1.5, -1.5], [-1.5, -1.5], [0.0, 3.0]]


PATCHES = 3
TABLE = torch.randn(2**PATCHES, generator=torch.Generator().manual_seed(0)).double()
"""Any reward for every draw, as if a model had been run with it."""


def reward_of(drawn: torch.Tensor) -> torch.Tensor:
    return TABLE[(drawn.long() * torch.tensor([4, 2, 1])).sum(dim=-1)]


def probability(scores: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
    return torch.where(drawn, scores, 1 - scores).prod(dim=-1)


@pytest.mark.parametrize(("baseline", "count"), [("self_critical", 1), ("self_critical", 2), ("leave_one_out", 2)])
def test_the_gradient_is_expected_to_be_that_of_the_expected_reward(baseline, count):
    """All (2^3)^K outcomes, weighed by their probability: REINFORCE's estimate has no bias with either baseline."""
    logits = torch.tensor([[0.3, -0.8, 1.1]]).double().requires_grad_()
    every = torch.tensor(list(product((False, True), repeat=PATCHES)))  # (8, N)
    scores = logits.sigmoid()
    exact = torch.autograd.grad(-(probability(scores, every) * reward_of(every)).sum(), logits)[0]
    greedy = reward_of(scores > 0.5)
    there, expected = torch.ones(1, PATCHES, dtype=torch.bool), torch.zeros_like(exact)
    for chosen in product(range(len(every)), repeat=count):
        drawn = every[list(chosen)].unsqueeze(1)  # (K, 1, N)
        scores = logits.sigmoid()
        weight = probability(scores, drawn).prod().detach()
        loss = policy_loss(scores, drawn, there, advantages(reward_of(drawn), greedy, baseline))
        expected += weight * torch.autograd.grad(loss, logits)[0]
    torch.testing.assert_close(expected, exact)


def test_patches_that_do_not_exist_and_certain_scores_change_nothing():
    scores = torch.tensor([[0.25, 0.0, 1.0, 0.5]], requires_grad=True)
    drawn = torch.tensor([[[True, False, True, True]]])
    there = torch.tensor([[True, True, True, False]])
    loss = policy_loss(scores, drawn, there, torch.tensor([[2.0]]))
    assert loss.item() == pytest.approx(2 * 1.3862944, abs=1e-4)  # - 2 log(1/4)
    loss.backward()
    assert scores.grad.isfinite().all()
    assert scores.grad[0, 3] == 0


def test_draws_come_as_often_as_scores_say_and_hang_on_the_clip_alone():
    scores = torch.tensor([[0.1, 0.9, 0.0, 1.0], [0.5, 0.5, 0.5, 0.5]])
    noise = noise_of([5, 6], 4000, 4, 0)
    assert noise.shape == (4000, 2, 4)
    shares = draws(scores, noise).float().mean(dim=0)
    torch.testing.assert_close(shares, scores, rtol=0, atol=0.03)  # four deviations of a mean of 4,000
    assert torch.equal(noise_of([6, 9], 4000, 4, 0)[:, 0], noise[:, 1])
    assert not torch.equal(noise_of([5], 8, 4, 1)[:, 0], noise[:8, 0])
