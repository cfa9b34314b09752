import pandas as pd

from sightline.report.page.blocks import Folded, Table
from sightline.report.page.pointing_section import pointing_section
from sightline.report.stored.run_results import RunResults

QUANTITIES = {
    "relevant deep heads": (0.75, 0.61, 0.82), "all other heads": (0.5, 0.4, 0.6),
    "difference to all other heads": (0.25, None, None), "other deep heads": (0.3, None, None),
}  # fmt: skip


def test_the_pointing_game_comes_first_and_all_else_is_folded(tmp_path):
    rows = [
        {
            "target": target, "site": "attention", "measure": measure, "quantity": quantity, "value": value, "low": low,
            "high": high, "heads": 2, "clips": clips, "groups": 9,
        }
        for target, clips in (("hand", 180), ("action", 20))
        for measure in ("pointing", "share")
        for quantity, (value, low, high) in QUANTITIES.items()
    ]  # fmt: skip
    (tmp_path / "tables").mkdir()
    (tmp_path / "config.yaml").write_text("model: {}\ndata: {}\ntrainer: {}\n")
    pd.DataFrame(rows).to_csv(tmp_path / "tables/pointing_test_summary.csv", index=False)
    short, every = pointing_section(RunResults(tmp_path)).blocks
    assert isinstance(short, Table)
    assert [row[0] for row in short.rows] == ["hand", "action"]
    assert short.rows[0][2:5] == ["0.75 (0.61 to 0.82)", "0.50 (0.40 to 0.60)", "0.25"]
    assert short.rows[0][5:] == ["", "", "180"]  # not told: the uniform map and the correlation
    assert isinstance(every, Folded)
    (table,) = every.blocks
    assert len(table.rows) == len(rows)
