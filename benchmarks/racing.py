"""What racing saves, and how often it is wrong, on real tables.

    python benchmarks/racing.py --results docs/results/racing.json

Tables are raced as they are, each set alone, in many random orders: r of the demo's layers and heads on its 840 clips
(tests/sightline/relevance/racing/demo_scores.md), the same heads on 911 and 9,500 clips drawn from them with
replacement, and a unit that serves one class of 101. A set counts as wrong where it is not that of all clips, or, with
a tolerance, not as good within it. Savings are means over orders.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.result_files import add_results_option, write_result  # noqa: E402
from tests.sightline.relevance.racing.races import (  # noqa: E402
    demo_scores,
    drawn,
    rare_class,
    wrong_and_saving,
)

METHODS: dict[str, dict[str, Any]] = {
    "guaranteed": {},
    "guaranteed within 0.01": {"tolerance": 0.01},
    "approximate": {"method": "approximate"},
}


@dataclass(frozen=True)
class Table:
    """A table to race: its name, the scores (units, clips), the sets wanted, and in how many orders to race."""

    name: str
    scores: np.ndarray
    ks: tuple[int, ...]
    modes: tuple[str, ...]
    orders: int


def tables(orders: int) -> Iterator[Table]:
    """Yield the tables; the larger, the fewer orders they are raced in."""
    both = ("lowest", "highest")
    some, few = max(orders // 40, 1), max(orders // 200, 1)
    heads = demo_scores("heads_seed0")
    yield Table("6 layers, skewed", demo_scores("layers_skewed"), (1, 2, 3), both, orders)
    yield Table("6 layers", demo_scores("layers_seed0"), (1, 2, 3), both, some)
    yield Table("28 heads", heads, (1, 3, 6), both, some)
    yield Table("28 heads, drawn anew", drawn(heads, 911, 0), (1, 3, 6), both, some)
    yield Table("28 heads, drawn anew", drawn(heads, 9500, 0), (1, 3, 6), both, few)
    yield Table("one unit serves one of 101 classes", rare_class(heads, 9537, 101, 0), (1,), ("lowest",), some)


def measure(table: Table) -> Iterator[dict[str, Any]]:
    for mode in table.modes:
        for k in table.ks:
            for method, settings in METHODS.items():
                wrong, saving = wrong_and_saving(table.scores, range(table.orders), ks=(k,), modes=(mode,), **settings)
                yield {
                    "table": table.name, "units": table.scores.shape[0], "clips": table.scores.shape[1], "mode": mode,
                    "k": k, "method": method, "saving": round(saving, 2), "wrong": wrong, "orders": table.orders,
                }  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--orders", type=int, default=2000, help="of small tables; larger ones take fewer")
    add_results_option(parser)
    given = parser.parse_args(arguments)
    rows: list[dict[str, Any]] = []
    for table in tables(given.orders):
        for row in measure(table):
            rows.append(row)
            print(json.dumps(row), flush=True)
    if given.results is not None:
        write_result(given.results, rows, arguments)


if __name__ == "__main__":
    main()
