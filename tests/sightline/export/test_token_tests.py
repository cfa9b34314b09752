"""Tests of token reductions: which amount, in which order, and the record of what is finished."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sightline.export.token_tests import TokenTest, at_one_share, choose_amount, in_order, read_record, write_record
from sightline.tokens import REDUCERS, KeepRandom, TokenReduction, kept_share

MADE = {"weights_sha256": "a", "data_sha256": "b"}


def made(name: str, kept: float, **options) -> TokenTest:
    method = TokenReduction.of(name, options)
    return TokenTest(method, kept, TokenReduction.of(name, {**options, "kept": kept}), kept + 0.01, 7)


def test_a_record_is_read_as_it_was_written(tmp_path):
    tests = [TokenTest(macs=9), made("random", 0.5, seed=3), replace(made("random", 0.2), share=0.9, macs=None)]
    path = tmp_path / "predictions" / "tested.json"
    assert read_record(path, MADE) == []
    write_record(tests, path, MADE)
    assert read_record(path, MADE) == tests
    assert read_record(path, MADE | {"weights_sha256": "other"}) == []


@pytest.mark.parametrize("change", [("random", "no such method"), ('"share"', '"part"'), ("{", "")])
def test_a_record_of_another_version_or_damaged_is_no_record(tmp_path, caplog, change):
    path = tmp_path / "tested.json"
    write_record([made("random", 0.5)], path, MADE)
    path.write_text(path.read_text().replace(*change))
    assert read_record(path, MADE) == []
    assert "the tests are made again" in caplog.text


def test_options_and_draws_are_told_apart(monkeypatch):
    monkeypatch.setitem(REDUCERS, "other", KeepRandom)
    drawn, other = made("random", 0.5, seed=3, layer=1), made("other", 0.5, seed=3)
    assert (drawn.seed, drawn.options) == (3, "layer=1")
    assert made("random", 0.5).seed == 0
    assert (other.seed, other.options) == (None, "seed=3")
    wanted = [TokenTest(), made("random", 0.9, seed=0), made("random", 0.9, seed=1), made("random", 0.5), drawn, other]
    assert in_order([other, drawn, *wanted[3:0:-1], wanted[0]]) == wanted


def test_only_five_points_beside_the_share_count_as_reached():
    assert replace(made("random", 0.5), share=0.54).reached
    assert not replace(made("random", 0.5), share=0.56).reached
    assert not replace(made("random", 0.5), share=0.44).reached


@torch.no_grad()
def test_an_amount_is_chosen_on_all_clips_where_counts_differ(tiny_swin, tiny_clips):
    clips = torch.cat([tiny_clips[:1], tiny_clips[1:2, :, :1].expand_as(tiny_clips[:1])])  # noise, and a still picture
    ragged = choose_amount(TokenReduction.of("rlt"), 0.875, tiny_swin, clips)
    even = choose_amount(TokenReduction.of("random"), 0.75, tiny_swin, clips)
    shares = kept_share(tiny_swin, clips, ragged.tokens.build())
    assert shares[0] > shares[1]
    assert ragged.share == pytest.approx(shares.mean().item())
    assert even.share == 0.75
    assert even.plan.plan_id == f"tokens-none-reduced-k0-{even.tokens.label}"


def side_by_side(*tests: TokenTest) -> list[tuple[str, float]]:
    return [(found.method.name, found.kept) for found in at_one_share([TokenTest(), *tests])]


def test_methods_are_looked_at_at_the_share_nearest_to_a_half():
    tests = [made(name, kept) for name in ("random", "grid") for kept in (0.9, 0.7, 0.4, 0.25)]
    assert side_by_side(*tests) == [("random", 0.4), ("grid", 0.4)]
    assert side_by_side(*tests[::-1]) == [("random", 0.4), ("grid", 0.4)]
    assert side_by_side() == []


def test_the_share_that_most_methods_reached_goes_first():
    far = replace(made("grid", 0.5), share=0.58)
    found = side_by_side(made("grid", 0.9), far, made("random", 0.9), made("random", 0.5))
    assert found == [("random", 0.9), ("grid", 0.9)]


def test_of_random_dropping_the_first_draw_is_looked_at_and_every_option_is_a_method():
    tests = [made("random", 0.5, seed=2), made("random", 0.5), made("random", 0.5, layer=1), made("grid", 0.5)]
    assert [dict(found.method.options) for found in at_one_share(tests)] == [{}, {"layer": 1}, {}]
