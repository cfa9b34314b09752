from sightline.report.numbers import fixed
from sightline.report.page.attribution_section import attribution_section
from sightline.report.page.blocks import Folded, Missing, Table
from sightline.report.stored.run_results import RunResults
from sightline.report.tables.attribution import write_attribution_tables
from tests.sightline.report.tables.test_attribution import rows


def run_in(folder):
    (folder / "tables").mkdir(exist_ok=True)
    (folder / "config.yaml").write_text("model: {}\ndata: {}\ntrainer: {}\n")
    return RunResults(folder)


def test_methods_with_controls_last_and_every_metric_folded(tmp_path):
    (tmp_path / "tables").mkdir()
    write_attribution_tables(rows(), ["random"], tmp_path / "tables", "test")
    short, every = attribution_section(run_in(tmp_path)).blocks
    assert isinstance(short, Table)
    assert [row[0] for row in short.rows] == ["staa", "raw", "(random)"]
    assert short.caption.startswith("On 10 test clips. Means over the clips")
    assert isinstance(every, Folded)
    (table,) = every.blocks
    assert table.rows[0][:4] == ["deletion_blur", "low", "staa", "0.245"]
    assert table.rows[0][5:7] == ["0.500", fixed(-0.255, 3)]
    assert len(table.rows) == 9


def test_nothing_measured_names_the_command(tmp_path):
    (block,) = attribution_section(run_in(tmp_path)).blocks
    assert isinstance(block, Missing)
    assert block.command.startswith("python train.py attribute --run")
