"""Train every family several times on the synthetic cabin, prune by every method, and put all of it into tables.

    python benchmarks/reproduce_tables.py --jobs 2                          # small: on two CPU cores, about an hour
    python benchmarks/reproduce_tables.py --size full                       # full-size backbones from scratch, on a GPU
    python benchmarks/reproduce_tables.py --size full --weights video_swin=swin3d_s.pth timesformer=k400.pyth
    python benchmarks/reproduce_tables.py --families vit --seeds 0 -- --trainer.max_epochs 1

Everything after ``--`` goes to train.py. A seed fixes initialisation, order, random crops and the division of subjects.
A run that is finished is not run again, and one that was interrupted goes on at its last whole epoch, so the command
can be given again at any time. Runs and their output are in OUT/<family>/seed<n> and .log beside it; the tables and
figures of `train.py compare` in OUT/tables, and OUT/results.md says how they came about.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import datamodules  # noqa: E402
from benchmarks.result_files import add_results_option, comparison_tables, write_result  # noqa: E402
from sightline.report.comparison.compare import compare_runs  # noqa: E402
from sightline.run.paths import RunFolder  # noqa: E402


@dataclass(frozen=True)
class Schedule:
    """What a family has of its own; the rest is in configs/reproduce_<size>.yaml.

    Attributes:
        backbone: Registered name.
        learning_rate: Largest learning rate.
        epochs: Length of the training.
        depths: How many layers to remove, up to about half of them.
        options: Fields of the backbone's configuration.
    """

    backbone: str
    learning_rate: float
    epochs: int
    depths: tuple[int, ...]
    options: dict[str, Any] = field(default_factory=dict)


SIZES: dict[str, dict[str, Schedule]] = {
    "small": {
        "video_swin": Schedule("video_swin_demo", 1e-3, 12, (1, 2, 3)),
        "mvit": Schedule("mvit_demo", 1e-3, 10, (1, 2, 3, 4), {"patch": [2, 8, 8], "kv_stride": [1, 2, 2]}),
        "timesformer": Schedule("timesformer_demo", 1e-3, 16, (1, 2, 3)),
        "vit": Schedule("vit_demo", 1e-3, 20, (1, 2, 3), {"patch": [4, 8, 8]}),
    },
    "full": {
        "video_swin": Schedule("video_swin_s", 1e-4, 30, (1, 2, 3, 4, 6, 8, 12)),
        "mvit": Schedule("mvit_v2_s", 1e-4, 30, (1, 2, 3, 4, 6, 8)),
        "timesformer": Schedule("timesformer_base", 5e-5, 30, (1, 2, 3, 4, 6)),
        "vit": Schedule("vit_base_videomae", 5e-5, 30, (1, 2, 3, 4, 6)),
    },
}


@dataclass
class Job:
    """One run: where it goes, its configuration, the table it ends with, and its process once it is started."""

    name: str
    folder: Path
    config: dict[str, Any]
    last_table: str = "pruning_by_subject"
    process: subprocess.Popen | None = None
    log: IO[str] | None = None
    started: float = 0.0

    @property
    def finished(self) -> bool:
        return RunFolder(self.folder).table(self.last_table).is_file()

    @property
    def log_path(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.log")

    def command(self, more: list[str]) -> list[str]:
        """Write the configuration and return what fits, ablates, prunes and tests."""
        path = self.folder.with_name(f"{self.folder.name}.yaml")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(self.config, sort_keys=False))
        command = [sys.executable, "train.py", "fit", "--config", str(path), "--run", str(self.folder)]
        last = RunFolder(self.folder).last_checkpoint
        return [*command, *(["--ckpt_path", str(last)] if last.is_file() else ["--replace_run", "true"]), *more]

    def start(self, more: list[str], threads: int | None) -> None:
        command = self.command(more)
        limit = {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
        self.log = self.log_path.open("a")
        self.started = time.monotonic()
        environment = {"WANDB_MODE": "disabled", **os.environ, **limit}
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdout=self.log, stderr=subprocess.STDOUT, env=environment, stdin=subprocess.DEVNULL
        )

    def state(self) -> str:
        """Say what the run is doing: the end of its log."""
        lines = self.log_path.read_text(errors="replace").replace("\r", "\n").split("\n")
        latest = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return f"{self.name}: {latest[:90]}"


def configuration(args: argparse.Namespace, family: str, seed: int) -> dict[str, Any]:
    """Return the configuration of one run: that of the size, with what the family and the seed change."""
    schedule = SIZES[args.size][family]
    config = yaml.safe_load(args.config.read_text())
    config["seed_everything"] = seed
    config["data"]["init_args"] |= {"seed": seed, "cache_dir": str(args.out / "frames")}
    weights = args.weights.get(family)
    model = {"backbone": schedule.backbone, "learning_rate": schedule.learning_rate, "options": schedule.options}
    config["model"]["init_args"] |= {**model, "weights": weights}
    config["trainer"]["max_epochs"] = schedule.epochs
    for callback in config["trainer"]["callbacks"]:
        if callback["class_path"] == "callbacks.PrunedCheckpoints":
            callback["init_args"]["depths"] = list(schedule.depths)
    return config


def render(config: dict[str, Any]) -> None:
    """Render the cabin once, before several runs would."""
    data = getattr(datamodules, config["data"]["class_path"].rsplit(".", 1)[-1])(**config["data"]["init_args"])
    data.prepare_data()


def run_all(jobs: list[Job], at_once: int, more: list[str]) -> list[Job]:
    """Run jobs side by side, each with its share of the cores, and tell how it goes; return those that failed."""
    threads = None if at_once == 1 else max(1, (os.cpu_count() or 1) // at_once)
    waiting = list(jobs)
    running: list[Job] = []
    failed: list[Job] = []
    told = time.monotonic()
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                running.append(waiting.pop(0))
                running[-1].start(more, threads)
                print(f"started {running[-1].name}, {len(waiting)} wait (output: {running[-1].log_path})", flush=True)
            time.sleep(0.5)
            for job in [job for job in running if job.process is not None and job.process.poll() is not None]:
                running.remove(job)
                assert job.process is not None
                good = job.process.returncode == 0 and job.finished
                failed += [] if good else [job]
                minutes = (time.monotonic() - job.started) / 60
                print(f"{'finished' if good else 'FAILED'} {job.name} after {minutes:.1f} minutes", flush=True)
            if time.monotonic() - told >= 60:
                told = time.monotonic()
                print("\n".join(f"  {job.state()}" for job in running), flush=True)
    finally:
        for job in running:
            if job.process is not None and job.process.poll() is None:
                job.process.terminate()
                job.process.wait()
        for job in jobs:
            if job.log is not None:
                job.log.close()
    return failed


def finish_all(
    args: argparse.Namespace, configure: Callable[[str, int], dict[str, Any]], last_table: str = Job.last_table
) -> list[Path]:
    """Run every family and seed that is not finished yet; return the runs' folders, family by family.

    Args:
        args: The command line.
        configure: Makes a run's configuration from family and seed.
        last_table: The table that a finished run has.
    """
    # Seed by seed: whatever is there when it is interrupted has all families.
    jobs = [
        Job(f"{family} seed {seed}", args.out / family / f"seed{seed}", configure(family, seed), last_table)
        for seed in args.seeds
        for family in args.families
    ]
    todo = [job for job in jobs if not job.finished]
    print(f"{len(jobs)} runs, {len(jobs) - len(todo)} of them finished before", flush=True)
    if todo:
        render(todo[0].config)
    failed = run_all(todo, args.jobs, args.more)
    if failed:
        sys.exit("failed: " + ", ".join(f"{job.name} ({job.log_path})" for job in failed))
    return [job.folder for job in sorted(jobs, key=lambda job: args.families.index(job.folder.parent.name))]


def write_results(args: argparse.Namespace, command: str) -> None:
    """Put the tables under a heading that says how they came about."""
    lines = [f"# Pruning {', '.join(args.families)}", "", f"`{command}`", ""]
    lines += [f"Seeds {', '.join(map(str, args.seeds))}; settings in `{args.config.name}`, and by family:", ""]
    lines += ["| family | backbone | learning rate | epochs | options |", "| --- | --- | ---: | ---: | --- |"]
    for family in args.families:
        s = SIZES[args.size][family]
        told = ", ".join(f"{key}: {value}" for key, value in s.options.items())
        lines.append(f"| {family} | `{s.backbone}` | {s.learning_rate:g} | {s.epochs} | {told} |")
    lines += ["", "![Accuracy and cost](tables/accuracy_against_cost.png)", ""]
    tables = (args.out / "tables" / "comparison.md").read_text()
    (args.out / "results.md").write_text("\n".join(lines) + "\n" + tables)


def arguments_of(words: list[str], about: str = __doc__, out: str = "tables") -> argparse.Namespace:
    """Read a command line; other benchmarks that train every family have another text and folder."""
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--size", choices=sorted(SIZES), default="small")
    parser.add_argument("--families", nargs="+", choices=list(SIZES["small"]), default=list(SIZES["small"]))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--config", type=Path, help="instead of configs/reproduce_<size>.yaml, e.g. of your clips")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side, each with its share of the cores")
    parser.add_argument("--out", type=Path, help=f"folder of the runs and tables; runs/{out}-<size> if not given")
    parser.add_argument("--weights", nargs="+", default=[], metavar="FAMILY=FILE", help="weights to start from")
    add_results_option(parser)
    parser.add_argument("more", nargs="*", help="further options of train.py, after --")
    args = parser.parse_args(words)
    weights = dict(pair.partition("=")[::2] for pair in args.weights)
    if not set(weights) <= set(args.families) or not all(weights.values()):
        parser.error(f"--weights takes FAMILY=FILE for families of {', '.join(args.families)}, got {args.weights}")
    if args.jobs < 1:
        parser.error(f"--jobs is at least 1, got {args.jobs}")
    args.weights, args.out = weights, (args.out or ROOT / "runs" / f"{out}-{args.size}").resolve()
    args.config = args.config or ROOT / "configs" / f"reproduce_{args.size}.yaml"
    return args


def main(words: list[str] | None = None) -> None:
    words = sys.argv[1:] if words is None else words
    args = arguments_of(words)
    os.chdir(ROOT)  # where train.py runs, so that relative paths of data mean the same
    started = time.monotonic()
    folders = finish_all(args, lambda family, seed: configuration(args, family, seed))
    compare_runs([str(folder) for folder in folders], str(args.out / "tables"))
    if args.results is not None:
        tables = comparison_tables(args.out / "tables", folders)
        write_result(args.results, tables.pop("rows"), words, seeds=args.seeds, **tables)
    write_results(args, shlex.join(["python", "benchmarks/reproduce_tables.py", *words]))
    print(f"{args.out / 'results.md'}, after {(time.monotonic() - started) / 60:.0f} minutes")


if __name__ == "__main__":
    main()
