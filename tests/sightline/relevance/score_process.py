"""One of the processes of an ablation that a test kills: python -m tests.sightline.relevance.score_process ..."""

import argparse
import time
from pathlib import Path

import torch
import torch.distributed as dist

from sightline.backbones import build_backbone
from sightline.relevance import job
from sightline.relevance.table import ScoreTable, Settings
from sightline.run.ranks import Ranks

SWIN = {"frames": 4, "size": 32, "width": 16, "depths": [2, 2], "heads": [2, 4], "window": [2, 4, 4]}
NAMES = [f"clip{i:02d}" for i in range(18)]


def batches(places: list[int], size: int, seconds: float):
    generator = torch.Generator().manual_seed(5)
    clips = torch.randint(0, 256, (len(NAMES), 3, 4, 32, 32), dtype=torch.uint8, generator=generator)
    for start in range(0, len(places), size):
        chosen = places[start : start + size]
        time.sleep(seconds)  # so that there is a moment to kill at
        yield {
            "clip": clips[chosen],
            "label": torch.tensor([i % 5 for i in chosen]),
            "sample_id": [NAMES[i] for i in chosen],
            "group": [f"s{i % 3}" for i in chosen],
            "unreadable": [],
        }


def ranks(rank: int, world: int, store: Path) -> Ranks:
    if world == 1:
        return Ranks()
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)

    def all_true(flag: bool) -> bool:
        total = torch.tensor(int(flag))
        dist.all_reduce(total)
        return int(total) == world

    return Ranks(rank, world, all_true)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rank", type=int, default=0)
    parser.add_argument("--world", type=int, default=1)
    parser.add_argument("--store", type=Path)
    parser.add_argument("--stack", type=int, default=None)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=0.0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    backbone = build_backbone("video_swin_demo", 5, SWIN | {"patch": [2, 4, 4]}).eval()
    job.score_split(
        backbone,
        ScoreTable(args.folder, Settings("heads", "w", "d")),
        NAMES,
        lambda places: batches(places, args.batch, args.seconds),
        ranks=ranks(args.rank, args.world, args.store),
        largest_stack=args.stack,
        seconds_per_part=0,
    )


if __name__ == "__main__":
    main()
