"""On a finished run: which tokens of some clips a reduction keeps, and how much of what matters lies in them."""

from __future__ import annotations

import copy
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
import torch

from callbacks.analysis import Analysis, Context
from callbacks.galleries.clips import check_counts, chosen_clips, file_stems
from callbacks.galleries.files import write_picture, write_video
from callbacks.galleries.job import Drawn, GalleryClip, GalleryJob, check_blurring
from callbacks.galleries.reduced_models import ReducedModel, exported_reductions
from callbacks.tokens.comparison import made_from
from lightning_modules import VideoClassifier
from sightline.backbones import Place
from sightline.explain.cell_map import CellMap
from sightline.explain.methods.grad_norm import grad_norm
from sightline.explain.metrics.kept_mass import covered_cells, kept_mass
from sightline.export.token_tests import at_one_share, read_record
from sightline.report.figures.kept_tokens import KeptPlace, KeptTokens
from sightline.run.atomic import write_json
from sightline.tokens import KeptAt, TokenReduction, kept_share, trace
from sightline.tokens.random_as_many import RandomAsMany
from sightline.tokens.trajectory import trajectory_sums
from sightline.video.preprocessing import Preprocessing
from sightline.video.sources import as_source

KIND = "kept"
_LONGEST = 70  # of a model's name in a file's


class TokenGallery(Analysis):
    """Draws what token reductions keep of some clips, with what they cost in gradient: attention/*_kept.*, a table."""

    command: ClassVar[str] = "explain"
    takes_tokens: ClassVar[bool] = True

    def __init__(
        self,
        tokens: list[dict[str, Any]] | None = None,
        plans: str | list[str] | None = None,
        clips_per_class: int = 1,
        clips: str | list[str] | None = None,
        max_clips: int | None = None,
        trajectory_layer: int | None = None,
        random_draws: int = 3,
        blur_heads: bool = False,
        boxes: str | None = None,
        skip_without: bool = False,
    ) -> None:
        """Set up the gallery.

        Args:
            tokens: Token reductions to run the model with, as {name: random, options: {kept: 0.5}}.
            plans: Exported models of the run to draw, by their names in pruned/. With neither: the reduction that the
                model was trained with, or else those that were compared (tables/tokens.csv), at the share that most
                methods reached, and all exported models that run with one.
            clips_per_class: How many clips of every class to show, spread evenly over the split.
            clips: Show these clips instead, by their sample_id in splits.csv.
            max_clips: Show no more clips than this, spread evenly over the classes; by default there is no limit.
            trajectory_layer: Behind which layer the trajectory sum is measured; by default the last.
            random_draws: How often as many tokens are drawn at random, to compare with.
            blur_heads: Blur the boxes named head in all that is drawn; the model sees the clips as they are. Clips of
                which no such box is known are left out, and named.
            boxes: CSV of boxes in pixels of the videos for blur_heads (docs/pointing.md); by default those that the
                data know of themselves, which only the synthetic cabin does.
            skip_without: Do nothing where no token reduction is named, compared or exported; by default that is an
                error. True in an explain for which nothing is configured.
        """
        check_counts(clips_per_class, max_clips)
        check_blurring(blur_heads, boxes)
        if random_draws < 1:
            raise ValueError(f"Expected random_draws of at least 1, got {random_draws}.")
        self.tokens = [TokenReduction.from_plain(values) for values in tokens or []]
        self.plans = [plans] if isinstance(plans, str) else plans or []
        self.clips_per_class, self.max_clips = clips_per_class, max_clips
        self.clips = [clips] if isinstance(clips, str) else clips
        self.trajectory_layer, self.random_draws = trajectory_layer, random_draws
        self.blur_heads, self.boxes = blur_heads, boxes
        self.skip_without = skip_without
        self.video: str | None = None

    def only(self, tokens: dict[str, Any]) -> TokenGallery:
        """Return a gallery of one token reduction, with these options."""
        other = copy.copy(self)
        other.tokens, other.plans, other.skip_without = [TokenReduction.from_plain(tokens)], [], False
        return other

    def check(self, module: VideoClassifier) -> None:
        if module.tokens is not None and (self.tokens or self.plans):
            raise ValueError(
                f"This model runs with {module.tokens.label} already, and tokens are not reduced twice. Leave tokens "
                "and plans out to draw that, or pass the full model."
            )

    def of_video(self, path: str) -> TokenGallery:
        """Return a gallery of one video file, with these options, beside what is drawn of the run's clips."""
        other = copy.copy(self)
        other.video, other.skip_without = path, False
        return other

    def analyse(self, context: Context) -> None:
        models = self._models(context)
        if not models:
            if not self.skip_without:
                raise ValueError(
                    f"{context.folder} has no exported model that runs with fewer tokens, and no comparison of token "
                    "reductions of these weights. Compare some (train.py tokens), or name one, e.g. --tokens random "
                    "--tokens.kept 0.5."
                )
            return
        for model in models:
            model.check()
        if self.video is not None:
            artist = _Artist(self, context, models)
            context.ranks.together(partial(draw_video, artist, self.video), only_first=True)
            return
        places = chosen_clips(context.data, context.split, self.clips_per_class, self.clips, self.max_clips)
        job = GalleryJob(context, places, [KIND], f"kept_tokens_{context.split}", self.blur_heads, self.boxes)
        artist = _Artist(self, context, models)
        job.run(artist.draw, artist.say)

    def _models(self, context: Context) -> list[ReducedModel]:
        """Return what is drawn, in order; each name once."""
        own = context.module.tokens
        named = self.tokens or ([own] if own is not None else [])
        if not named and not self.plans:
            # As they were tested, so that a picture belongs to a row of the table.
            compared = at_one_share(read_record(context.run.token_record, made_from(context)))
            named = [test.tokens for test in compared if test.tokens is not None]
        found = [ReducedModel(tokens.label, context.backbone, tokens) for tokens in named]
        if own is None and (self.plans or not self.tokens):
            found += exported_reductions(context.run, context.backbone, self.plans)
        return list({model.name: model for model in found}.values())


