import json

import pytest

from sightline.run.provenance import RUN_FORMAT, read_provenance, record_command


def test_commands_are_kept_in_order(tmp_path):
    assert read_provenance(tmp_path) is None
    record_command(tmp_path, ["fit", "--data.root", "a b"])
    record_command(tmp_path, ["prune"])
    found = read_provenance(tmp_path)
    assert found["run_format"] == RUN_FORMAT
    assert [entry["command"] for entry in found["commands"]] == [
        "python train.py fit --data.root 'a b'", "python train.py prune",
    ]  # fmt: skip
    assert {"python", "torch", "lightning"} <= set(found["commands"][0]["versions"])
    assert [path.name for path in tmp_path.iterdir()] == ["provenance.json"]


def test_another_format_is_neither_read_nor_overwritten(tmp_path):
    path = tmp_path / "provenance.json"
    path.write_text(json.dumps({"run_format": RUN_FORMAT + 1, "commands": []}))
    for action in (read_provenance, lambda folder: record_command(folder, ["test"])):
        with pytest.raises(ValueError, match=f"format {RUN_FORMAT + 1}; this version of Sightline reads"):
            action(tmp_path)
    assert json.loads(path.read_text())["run_format"] == RUN_FORMAT + 1
