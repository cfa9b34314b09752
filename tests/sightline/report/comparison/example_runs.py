"""Run folders made by hand, for tests of the report: everything that a run leaves behind, without a run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from sightline.relevance.table import FORMAT_VERSION
from sightline.report.tables.pruning import PruningRow, write_pruning_table
from sightline.report.tables.relevance import relevance_tables, write_relevance_tables
from sightline.run.provenance import record_command
from tests.sightline.relevance.tables import score_table

LABELS = [i % 3 for i in range(30)]
GROUPS = [f"s{i % 10}" for i in range(30)]


def make_run(folder: Path, names: Sequence[str] = ("drowsy", "texting", "steering"), word: str = "plain") -> Path:
    """Make a run of three classes; ``word`` is put wherever a run holds text of the user's."""
    tables = folder / "tables"
    (tables / "predictions").mkdir(parents=True)
    config = {"model": {"init_args": {"backbone": "video_swin_demo"}}, "data": {"root": word}, "trainer": {}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    record_command(folder, ["fit", "--data.root", word])
    clips = pd.DataFrame({"sample_id": [f"{word}{i}" for i in range(30)], "label": [names[i] for i in LABELS]})
    clips.assign(group=GROUPS, split="train").to_csv(folder / "splits.csv", index=False)
    counts = pd.DataFrame({"split": "train", "label": names, "clips": 10, "groups": 10})
    pd.concat([counts, counts.assign(split="test", clips=[2, 2, 1])]).to_csv(tables / "split.csv", index=False)
    _curves(tables)
    _scores(folder, names)
    _models(tables, word)
    rows = pd.DataFrame({"split": ["train"], "sample_id": [word], "reason": [f"{word} ended early"]})
    rows.to_csv(tables / "unreadable.csv", index=False)
    heads = pd.DataFrame({"score": "r", "site": "attention", "class": names, "n": 10, "layer": 1, "head": [0, 1, 1]})
    heads = heads.assign(mean=0.5, margin=0.125, margin_low=[0.1, 0.0, None], margin_high=[0.2, 0.3, None], picked=0.75)
    heads.to_csv(tables / "specialised_heads_train.csv", index=False)
    shares = {"pointing": 0.625, "pointing_low": 0.5, "pointing_high": None, "uniform_pointing": 0.25, "share": 0.375}
    shares |= {"uniform_share": 0.25, "temporal": None, "uniform_temporal": None}
    pointing = {"target": [word], "layer": 1, "site": "attention", "head": 0, "n": 12, **shares}
    pd.DataFrame(pointing).to_csv(tables / "pointing_test.csv", index=False)
    stated = {"target": [word], "site": "attention", "measure": "pointing", "quantity": "uniform map"}
    stated |= {"value": 0.25, "low": 0.125, "high": 0.5, "heads": 2, "clips": 12, "groups": 9}
    pd.DataFrame(stated).to_csv(tables / "pointing_test_summary.csv", index=False)
    (folder / "attention").mkdir()
    for name in ("b.png", "b.mp4", f"{word.replace('/', '')}.png"):
        (folder / "attention" / name).write_bytes(f"bytes of {name}".encode())
    (folder / "attention" / "index.json").write_text(json.dumps({"b.png": f"{word} seen by layer 1 head 0"}))
    return folder


def _curves(tables: Path) -> None:
    """As Lightning's CSV logger writes them: what belongs to one epoch stands in several rows."""
    rows = [(0, 4, None, 1.5, 0.25), (0, 4, 2.0, None, None), (1, 9, None, 1.0, 0.75), (1, 9, 1.25, None, None)]
    rows += [(2, 14, None, 1.25, 0.5), (2, 14, 0.75, None, None)]
    columns = ["epoch", "step", "train/loss", "val/loss", "val/top1"]
    pd.DataFrame(rows, columns=columns).to_csv(tables / "metrics.csv", index=False)


def _scores(folder: Path, names: Sequence[str]) -> None:
    levels = np.array([0.2, 0.1, 0.6])[:, None]
    layers = score_table(levels + 0.05 * np.random.default_rng(0).random((3, 30)), GROUPS, LABELS)
    heads = pd.concat(
        [layers.assign(site="attention", head=head, r=layers["r"] / (head + 1)) for head in (0, 1)], ignore_index=True
    )
    entry = {
        "format_version": FORMAT_VERSION, "samples": 30, "left_out": [], "noise_floor": 1e-7, "class_names": names,
        "weights_sha256": "a" * 64, "data_sha256": "b" * 64, "precision": "float32", "checkpoint": "best.ckpt",
    }  # fmt: skip
    (folder / "relevance" / "train").mkdir(parents=True)
    for kind, table in (("layers", layers), ("heads", heads)):
        table.to_parquet(folder / "relevance" / "train" / f"{kind}.parquet")
        made = relevance_tables(table, ["r"], names, noise_floor=1e-7)
        write_relevance_tables(made, folder / "tables", "train", kind)
    content = {"tables": {"layers": entry, "heads": entry}}
    (folder / "relevance" / "train" / "manifest.json").write_text(json.dumps(content))


def _models(tables: Path, word: str) -> None:
    def row(mode: str, k: int, top1: float) -> PruningRow:
        named = {} if k == 0 else {"method": word, "score": "r", "removed_layers": tuple(range(k))}
        return PruningRow(
            backbone="video_swin_demo", plan_id=f"{mode}-k{k}", mode=mode, k=k, top1=top1, top1_low=top1 - 5,
            top1_high=top1 + 5, mean_class_acc=top1, params=1_000_000 - 250_000 * k, params_change_pct=-25.0 * k,
            macs=2 * 10**9 - 5 * 10**8 * k, macs_change_pct=-25.0 * k, latency_ms_b1=4.0, clips_per_s=250.0, batch=8,
            **named,
        )  # fmt: skip

    write_pruning_table([row("none", 0, 80), row("lowest", 1, 79), row("highest", 1, 40)], tables / "pruning.csv")
    clips = pd.DataFrame({"sample_id": [f"{word}{i}" for i in range(5)], "label": [0, 0, 1, 1, 2], "group": GROUPS[:5]})
    for model, predicted in (("none-k0", [0, 1, 1, 1, 0]), ("lowest-k1", [0, 1, 1, 1, 1])):
        clips.assign(predicted=predicted).to_csv(tables / "predictions" / f"{model}.csv", index=False)