@dataclass(frozen=True)
class _Artist:
    """Looks at clips and draws them."""

    gallery: TokenGallery
    context: Context
    models: Sequence[ReducedModel]

    def draw(self, clip: GalleryClip) -> Drawn:
        """Write the pictures and videos of a clip, one of each for every model."""
        captions: dict[str, str] = {}
        rows: list[dict[str, Any]] = []
        for model in self.models:
            own_rows, view = self._look(clip, model)
            rows += own_rows
            captions |= self._write(clip, model.name, view, own_rows[-1])
        return Drawn(captions, rows)

    def say(self, table: pd.DataFrame, path: Path) -> None:
        for name, found in table.groupby("tokens", sort=False):
            clips = found.drop_duplicates("sample_id")
            last = found.groupby("sample_id", sort=False).tail(1)
            share = last["cells_pct"].mean()
            print(
                f"{name}: {clips['kept_pct'].mean():.0f} % of the tokens kept, mean over layers; the last place's "
                f"cells hold {last['gradnorm_pct'].mean():.0f} % of GradNorm, at random {share:.0f} %. "
                f"Trajectory sum {clips['trajectory_sum'].mean():.2f}, at random "
                f"{clips['trajectory_random'].mean():.2f}, of all tokens {clips['trajectory_all'].mean():.2f}."
            )
        drawn = table["sample_id"].nunique()
        print(f"Drew the tokens kept in {drawn} clip{'s' * (drawn != 1)}: {self.context.run.attention}, {path}")

    def _look(self, clip: GalleryClip, model: ReducedModel) -> tuple[list[dict[str, Any]], KeptTokens]:
        """Run a model on a clip with and without its reduction; return the rows of the table and what is drawn."""
        backbone, reducer, pixels = model.backbone, model.tokens.build(), clip.clip
        depends = grad_norm(backbone, pixels, torch.tensor([clip.label]))
        found = trace(backbone, pixels, reducer)
        places = [_kept_place(at, depends) for at in found]
        seeds = [zlib.crc32(f"{clip.sample_id} {draw}".encode()) for draw in range(self.gallery.random_draws)]
        draws = [RandomAsMany.of(found, seed) for seed in seeds]
        layer, names = self.gallery.trajectory_layer, self.context.data.class_names
        with torch.no_grad():
            probability, predicted = backbone(pixels, reducer=reducer).float().softmax(dim=1)[0].max(dim=0)
            predicted_all = backbone(pixels).argmax(dim=1)[0]
        common = {
            "sample_id": clip.sample_id,
            "class": names[clip.label],
            "tokens": model.name,
            "predicted": names[int(predicted)],
            "probability": float(probability),
            "predicted_all": names[int(predicted_all)],
            "kept_pct": 100 * float(kept_share(backbone, pixels, reducer)),
            "trajectory_sum": float(trajectory_sums(backbone, pixels, reducer, layer)),
            "trajectory_random": sum(float(trajectory_sums(backbone, pixels, d, layer)) for d in draws) / len(draws),
            "trajectory_all": float(trajectory_sums(backbone, pixels, None, layer)),
        }
        rows = [
            {
                **common,
                "place": str(at.place),
                "grid": "x".join(map(str, at.grid)),
                "tokens_pct": 100 * place.tokens / place.token_of.numel(),
                "cells_pct": 100 * place.cells_share,
                "gradnorm_pct": 100 * place.mass,
            }
            for at, place in zip(found, places, strict=True)
        ]
        return rows, KeptTokens(clip.frames, depends.pixels()[0].cpu(), places)

    def _write(self, clip: GalleryClip, name: str, view: KeptTokens, row: Mapping[str, Any]) -> dict[str, str]:
        """Write the picture and the video of one model; return their captions by file name."""
        told = f"{row['class']}, predicted {row['predicted']} ({row['probability']:.0%})"
        told += "" if row["predicted"] == row["predicted_all"] else f", with all tokens {row['predicted_all']}"
        note = (
            f"{clip.sample_id}   |   trajectory sum {row['trajectory_sum']:.2f}, at random "
            f"{row['trajectory_random']:.2f}, of all tokens {row['trajectory_all']:.2f}"
        )
        stem = f"{clip.stem.name}_{_short(name)}_{KIND}"
        picture, video = (clip.stem.with_name(f"{stem}.{ending}") for ending in ("png", "mp4"))
        write_picture(view.figure(f"{name}: {told}", note), picture)
        write_video(view.video(), video)
        caption = f"What {name} keeps, beside how much the loss depends on each place. Clip {clip.sample_id}: {told}."
        return {picture.name: caption, video.name: caption}


