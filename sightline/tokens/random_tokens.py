"""Keeping tokens at random: the control that every other token reduction must beat."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from sightline.backbones import Needs, Place, TokenState
from sightline.tokens.share_reducer import ShareReducer


@dataclass(frozen=True)
class KeepRandom(ShareReducer):
    """Keeps a random share of the patches, drawn for every clip by itself.

    The draw depends on the seed and the clip's pixels, so that it is the same in every batch, process and run.

    Attributes:
        seed: Another seed draws others.
    """

    seed: int = 0

    needs: ClassVar[Needs] = Needs(pixels=True)

    @classmethod
    def of_older(cls, options: Mapping[str, Any]) -> Mapping[str, Any]:
        # Before there was `at`, layer -1 was the embedding in every family.
        return {"at": "embedding", **options} if options.get("layer") == -1 else options

    def scores(self, place: Place, state: TokenState) -> Tensor:
        clips = state.require_pixels("KeepRandom")
        return torch.stack([self._draw(clip, place, state.patches) for clip in clips]).to(state.tokens.device)

    @property
    def why_no_program(self) -> str:
        return "its draw depends on a checksum of the clip's pixels, which programs cannot compute"

    def _draw(self, clip: Tensor, place: Place, patches: int) -> Tensor:
        """Draw how late each of a clip's patches goes, (N,)."""
        seed = zlib.crc32(f"{self.seed} {place}".encode())
        if not clip.is_meta:  # where shapes alone are computed, any draw will do
            pixels = clip if clip.dtype == torch.uint8 else (clip.float() * 255).round().to(torch.uint8)
            seed = zlib.crc32(pixels.cpu().contiguous().numpy().tobytes(), seed)
        return -torch.randperm(patches, generator=torch.Generator().manual_seed(seed)).argsort().float()
