"""explain on a finished run."""

import json
import shutil
from pathlib import Path

import pandas as pd
import yaml

import train
from tests.commands.calling import error_of
from tests.conftest import CABIN


def test_explain_draws_and_measures_what_heads_look_at(own_run: Path, capsys):
    train.main(["explain", "--run", str(own_run)])
    assert "Spearman" in capsys.readouterr().out
    table = pd.read_csv(own_run / "tables/pointing_test.csv")
    heads = pd.read_parquet(own_run / "relevance/train/heads.parquet")[["layer", "site", "head"]].drop_duplicates()
    shown = table[table["target"] == "head"]
    assert set(shown[["layer", "site", "head"]].itertuples(index=False, name=None)) == set(
        heads.itertuples(index=False, name=None)
    )
    assert shown["pointing"].between(0, 1).all()
    assert shown["pointing"].nunique() > 1
    captions = json.loads((own_run / "attention/index.json").read_text())
    files = {path.name for path in (own_run / "attention").iterdir()}
    assert files == {*captions, "index.json", "pointing_test.parquet"}
    assert len({name.rpartition("_")[0] for name in captions}) == 2  # a clip per class
    assert ": texting-on-phone, predicted " in list(captions.values())[-1]
    shutil.rmtree(own_run / "relevance")
    assert "Make it with: python train.py ablate --run" in error_of(capsys, "explain", "--run", str(own_run))


def test_a_model_is_shown_on_other_data(own_run: Path, tmp_path: Path, cabin_root: Path, capsys):
    data = {"class_path": "datamodules.SyntheticCabin", "init_args": {"root": str(cabin_root), **CABIN}}
    step = {"class_path": "callbacks.TransferGallery", "init_args": {
        "data": data, "classes": {"steering": ["steering"]}, "clips_per_class": 1,
    }}  # fmt: skip
    path = tmp_path / "transfer.yaml"
    path.write_text(yaml.safe_dump({"trainer": {"callbacks": [step]}}))
    arguments = ["explain", "--run", str(own_run), "--config", str(path)]
    train.main(arguments)
    assert len(pd.read_csv(own_run / "tables/transfer.csv")) == 1
    step["init_args"]["classes"] = {"sleeping": "steering"}
    path.write_text(yaml.safe_dump({"trainer": {"callbacks": [step]}}))
    assert "'sleeping', which is no class of the model's: steering, texting-on-phone" in error_of(capsys, *arguments)
