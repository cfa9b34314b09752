"""Testing one model with several token reductions at given shares of kept tokens, and a record of what was tested."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from sightline.backbones import Backbone
from sightline.export.counting import count_cost
from sightline.pruning.plan import PruningPlan, unpruned_plan, unremoved_plan
from sightline.run.atomic import write_json
from sightline.tokens.asked import CONTROL, SEED
from sightline.tokens.equal_kept import at_kept
from sightline.tokens.registry import REDUCERS
from sightline.tokens.spec import TokenReduction

REACH = 0.05
"""How far the share that is kept may be from the one asked for: beyond, a test would compare what is unequal."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TokenTest:
    """A test of a model with one amount of one token reduction, or with all tokens.

    Attributes:
        method: The reduction as it was asked for, without an amount; None for all tokens.
        kept: Share of the tokens to keep that was asked for.
        tokens: The reduction with the amount that comes nearest; None for all tokens.
        share: What that keeps, mean over layers and clips, see `sightline.tokens.kept_share`.
        macs: Multiply-adds per clip, mean over clips; None where they were not counted yet.
    """

    method: TokenReduction | None = None
    kept: float = 1.0
    tokens: TokenReduction | None = None
    share: float = 1.0
    macs: int | None = None

    @property
    def reached(self) -> bool:
        """Whether the reduction can keep about the share that was asked for; else it is not tested."""
        return abs(self.share - self.kept) <= REACH

    @property
    def plan(self) -> PruningPlan:
        """The plan of a model that runs like this."""
        return unpruned_plan() if self.tokens is None else unremoved_plan(self.tokens)

    @property
    def seed(self) -> int | None:
        """Which draw of the control it is; None of any other method."""
        if self.method is None or self.method.name != CONTROL:
            return None
        return int(dict(self.method.options).get(SEED, 0))

    @property
    def options(self) -> str:
        """The method's options besides amount and draw, e.g. ``first=grid``; empty where all have their defaults."""
        given = [] if self.method is None else self.method.options
        drawn = self.seed is not None
        return " ".join(f"{key}={value}" for key, value in given if not (drawn and key == SEED))

    def key(self) -> tuple[Any, ...]:
        """What the test was asked for."""
        return self.method, self.kept


def choose_amount(method: TokenReduction, kept: float, backbone: Backbone, clips: Tensor) -> TokenTest:
    """Choose the amount of a method that keeps a share; arguments as of `sightline.tokens.equal_kept.at_kept`."""
    tokens, share = at_kept(method, backbone, kept, clips)
    return TokenTest(method, kept, tokens, share)


def counted(test: TokenTest, backbone: Backbone, clips: Tensor) -> TokenTest:
    """Count what a test's model costs on clips, which each may keep other tokens."""
    reducer = None if test.tokens is None else test.tokens.build()
    return replace(test, macs=count_cost(backbone, reducer, clips).macs)


def in_order(tests: Sequence[TokenTest]) -> list[TokenTest]:
    """Sort tests as tables show them: all tokens, then methods as registered, each from most kept to least."""
    names = list(REDUCERS)

    def place(test: TokenTest) -> tuple[Any, ...]:
        name = -1 if test.method is None else names.index(test.method.name)
        return name, test.options, -test.kept, test.seed or 0

    return sorted(tests, key=place)


def at_one_share(tests: Sequence[TokenTest]) -> list[TokenTest]:
    """Choose tests to look at side by side: of every method one, of random dropping the first draw, at the same share.

    That is the share that most methods reached, of several the one nearest to a half.
    """
    first: dict[tuple[str, str, float], TokenTest] = {}
    for test in in_order([test for test in tests if test.reached and test.method is not None]):
        assert test.method is not None
        first.setdefault((test.method.name, test.options, test.kept), test)
    reached = [kept for _, _, kept in first]
    share = max(reached, key=lambda kept: (reached.count(kept), -abs(kept - 0.5), kept), default=None)
    return [test for test in first.values() if test.kept == share]


def write_record(tests: Sequence[TokenTest], path: Path, made_from: Mapping[str, Any]) -> None:
    """Write which tests are finished, and which weights and data they are of."""
    write_json(path, {"made_from": dict(made_from), "tests": [_plain(test) for test in tests]})


def read_record(path: Path, made_from: Mapping[str, Any]) -> list[TokenTest]:
    """Read which tests are finished; none where there is no record, or it is of other weights or data."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["made_from"] != dict(made_from):
            log.info("The tests in %s are of other weights or data, and are made again.", path)
            return []
        return [_read(entry) for entry in content["tests"]]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError) as error:
        log.warning("%s is not a record of this version (%s); the tests are made again.", path, error)
        return []


def _plain(test: TokenTest) -> dict[str, Any]:
    return {
        "method": test.method and test.method.plain(),
        "kept": test.kept,
        "tokens": test.tokens and test.tokens.plain(),
        "share": test.share,
        "macs": test.macs,
    }


def _read(entry: Mapping[str, Any]) -> TokenTest:
    method, tokens = (entry[name] and TokenReduction.from_plain(entry[name]) for name in ("method", "tokens"))
    macs = entry["macs"]
    return TokenTest(method, float(entry["kept"]), tokens, float(entry["share"]), None if macs is None else int(macs))
