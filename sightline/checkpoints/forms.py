"""The forms in which people own weights: how each is recognised, and how its names become ours.

A form is one entry of `FORMS`. All mappings are renames, except that Hugging Face's VideoMAE keeps query, key and
value apart and PySlowFast's class token has more dimensions. Sources: torchvision's ``swin3d_*`` and ``mvit_v2_s``; the
releases of Video Swin, TimeSformer, PySlowFast (MViTv2) and VideoMAE; Hugging Face's ``timesformer`` and ``videomae``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torchvision.models.video import Swin3D_T_Weights

from sightline.checkpoints.pretraining import NOTHING, PretrainingInfo

Tensors = dict[str, Tensor]
Renames = tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...]

IMAGENET = PretrainingInfo(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
KINETICS = PretrainingInfo(mean=(0.45, 0.45, 0.45), std=(0.225, 0.225, 0.225))
# All of torchvision's Kinetics weights list the same classes.
KINETICS400 = tuple(Swin3D_T_Weights.KINETICS400_V1.meta["categories"])
VIDEOMAE = replace(IMAGENET, frames=16, stride=4)
FC_NORM = ("fc_norm.weight", "fc_norm.bias")
# Sampling stride of the released TimeSformers (base, HR, L) by their frames.
TIMESFORMER_STRIDES = {8: 32, 16: 16, 96: 4}


@dataclass(frozen=True)
class Form:
    """One form of checkpoint.

    Attributes:
        name: The form in words.
        family: Family of the backbone that it belongs to.
        marks: Patterns, each of which some name in the file matches; no other form has them all.
        renames: Patterns and what replaces them, applied to every name one after the other.
        pretraining: What holds for its releases, where the file does not say otherwise.
        dropped: Pattern of names (in the file) that the model has no use for.
        headless: The model's tensors, besides the classifier, that start afresh where the file has no classifier.
        finish: What renaming alone cannot do.
        measure: What the renamed tensors tell.
    """

    name: str
    family: str
    marks: tuple[str, ...]
    renames: Renames = ()
    pretraining: PretrainingInfo = NOTHING
    dropped: str | None = None
    headless: tuple[str, ...] = ()
    finish: Callable[[Tensors], Tensors] = dict
    measure: Callable[[Tensors], PretrainingInfo] = lambda tensors: NOTHING


def _kinetics_classes(head: str) -> Callable[[Tensors], PretrainingInfo]:
    """Torchvision's weights do not carry their 400 class names; they are in its documentation's order."""

    def measure(tensors: Tensors) -> PretrainingInfo:
        complete = head in tensors and tensors[head].shape[:1] == (400,)
        return PretrainingInfo(classes=KINETICS400) if complete else NOTHING

    return measure


def _timesformer_frames(tensors: Tensors) -> PretrainingInfo:
    embedding = tensors.get("time_embed")
    if embedding is None or embedding.dim() != 3:
        return NOTHING
    frames = embedding.shape[1]
    return PretrainingInfo(frames=frames, stride=TIMESFORMER_STRIDES.get(frames))


def _flat_class_token(tensors: Tensors) -> Tensors:
    name = "pos_encoding.class_token"
    return {**tensors, name: tensors[name].flatten()} if name in tensors else tensors


def _joined_qkv(tensors: Tensors) -> Tensors:
    """Stack query, key and value weights, in this order, as the official model does."""
    joined = {}
    for name, tensor in tensors.items():
        block, part = name.rpartition(".attn.")[::2]
        if part == "query.weight":
            parts = [tensors.get(f"{block}.attn.{p}.weight") for p in ("query", "key", "value")]
            if all(p is not None for p in parts):
                joined[f"{block}.attn.qkv.weight"] = torch.cat([p for p in parts if p is not None])
        elif part not in ("key.weight", "value.weight"):
            joined[name] = tensor
    return joined


TWO_LINEARS: Renames = ((r"\.mlp\.fc1\.", ".mlp.0."), (r"\.mlp\.fc2\.", ".mlp.3."))
HF_LAYER: Renames = (
    (r"^encoder\.layer\.", "blocks."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.temporal_attention\.output\.dense\.", ".temporal_attn.proj."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    (r"\.temporal_attention\.attention\.", ".temporal_attn."),
    (r"\.attention\.attention\.", ".attn."),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^layernorm\.", "norm."),
    (r"^classifier\.", "head."),
)

FORMS = (
    Form(
        "torchvision Video Swin state dict",
        "video_swin",
        (r"^features\.\d+\.\d+\.attn\.relative_position_bias_table$",),
        pretraining=replace(IMAGENET, frames=32, stride=2),
        measure=_kinetics_classes("head.weight"),
    ),
    Form(
        "official Video Swin checkpoint",
        "video_swin",
        (r"^(backbone\.)?layers\.\d+\.blocks\.\d+\.attn\.relative_position_bias_table$",),
        (
            (r"^backbone\.", ""),
            (r"^layers\.(\d+)\.blocks\.", lambda match: f"features.{2 * int(match[1])}."),
            (r"^layers\.(\d+)\.downsample\.", lambda match: f"features.{2 * int(match[1]) + 1}."),
            *TWO_LINEARS,
            (r"^cls_head\.fc_cls\.", "head."),
        ),
        replace(IMAGENET, frames=32, stride=2),
    ),
    Form(
        "official TimeSformer checkpoint",
        "timesformer",
        (r"^(model\.)?time_embed$", r"^(model\.)?blocks\.\d+\.attn\.qkv\.weight$"),
        ((r"^model\.", ""),),
        KINETICS,
        measure=_timesformer_frames,
    ),
    Form(
        "Hugging Face TimeSformer model",
        "timesformer",
        (r"^(timesformer\.)?embeddings\.time_embeddings$",),
        (
            (r"^timesformer\.", ""),
            (r"^embeddings\.cls_token$", "cls_token"),
            (r"^embeddings\.position_embeddings$", "pos_embed"),
            (r"^embeddings\.time_embeddings$", "time_embed"),
            (r"\.temporal_layernorm\.", ".temporal_norm1."),
            (r"\.temporal_dense\.", ".temporal_fc."),
            *HF_LAYER,
        ),
        KINETICS,
        measure=_timesformer_frames,
    ),
    Form(
        "torchvision MViTv2 state dict",
        "mvit",
        (r"^conv_proj\.weight$", r"^blocks\.\d+\.attn\.rel_pos_h$"),
        pretraining=replace(KINETICS, frames=16, stride=4),
        measure=_kinetics_classes("head.1.weight"),
    ),
    Form(
        "PySlowFast MViTv2 checkpoint",
        "mvit",
        (r"^patch_embed\.proj\.weight$", r"^blocks\.\d+\.attn\.rel_pos_h$", r"^blocks\.\d+\.attn\.norm_[qkv]\.weight$"),
        (
            (r"^cls_token$", "pos_encoding.class_token"),
            (r"^patch_embed\.proj\.", "conv_proj."),
            (r"\.attn\.proj\.", ".attn.project.0."),
            (r"\.attn\.pool_([qkv])\.", r".attn.pool_\1.pool."),
            (r"\.attn\.norm_([qkv])\.", r".attn.pool_\1.norm_act.0."),
            (r"^(blocks\.\d+)\.proj\.", r"\1.project."),
            *TWO_LINEARS,
            (r"^head\.projection\.", "head.1."),
        ),
        replace(KINETICS, frames=16, stride=4),
        finish=_flat_class_token,
    ),
    Form(
        "official VideoMAE checkpoint",
        "vit",
        (r"^blocks\.\d+\.attn\.q_bias$",),
        pretraining=VIDEOMAE,
    ),
    Form(
        "official VideoMAE pretraining checkpoint",
        "vit",
        (r"^encoder\.blocks\.\d+\.attn\.q_bias$",),
        ((r"^encoder\.", ""),),
        VIDEOMAE,
        # The decoder; and the encoder's last norm, which fine-tuning replaces by fc_norm.
        dropped=r"^decoder\.|^encoder_to_decoder\.|^mask_token$|^encoder\.norm\.",
        headless=FC_NORM,
    ),
    Form(
        "Hugging Face VideoMAE model",
        "vit",
        (
            r"^(videomae\.)?embeddings\.patch_embeddings\.projection\.weight$",
            r"^(videomae\.)?encoder\.layer\.\d+\.attention\.attention\.query\.weight$",
        ),
        (
            (r"^videomae\.", ""),
            *HF_LAYER,
            (r"\.attn\.query\.bias$", ".attn.q_bias"),
            (r"\.attn\.value\.bias$", ".attn.v_bias"),
        ),
        VIDEOMAE,
        dropped=r"^decoder\.|^encoder_to_decoder\.|^mask_token$|^(videomae\.)?layernorm\.",
        headless=FC_NORM,
        finish=_joined_qkv,
    ),
)

# Files of architectures that no family here has, so that the message can say what they are.
FOREIGN = (
    (
        r"^(blocks\.\d+\.attn\.norm_q|cls_positional_encoding\.|pos_embed_spatial|pos_encoding\.spatial_pos)",
        "a checkpoint of MViT version 1",
    ),
    (r"^backbone\.transformer_layers\.", "mmaction2's TimeSformer, of which only the official names are read"),
)