def draw_video(artist: _Artist, path: str) -> None:
    """Draw what is kept of a video file, whose class nobody knows: GradNorm is that of the predicted one.

    Raises:
        UnreadableClip: Where the video cannot be read.
    """
    context = artist.context
    told = context.data.sampling()
    preprocessing = Preprocessing(**{key: told[key] for key in ("frames", "size", "short_side", "antialias")})
    video = preprocessing.clip(as_source(path))
    pixels = video[None].to(next(context.backbone.parameters()).device)
    with torch.no_grad():
        label = int(context.backbone(pixels).argmax())
    context.run.attention.mkdir(parents=True, exist_ok=True)
    stem = context.run.attention / file_stems([f"video_{Path(path).name}"])[0]
    drawn = artist.draw(GalleryClip(Path(path).name, label, pixels, video.permute(1, 2, 3, 0).numpy(), stem))
    captions = json.loads(context.run.captions.read_text()) if context.run.captions.exists() else {}
    write_json(context.run.captions, {**captions, **drawn.captions})
    for row in drawn.rows:
        print(f"{path}: {row['predicted']} ({row['probability']:.0%}); {row['tokens_pct']:.0f} % kept, {row['place']}.")
    for name in drawn.captions:
        print(f"Drew {context.run.attention / name}")


def _kept_place(at: KeptAt, depends: CellMap) -> KeptPlace:
    """Return what goes on of the first clip from a place, with the share of its GradNorm map in it."""
    merged = at.merged_into
    covered = covered_cells(at.cells, at.grid, merged)
    own = torch.arange(covered.shape[1], device=covered.device).expand_as(covered)
    cell, heat = depends.at(at.grid).cell, None
    if at.heat is not None:
        heat = CellMap(at.heat[:1].float().view(1, *at.grid), cell, depends.clip).pixels()[0].cpu()
    token_of = (own if merged is None else merged).masked_fill(~covered, -1)
    return KeptPlace(
        _told(at.place),
        token_of[0].view(at.grid).cpu(),
        cell,
        int(at.after[0]),
        float(covered[0].float().mean()),
        float(kept_mass(depends, covered, at.grid)[0]),
        heat,
    )


def _short(name: str) -> str:
    """Return a name that fits into a file's beside that of a clip; names stay different."""
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 9]}_{zlib.crc32(name.encode()):08x}"


def _told(place: Place) -> str:
    told = {"embedding": "after the embedding", "layer": "after", "attention": "inside", "stage": "entering"}[
        place.kind
    ]
    return told if place.kind == "embedding" else f"{told} {place}".replace(" attention ", " layer ")
