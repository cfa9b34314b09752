"""How the fixture of `tests/older_runs/` was made: runs and exports as an older version wrote them.

What lies beside this file was written by Sightline 0.1.0 at commit 43a2d8a and shows what later versions must read. It
is not made again when the code changes. To make one of another version, take that version's commit:

    git worktree add ../older 43a2d8a
    cd ../older && OMP_NUM_THREADS=1 <python> <this repository>/tests/old_run/make.py

The commands below then run with the code of the folder that one is in, one after the other, in this file's folder. All
paths are relative, so that the fixture can be copied anywhere:

    clips/                   the rendered synthetic cabin: two actions by six drivers, four clips of each
    run/                     a whole main job of a tiny Video Swin (main.yaml); best and last weights are of different
                             epochs; ablated on train and test clips, pruned, tested, predicted, explained
    families/<backbone>/     smaller jobs of the other families (family.yaml)
    recovered/               one of run's pruned models, trained on with the full one as teacher (recovery.yaml)
    expected/videos.jsonl    what `predict --exported` told of two clips, for every export
    expected/resumed.csv     the curves of run/, had it been resumed for one more epoch

To keep it small, figures, pictures and pages are deleted, and so is what other files here show as well: some exports
(their predictions and scores are there), the last weights and the export of recovered/, and of the families everything
but the exports of the full model and of the one without a layer and a head.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import tempfile
from pathlib import Path

import pandas as pd

HERE = Path(__file__).resolve().parent
CODE = Path.cwd()
FAMILIES = {
    "mvit_demo": "{width: 8, depths: [1, 2], heads: [2, 4], kv_stride: [1, 2, 2], mlp_ratio: 2.0}",
    "timesformer_demo": "{width: 8, depth: 2, heads: 2, patch: 8, mlp_ratio: 2.0}",
    "vit_demo": "{width: 8, depth: 2, heads: 2, patch: [2, 8, 8], mlp_ratio: 2.0}",
}
MAIN = """
fit --config main.yaml --run run
ablate --run run --split test
test --run run
test --run run --ckpt_path run/pruned/relevance-r-lowest-k1/model.ckpt
test --run run --ckpt_path run/pruned/layers1_heads-r-lowest-k3/model.ckpt
predict --run run
explain --run run --split test
fit --config recovery.yaml --run recovered
test --run recovered
"""
FAMILY = """
fit --config family.yaml --run families/{name} --model.backbone {name} --model.options "{options}"
test --run families/{name} --ckpt_path families/{name}/pruned/relevance-r-none-k0/model.ckpt
test --run families/{name} --ckpt_path families/{name}/pruned/layers1_heads-r-lowest-k2/model.ckpt
"""
RESUME = """
fit --config run/config.yaml --ckpt_path run/checkpoints/last.ckpt --trainer.callbacks null --trainer.max_epochs 17
"""
DELETED = """
*/figures */attention */report.html run/pruned/greedy-* run/pruned/block_influence-* run/pruned/heads-*
recovered/checkpoints/last.ckpt recovered/pruned
families/*/figures families/*/checkpoints families/*/pruned/heads-* families/*/pruned/relevance-*-k1
"""


def run(commands: str) -> None:
    """Run commands of the command line, one a line, in this process."""
    import train

    for line in commands.strip().splitlines():
        try:
            train.main(shlex.split(line))
        except SystemExit as ended:
            if ended.code:
                raise


def make() -> None:
    """Run all commands in this file's folder, which holds nothing of an earlier fixture."""
    run(MAIN)
    for name, options in FAMILIES.items():
        run(FAMILY.format(name=name, options=options))
    for pattern in DELETED.split():
        for path in Path().glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    Path("expected").mkdir()
    tell_videos(Path("expected/videos.jsonl"))
    resume(Path("expected/resumed.csv").resolve())


def tell_videos(path: Path) -> None:
    """Classify the first clip of each action with every export."""
    root = next(Path("clips").iterdir())
    videos = [(root / name).as_posix() for name in pd.read_csv(root / "clips.csv").drop_duplicates("label")["video"]]
    lines = []
    for folder in sorted({file.parent.as_posix() for file in Path().rglob("pruned/*/model.json")}):
        run(f"predict --exported {folder} --device cpu --out told.jsonl --video {' '.join(videos)}")
        told = Path("told.jsonl").read_text().splitlines()
        lines += [json.dumps({"exported": folder, **json.loads(line)}) for line in told]
    Path("told.jsonl").unlink()
    path.write_text("\n".join(lines) + "\n")


def resume(path: Path) -> None:
    """Resume a copy of the run and keep its curves."""
    with tempfile.TemporaryDirectory() as place:
        for name in ("clips", "run"):
            shutil.copytree(name, Path(place, name))
        os.chdir(place)
        run(RESUME)
        shutil.copy("run/tables/metrics.csv", path)
        os.chdir(HERE)


def check() -> None:
    """Stop where a file names a place of the machine that made it."""
    places = {str(CODE), str(HERE), str(Path.home()), sys.prefix, tempfile.gettempdir() + "/"}
    for path in HERE.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            content = path.read_bytes()
            if path.suffix == ".parquet":
                content += pd.read_parquet(path).to_csv().encode()
            found = [place for place in places if place.encode() in content]
            if found:
                raise SystemExit(f"{path} names {', '.join(found)}.")


if __name__ == "__main__":
    sys.path.insert(0, str(CODE))
    os.environ["WANDB_MODE"] = "disabled"
    os.chdir(HERE)
    make()
    check()
