"""Small files in every form in which people own weights, and the reference library's model that each belongs to.

The names of the official releases are written out by hand, for one block of each family and for what is outside the
blocks, beside the names of the same tensors in the reference library; so they share nothing with the code under test.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models.video.mvit import MSBlockConfig, MViT
from torchvision.models.video.swin_transformer import SwinTransformer3d
from transformers import (
    TimesformerConfig,
    TimesformerForVideoClassification,
    VideoMAEConfig,
    VideoMAEForPreTraining,
    VideoMAEForVideoClassification,
)

from tests.conftest import TINY_SWIN, randomise

CLASSES = 7
LABELS = {0: "b", 1: "a", 2: "c", 3: "d", 4: "e", 5: "f", 6: "g"}
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
KINETICS = ((0.45, 0.45, 0.45), (0.225, 0.225, 0.225))

LINEAR = ("weight", "bias")
# One block of each official release: name there, name in the reference library; each with a weight and a bias.
SWIN_BLOCK = [
    ("norm1", "norm1"), ("attn.qkv", "attn.qkv"), ("attn.proj", "attn.proj"), ("norm2", "norm2"),
    ("mlp.fc1", "mlp.0"), ("mlp.fc2", "mlp.3"),
]  # fmt: skip
TIMESFORMER_BLOCK = [
    ("norm1", "layernorm_before"), ("attn.qkv", "attention.attention.qkv"), ("attn.proj", "attention.output.dense"),
    ("temporal_norm1", "temporal_layernorm"), ("temporal_attn.qkv", "temporal_attention.attention.qkv"),
    ("temporal_attn.proj", "temporal_attention.output.dense"), ("temporal_fc", "temporal_dense"),
    ("norm2", "layernorm_after"), ("mlp.fc1", "intermediate.dense"), ("mlp.fc2", "output.dense"),
]  # fmt: skip
MVIT_BLOCK = [
    ("norm1", "norm1"), ("attn.qkv", "attn.qkv"), ("attn.proj", "attn.project.0"),
    ("attn.norm_q", "attn.pool_q.norm_act.0"), ("attn.norm_k", "attn.pool_k.norm_act.0"),
    ("attn.norm_v", "attn.pool_v.norm_act.0"), ("norm2", "norm2"), ("mlp.fc1", "mlp.0"), ("mlp.fc2", "mlp.3"),
]  # fmt: skip
MVIT_WEIGHTS = [
    ("attn.pool_q.weight", "attn.pool_q.pool.weight"), ("attn.pool_k.weight", "attn.pool_k.pool.weight"),
    ("attn.pool_v.weight", "attn.pool_v.pool.weight"), ("attn.rel_pos_h", "attn.rel_pos_h"),
    ("attn.rel_pos_w", "attn.rel_pos_w"), ("attn.rel_pos_t", "attn.rel_pos_t"),
]  # fmt: skip
VIDEOMAE_BLOCK = [
    ("norm1", "layernorm_before"), ("attn.proj", "attention.output.dense"), ("norm2", "layernorm_after"),
    ("mlp.fc1", "intermediate.dense"), ("mlp.fc2", "output.dense"),
]  # fmt: skip


def taken(tensors: dict[str, Tensor], names: list[tuple[str, str]], official: str = "", reference: str = "") -> dict:
    """Weights and biases under their official names."""
    return {f"{official}{o}.{kind}": tensors[f"{reference}{r}.{kind}"] for o, r in names for kind in LINEAR}


# Reference models ----------------------------------------------------------------------------------------------------


def swin() -> SwinTransformer3d:
    return randomise(SwinTransformer3d([2, 4, 4], 16, [2, 2], [2, 4], [2, 4, 4], num_classes=CLASSES))


def mvit() -> MViT:
    kernel, one = [3, 3, 3], [1, 1, 1]
    blocks = [
        MSBlockConfig(1, 16, 16, kernel, kernel, one, [1, 2, 2]),
        MSBlockConfig(2, 16, 32, kernel, kernel, [1, 2, 2], one),
        MSBlockConfig(2, 32, 32, kernel, kernel, one, one),
    ]
    return randomise(MViT((32, 32), 4, blocks, True, False, True, True, num_classes=CLASSES))


def timesformer() -> TimesformerForVideoClassification:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    config = TimesformerConfig(image_size=32, patch_size=16, num_frames=4, id2label=LABELS, **sizes)
    return randomise(TimesformerForVideoClassification(config))


def videomae(**changes: Any) -> VideoMAEForVideoClassification:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    # The official models have this epsilon; Hugging Face's default is another one, and its last norm has its own.
    config = VideoMAEConfig(image_size=32, num_frames=4, layer_norm_eps=1e-6, id2label=LABELS, **{**sizes, **changes})
    model = randomise(VideoMAEForVideoClassification(config))
    if model.fc_norm is not None:
        model.fc_norm.eps = 1e-6
    return model


# State dicts under official names ------------------------------------------------------------------------------------


def official_swin(model: nn.Module) -> dict[str, Tensor]:
    t = model.state_dict()
    out = taken(
        t, [("backbone.patch_embed.proj", "patch_embed.proj"), ("backbone.patch_embed.norm", "patch_embed.norm")]
    )
    for stage in (0, 1):
        for block in (0, 1):
            there, here = f"backbone.layers.{stage}.blocks.{block}.", f"features.{2 * stage}.{block}."
            out |= taken(t, SWIN_BLOCK, there, here)
            for name in ("attn.relative_position_bias_table", "attn.relative_position_index"):
                out[there + name] = t[here + name]
    out["backbone.layers.0.downsample.reduction.weight"] = t["features.1.reduction.weight"]
    out |= taken(t, [("backbone.layers.0.downsample.norm", "features.1.norm"), ("backbone.norm", "norm")])
    return out | taken(t, [("cls_head.fc_cls", "head")])


def official_timesformer(model: nn.Module) -> dict[str, Tensor]:
    t = model.state_dict()
    out = {
        "model.cls_token": t["timesformer.embeddings.cls_token"],
        "model.pos_embed": t["timesformer.embeddings.position_embeddings"],
        "model.time_embed": t["timesformer.embeddings.time_embeddings"],
    }
    out |= taken(t, [("model.patch_embed.proj", "timesformer.embeddings.patch_embeddings.projection")])
    for block in (0, 1):
        out |= taken(t, TIMESFORMER_BLOCK, f"model.blocks.{block}.", f"timesformer.encoder.layer.{block}.")
    return out | taken(t, [("model.norm", "timesformer.layernorm"), ("model.head", "classifier")])


def official_mvit(model: nn.Module) -> dict[str, Tensor]:
    t = model.state_dict()
    out = {"cls_token": t["pos_encoding.class_token"].reshape(1, 1, -1)}
    out |= taken(t, [("patch_embed.proj", "conv_proj"), ("norm", "norm"), ("head.projection", "head.1")])
    for block in (0, 1, 2):
        out |= taken(t, MVIT_BLOCK, f"blocks.{block}.", f"blocks.{block}.")
        out |= {f"blocks.{block}.{there}": t[f"blocks.{block}.{here}"] for there, here in MVIT_WEIGHTS}
    return out | taken(t, [("blocks.1.proj", "blocks.1.project")])  # only where the width changes


def official_videomae(model: nn.Module, prefix: str = "") -> dict[str, Tensor]:
    t = model.state_dict()
    out = taken(t, [(f"{prefix}patch_embed.proj", "videomae.embeddings.patch_embeddings.projection")])
    for block in (0, 1):
        there, here = f"{prefix}blocks.{block}.", f"videomae.encoder.layer.{block}."
        out |= taken(t, VIDEOMAE_BLOCK, there, here)
        attention = f"{here}attention.attention."
        out[f"{there}attn.qkv.weight"] = torch.cat(
            [t[f"{attention}{part}.weight"] for part in ("query", "key", "value")]
        )
        out[f"{there}attn.q_bias"] = t[f"{attention}query.bias"]
        out[f"{there}attn.v_bias"] = t[f"{attention}value.bias"]
    return out if prefix else out | taken(t, [("fc_norm", "fc_norm"), ("head", "classifier")])


# Files ---------------------------------------------------------------------------------------------------------------


def write(content: Any, path: Path) -> Path:
    torch.save(content, path)
    return path


def hugging_face(model: nn.Module, folder: Path, mean: Any = None, std: Any = None, binary: bool = False) -> Path:
    model.save_pretrained(folder)
    if binary:
        names = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        (folder / "model.safetensors").unlink()
        torch.save(names, folder / "pytorch_model.bin")
    if mean is not None:
        processor = {"image_mean": list(mean), "image_std": list(std), "do_normalize": True}
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


def pretraining_file(model: nn.Module, path: Path) -> Path:
    tensors = official_videomae(model, "encoder.")
    norm = {"encoder.norm.weight": torch.ones(32), "encoder.norm.bias": torch.zeros(32)}
    decoder = {"mask_token": torch.zeros(1, 1, 8), "encoder_to_decoder.weight": torch.zeros(8, 32)}
    return write({"model": {**tensors, **norm, **decoder, "decoder.blocks.0.attn.q_bias": torch.zeros(8)}}, path)


def pretraining_folder(model: nn.Module, folder: Path) -> Path:
    decoder = {"decoder_hidden_size": 8, "decoder_num_attention_heads": 2, "decoder_num_hidden_layers": 1}
    other = VideoMAEForPreTraining(VideoMAEConfig(**{**model.config.to_dict(), **decoder}))
    other.videomae.load_state_dict(model.videomae.state_dict())
    return hugging_face(other, folder)


CFG = "DATA:\n  MEAN: [0.4, 0.5, 0.6]\n  STD: [0.2, 0.3, 0.4]\n  NUM_FRAMES: 4\n  SAMPLING_RATE: 12\nNUM_GPUS: 8\n"


@dataclass
class Case:
    """A file to write, what it belongs to, and what must be found in it."""

    form: str
    reference: Callable[[], nn.Module]
    write: Callable[[nn.Module, Path], Path]
    frames: int | None
    stride: int | None
    normalisation: tuple = IMAGENET
    classes: tuple[str, ...] = ()
    headless: bool = False
    says_normalisation: bool = False


NAMES = tuple(LABELS.values())
OWN = ((0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
CASES = {
    "swin-torchvision": Case(
        "torchvision Video Swin state dict", swin, lambda m, p: write(m.state_dict(), p / "swin3d.pth"), 32, 2
    ),
    "swin-official": Case(
        "official Video Swin checkpoint", swin,
        lambda m, p: write({"meta": {"epoch": 30}, "state_dict": official_swin(m)}, p / "swin.pth"), 32, 2,
    ),
    "timesformer-official": Case(
        "official TimeSformer checkpoint", timesformer,
        lambda m, p: write({"epoch": 14, "model_state": official_timesformer(m), "optimizer_state": {}}, p / "t.pyth"),
        4, None, KINETICS,
    ),
    "timesformer-official-cfg": Case(
        "official TimeSformer checkpoint", timesformer,
        lambda m, p: write({"model_state": official_timesformer(m), "cfg": CFG}, p / "t.pyth"),
        4, 12, OWN, says_normalisation=True,
    ),
    "timesformer-hf": Case(
        "Hugging Face TimeSformer model", timesformer, lambda m, p: hugging_face(m, p / "hf", *OWN),
        4, None, OWN, NAMES, says_normalisation=True,
    ),
    "timesformer-hf-bin": Case(
        "Hugging Face TimeSformer model", timesformer, lambda m, p: hugging_face(m, p / "hf", binary=True),
        4, None, KINETICS, NAMES,
    ),
    "timesformer-hf-lone-safetensors": Case(
        "Hugging Face TimeSformer model", timesformer,
        lambda m, p: save_file(m.state_dict(), p / "alone.safetensors") or p / "alone.safetensors", 4, None, KINETICS,
    ),
    "mvit-torchvision": Case(
        "torchvision MViTv2 state dict", mvit, lambda m, p: write(m.state_dict(), p / "mvit.pth"), 16, 4, KINETICS
    ),
    "mvit-pyslowfast": Case(
        "PySlowFast MViTv2 checkpoint", mvit,
        lambda m, p: write({"model_state": official_mvit(m), "epoch": 1}, p / "mvit.pyth"), 16, 4, KINETICS,
    ),
    "videomae-official": Case(
        "official VideoMAE checkpoint", videomae,
        lambda m, p: write({"model": official_videomae(m), "args": argparse.Namespace(lr=1e-3)}, p / "v.pth"), 16, 4,
    ),
    "videomae-official-deepspeed": Case(
        "official VideoMAE checkpoint", videomae,
        lambda m, p: write({"module": official_videomae(m)}, p / "v.pt"), 16, 4,
    ),
    "videomae-hf": Case(
        "Hugging Face VideoMAE model", videomae, lambda m, p: hugging_face(m, p / "hf", *OWN),
        4, 4, OWN, NAMES, says_normalisation=True,
    ),
    "videomae-hf-new-names": Case(
        "Hugging Face VideoMAE model", videomae, lambda m, p: hugging_face(m, p / "hf", binary=True),
        4, 4, IMAGENET, NAMES,
    ),
    "videomae-pretraining": Case(
        "official VideoMAE pretraining checkpoint", videomae, lambda m, p: pretraining_file(m, p / "p.pth"), 16, 4,
        headless=True,
    ),
    "videomae-hf-pretraining": Case(
        "Hugging Face VideoMAE model", videomae, lambda m, p: pretraining_folder(m, p / "hf"), 4, 4, IMAGENET, NAMES,
        headless=True,
    ),
}  # fmt: skip

# The backbone that fits each reference model: its registered name and its options besides frames and size.
FITTING = {
    swin: ("video_swin_demo", {k: v for k, v in TINY_SWIN.items() if k not in ("frames", "size")}),
    timesformer: ("timesformer_demo", {"patch": 16, "width": 32, "depth": 2, "heads": 4}),
    mvit: (
        "mvit_demo",
        {"patch": [2, 4, 4], "width": 16, "depths": [1, 2], "heads": [1, 2], "kv_stride": [1, 2, 2]},
    ),
    videomae: ("vit_demo", {"patch": [2, 16, 16], "width": 32, "depth": 2, "heads": 4}),
}
