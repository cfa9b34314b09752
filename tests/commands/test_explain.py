"""explain on a finished run."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml

import train
from callbacks.commands.training import with_tokens
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


def test_a_token_reduction_is_drawn_alone(own_run: Path, capsys):
    shutil.rmtree(own_run / "relevance")  # which only the maps of heads need
    before = (own_run / "report.html").read_text()
    train.main(["explain", "--run", str(own_run), "--tokens", "random", "--tokens.kept=0.25"])
    printed = capsys.readouterr().out
    assert "random_kept0.25: 62 % of the tokens kept" in printed
    table = pd.read_csv(own_run / "tables/kept_tokens_test.csv")
    assert table["tokens"].unique().tolist() == ["random_kept0.25"]
    assert {path.suffix for path in (own_run / "attention").glob("*_random_kept0.25_kept.*")} == {".png", ".mp4"}
    page = (own_run / "report.html").read_text()
    assert "What random_kept0.25 keeps" in page
    assert "What random_kept0.25 keeps" not in before
    told = error_of(capsys, "explain", "--run", str(own_run), "--tokens", "random", "--tokens.share", "0.5")
    assert "random has no option 'share'" in told


@pytest.mark.slow
def test_exported_models_with_fewer_tokens_are_drawn(own_run: Path, capsys):
    callback = ["--trainer.callbacks", "callbacks.PrunedCheckpoints"]
    tokens = ["--trainer.callbacks.tokens", "[{name: random, options: {kept: 0.25}}]"]
    train.main(["prune", "--run", str(own_run), *callback, *tokens])
    plan = "tokens-none-reduced-k0-random_kept0.25"
    train.main(["explain", "--run", str(own_run)])
    drawn = {path.name for path in (own_run / "attention").glob("*.png")}
    assert sum(name.endswith("_random_kept0.25_kept.png") for name in drawn) == 2
    assert any(name.endswith("_heads.png") for name in drawn)
    first = (own_run / "tables/kept_tokens_test.csv").read_text()
    checkpoint = own_run / "pruned" / plan / "model.ckpt"
    train.main(["explain", "--run", str(own_run), "--ckpt_path", str(checkpoint)])
    assert (own_run / "tables/kept_tokens_test.csv").read_text() == first
    told = error_of(
        capsys, "explain", "--run", str(own_run), "--ckpt_path", str(checkpoint), "--tokens", "random"
    )  # fmt: skip
    assert "tokens are not reduced twice" in told


def test_options_of_a_reduction_become_one_object():
    found = with_tokens(["--tokens", "random", "--split", "val", "--tokens.kept", "0.5", "--tokens.seed=3"])
    assert found[:1] + found[2:] == ["--tokens", "--split", "val"]
    told = json.loads(found[1])
    assert (told["name"], told["options"]["kept"], told["options"]["seed"]) == ("random", 0.5, 3)
    assert json.loads(with_tokens(["--tokens=random"])[1])["options"]["kept"] == 0.5
    assert with_tokens(["--tokens", '{"name": "random"}']) == ["--tokens", '{"name": "random"}']
    assert with_tokens(["--run", "runs/x"]) == ["--run", "runs/x"]
    with pytest.raises(ValueError, match=r"--tokens\.kept is an option of a token reduction: name one"):
        with_tokens(["--tokens.kept", "0.5"])
    with pytest.raises(ValueError, match="the name of a token reduction behind --tokens, got none"):
        with_tokens(["--tokens"])
