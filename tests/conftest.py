"""Fixtures that several rooms' tests share."""

import os
import shutil
from pathlib import Path

import hypothesis
import pytest
import torch
import yaml

from datamodules import SyntheticCabin
from sightline.backbones import VARIANTS, Backbone, build_backbone
from sightline.run.folder import VARIABLE

os.environ.setdefault("WANDB_MODE", "disabled")
# The same examples in every run: whether the suite passes must depend on the code alone.
hypothesis.settings.register_profile("same", derandomize=True)
hypothesis.settings.load_profile("same")

SHARED = Path(__file__).resolve().parents[2] / "shared"
DEMO_VARIANTS = sorted(name for name in VARIANTS if name.endswith("_demo"))
TINY_SWIN = {
    "frames": 4, "size": 32, "width": 16, "depths": [2, 2], "heads": [2, 4], "window": [2, 4, 4], "patch": [2, 4, 4],
}  # fmt: skip

CABIN = {
    "actions": ["steering", "texting-on-phone"], "subjects": 6, "clips_per_action": 6, "clip_frames": 6,
    "clip_size": 36, "render_workers": 1, "frames": 4, "size": 32, "short_side": 36, "batch_size": 8, "num_workers": 0,
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_run_folder_from_another_test():
    """Let no test find the folder that another one's command claimed in this process."""
    os.environ.pop(VARIABLE, None)
    yield
    os.environ.pop(VARIABLE, None)


def randomise(backbone: Backbone, seed: int = 0) -> Backbone:
    """Give every parameter values of a size at which each of them matters to the logits."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in backbone.parameters():
            scale = 0.3 if parameter.dim() == 1 else 1.0 / parameter[0].numel() ** 0.5
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
        for name, parameter in backbone.named_parameters():
            if "norm" in name and name.endswith("weight"):
                parameter.add_(1.0)
            if "bias_table" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return backbone.eval()


def with_interpreters(name: str, classes: int, options: dict | None = None, **interpreters) -> Backbone:
    """Build a backbone that holds interpreters, or where the family cannot, one without."""
    plain = build_backbone(name, classes, options)
    if len(plain.stage_starts) > 1:
        return plain
    return build_backbone(name, classes, options, interpreters=interpreters)


@pytest.fixture
def tiny_swin() -> Backbone:
    """A Video Swin of four layers in two stages with shifted windows, for clips (3, 4, 32, 32)."""
    return randomise(build_backbone("video_swin_demo", 5, TINY_SWIN))


@pytest.fixture
def tiny_clips() -> torch.Tensor:
    """Three clips for `tiny_swin`."""
    return torch.randint(0, 256, (3, 3, 4, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="session")
def shared_folder() -> Path:
    """Real clips and annotations that are not part of the product."""
    if not (SHARED / "clips").is_dir():
        pytest.skip("needs the folder of real clips beside the repository, which is not here")
    return SHARED


@pytest.fixture(scope="session")
def cabin_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rendered once per session: two actions by six drivers, six clips of each, small."""
    root = tmp_path_factory.mktemp("cabin")
    data = SyntheticCabin(root=str(root), **CABIN)
    data.prepare_data()
    return root


def copied_clips(cabin_root: Path, folder: Path) -> dict:
    """Copy the cabin's clips as somebody's own, which may be broken: the cabin itself would render them again."""
    (rendered,) = cabin_root.iterdir()
    shutil.copytree(rendered, folder)
    own = {key: CABIN[key] for key in ("frames", "size", "short_side", "batch_size", "num_workers")}
    return {"class_path": "datamodules.DriverClips", "init_args": own | {"root": str(folder)}}


@pytest.fixture
def tiny_config(cabin_root: Path, tmp_path: Path) -> Path:
    """A configuration of the whole main job that takes seconds."""
    config = {
        "seed_everything": 0,
        "data": {"class_path": "datamodules.SyntheticCabin", "init_args": {"root": str(cabin_root), **CABIN}},
        "model": {
            "class_path": "lightning_modules.VideoClassifier",
            "init_args": {
                "backbone": "video_swin_demo",
                "options": {k: v for k, v in TINY_SWIN.items() if k not in ("frames", "size")},
                "optimizer": "adamw",
                "learning_rate": 0.003,
            },
        },
        "trainer": {
            "accelerator": "cpu",
            "max_epochs": 2,
            "num_sanity_val_steps": 0,
            "callbacks": [
                {"class_path": "callbacks.HeadAblation"},
                {"class_path": "callbacks.LayerAblation"},
                {"class_path": "callbacks.RelevanceBoxplots"},
                {
                    "class_path": "callbacks.PrunedCheckpoints",
                    "init_args": {"depths": [1, 3], "latency_repeats": 2, "latency_batch": 2},
                },
            ],
        },
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return path
