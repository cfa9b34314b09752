"""Anti-aliased drawing of a whole clip at once with distance fields, in numpy.

A shape is described in scene units (see `datamodules.cabin.pose`), by arguments that either stand still (shape ``(2,)``
or a number) or move (``(T, 2)`` or ``(T,)``). It is painted into all ``T`` frames by one set of array operations, in
the pixels it can reach. The canvas also notes where shapes were painted while a name is being tracked; that is how
ground-truth boxes come from the very shapes that are drawn. With ``raster=False`` it only notes boxes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float32]
Region = tuple[slice, slice, Floats, Floats]


@dataclass(frozen=True)
class Camera:
    """How scene units become pixels: the unit square fills the shorter side of the frame.

    Attributes:
        height: Frame height in pixels.
        width: Frame width in pixels.
        dx: Shift of the scene to the right, in scene units.
        dy: Shift of the scene downwards, in scene units.
        zoom: Magnification about the centre of the frame.
        roll: Rotation about the centre of the frame in radians.
    """

    height: int
    width: int
    dx: float = 0.0
    dy: float = 0.0
    zoom: float = 1.0
    roll: float = 0.0

    @property
    def scale(self) -> float:
        return self.zoom * min(self.height, self.width)

    @cached_property
    def _matrix(self) -> Floats:
        cos, sin = np.cos(self.roll), np.sin(self.roll)
        return (self.scale * np.array([[cos, sin], [-sin, cos]])).astype(np.float32)

    @cached_property
    def _origin(self) -> Floats:
        centre = np.array([self.width / 2, self.height / 2], dtype=np.float32)
        return centre + self._turned(np.array([self.dx - 0.5, self.dy - 0.5], dtype=np.float32))

    def _turned(self, points: Floats) -> Floats:
        # Not a matrix product: those of BLAS add differently on other processors.
        return points[..., :1] * self._matrix[0] + points[..., 1:] * self._matrix[1]

    def to_pixels(self, points: ArrayLike) -> Floats:
        """Map scene points (..., 2) to pixel coordinates (..., 2); pixel (0, 0) covers [0, 1) x [0, 1)."""
        return self._turned(np.asarray(points, dtype=np.float32)) + self._origin


def per_frame(value: ArrayLike) -> Floats:
    """Return a number or (T,) array as (T, 1, 1), or (1, 1, 1) where it does not change over time."""
    values = np.asarray(value, dtype=np.float32).reshape(-1)
    if len(values) > 1 and (values == values[0]).all():
        values = values[:1]
    return values[:, None, None]


def _cos_sin(angle: Floats) -> tuple[Floats, Floats]:
    """Return cosine and sine, rounded from double precision: in single precision processors differ in the last bit."""
    wide = angle.astype(np.float64)
    return np.cos(wide).astype(np.float32), np.sin(wide).astype(np.float32)


class Canvas:
    """Luminance of ``frames`` frames, painted shape by shape from back to front.

    Attributes:
        pixels: (T, H, W) luminance, about 0 to 1; empty with ``raster=False``.
        light: Strength and sign of the window light: positive brightens the right flank of rounded shapes.
        boxes: Name -> (T, 4) extents x0, y0, x1, y1 in pixels, not clipped; x0 > x1 where nothing was painted.
    """

    def __init__(self, frames: int, camera: Camera, light: float = 0.0, raster: bool = True):
        self.frames, self.camera, self.light, self.raster = frames, camera, light, raster
        size = (frames, camera.height, camera.width) if raster else (0, 0, 0)
        self.pixels: Floats = np.zeros(size, dtype=np.float32)
        self.boxes: dict[str, Floats] = {}
        self._tracked: list[str] = []
        self._across = np.arange(camera.width, dtype=np.float32)[None, None, :] + 0.5
        self._down = np.arange(camera.height, dtype=np.float32)[None, :, None] + 0.5

    @contextmanager
    def track(self, *names: str) -> Iterator[None]:
        """Add what is painted in this block to the boxes of ``names``."""
        for name in names:
            empty = np.array([np.inf, np.inf, -np.inf, -np.inf], dtype=np.float32)
            self.boxes.setdefault(name, np.tile(empty, (self.frames, 1)))
        self._tracked.extend(names)
        try:
            yield
        finally:
            del self._tracked[len(self._tracked) - len(names) :]

    def ellipse(
        self,
        centre: ArrayLike,
        radii: tuple[ArrayLike, ArrayLike],
        tone: ArrayLike,
        angle: ArrayLike = 0.0,
        ring: ArrayLike | None = None,
        **look: Any,
    ) -> None:
        """Paint an ellipse, or with ``ring`` (half the thickness) only its outline.

        Args:
            centre: (2,) or (T, 2).
            radii: Half axes, each a number or (T,).
            tone: Luminance.
            angle: Rotation in radians, clockwise on the screen.
            ring: Half the thickness of the outline; None fills the ellipse.
            look: ``alpha``, ``relief``, ``soft`` and ``shadow`` of `_blend`.
        """
        c = self._points(centre)
        rx, ry = (per_frame(r) * self.camera.scale for r in radii)
        turn = per_frame(angle) + self.camera.roll
        cos, sin = _cos_sin(turn)
        thick = 0.0 if ring is None else per_frame(ring) * self.camera.scale
        reach = np.hypot(rx * cos, ry * sin) + thick, np.hypot(rx * sin, ry * cos) + thick
        region = self._open(c, reach, look)
        if region is None:
            return
        _, _, x, y = region
        x, y = x - c[..., 0, None, None], y - c[..., 1, None, None]
        u, v = (cos * x + sin * y) / rx, (cos * y - sin * x) / ry
        rho = np.sqrt(u * u + v * v)
        # First-order distance to an ellipse: f / |grad f| with f = rho - 1; exact on the outline, where it matters.
        distance = (rho - 1) * rho / np.maximum(np.sqrt((u / rx) ** 2 + (v / ry) ** 2), 1e-6)
        if ring is not None:
            distance, rho = np.abs(distance) - thick, np.abs(distance) / thick
        self._blend(region, distance, tone, rho, x / rx, **look)

    def capsule(
        self,
        start: ArrayLike,
        end: ArrayLike,
        radius: ArrayLike,
        tone: ArrayLike,
        end_radius: ArrayLike | None = None,
        **look: Any,
    ) -> None:
        """Paint a line with round ends, tapering from ``radius`` to ``end_radius``."""
        a, b = self._points(start), self._points(end)
        ra = per_frame(radius) * self.camera.scale
        rb = ra if end_radius is None else per_frame(end_radius) * self.camera.scale
        reach = np.maximum(ra, rb)
        half = (np.abs(b - a)[..., None, None] / 2).astype(np.float32)
        region = self._open(((a + b) / 2).astype(np.float32), (half[:, 0] + reach, half[:, 1] + reach), look)
        if region is None:
            return
        _, _, x, y = region
        x, y = x - a[..., 0, None, None], y - a[..., 1, None, None]
        bx, by = (b - a)[..., 0, None, None], (b - a)[..., 1, None, None]
        along = np.clip((x * bx + y * by) / np.maximum(bx * bx + by * by, 1e-6), 0, 1)
        x, y = x - along * bx, y - along * by
        radius_here = ra + (rb - ra) * along
        distance = np.sqrt(x * x + y * y)
        self._blend(region, distance - radius_here, tone, distance / radius_here, x / radius_here, **look)

    def box(
        self,
        centre: ArrayLike,
        half: tuple[ArrayLike, ArrayLike],
        tone: ArrayLike,
        angle: ArrayLike = 0.0,
        corner: float = 0.0,
        **look: Any,
    ) -> None:
        """Paint a rotated box of half sides ``half`` with rounded corners of radius ``corner``."""
        c = self._points(centre)
        hx, hy = (per_frame(h) * self.camera.scale for h in half)
        turn = per_frame(angle) + self.camera.roll
        cos, sin = _cos_sin(turn)
        reach = np.abs(hx * cos) + np.abs(hy * sin), np.abs(hx * sin) + np.abs(hy * cos)
        region = self._open(c, reach, look)
        if region is None:
            return
        _, _, x, y = region
        x, y = x - c[..., 0, None, None], y - c[..., 1, None, None]
        x, y = cos * x + sin * y, cos * y - sin * x
        round_px = np.minimum(corner * self.camera.scale, np.minimum(hx, hy))
        qx, qy = np.abs(x) - hx + round_px, np.abs(y) - hy + round_px
        outside = np.hypot(np.maximum(qx, 0), np.maximum(qy, 0))
        distance = outside + np.minimum(np.maximum(qx, qy), 0) - round_px
        rho = np.clip(np.maximum(np.abs(x) / hx, np.abs(y) / hy), 0, 1)
        self._blend(region, distance, tone, rho * rho, x / hx, **look)

    def convex(self, corners: ArrayLike, tone: ArrayLike, **look: Any) -> None:
        """Paint a convex polygon; ``corners`` is (N, 2) or (T, N, 2), clockwise on the screen."""
        points = self.camera.to_pixels(corners)
        points = points[None] if points.ndim == 2 else points
        low, high = points.min(axis=1), points.max(axis=1)
        reach = (high - low)[..., None, None] / 2
        region = self._open((low + high) / 2, (reach[:, 0], reach[:, 1]), look)
        if region is None:
            return
        _, _, x, y = region
        distance: Floats = np.full((1, 1, 1), -np.inf, dtype=np.float32)
        for here, there in zip(np.moveaxis(points, 1, 0), np.moveaxis(np.roll(points, -1, axis=1), 1, 0), strict=True):
            edge = there - here
            normal = np.stack([edge[:, 1], -edge[:, 0]], axis=-1) / np.maximum(np.hypot(*edge.T), 1e-6)[:, None]
            offset = np.sum(normal * here, axis=-1)[:, None, None]
            distance = np.maximum(distance, normal[:, 0, None, None] * x + normal[:, 1, None, None] * y - offset)
        self._blend(region, distance, tone, None, None, **look)

    def _points(self, points: ArrayLike) -> Floats:
        """Return scene points as pixels (T, 2), or (1, 2) where they do not move."""
        pixels = self.camera.to_pixels(points).reshape(-1, 2)
        return pixels[:1] if len(pixels) > 1 and (pixels == pixels[0]).all() else pixels

    def _open(self, centre: Floats, reach: tuple[Floats, Floats], look: dict) -> Region | None:
        """Note the extents of a shape and return the part of the frame it can touch, None if there is none."""
        shown = np.asarray(look.get("alpha", 1.0)) > 0
        if not shown.any():
            return None
        half_x, half_y = reach[0].reshape(-1), reach[1].reshape(-1)
        x, y = centre[:, 0], centre[:, 1]
        extents = x - half_x, y - half_y, x + half_x, y + half_y
        for name in self._tracked:
            box = self.boxes[name]
            for column, (grow, extent) in enumerate(zip((np.minimum,) * 2 + (np.maximum,) * 2, extents, strict=True)):
                box[:, column] = np.where(shown, grow(box[:, column], extent), box[:, column])
        if not self.raster:
            return None
        margin = 1 + self.camera.scale * (float(look.get("shadow", 0.0)) + float(look.get("soft", 0.0)))
        x0, y0 = max(int(extents[0].min() - margin), 0), max(int(extents[1].min() - margin), 0)
        x1 = min(int(extents[2].max() + margin) + 1, self.camera.width)
        y1 = min(int(extents[3].max() + margin) + 1, self.camera.height)
        if x0 >= x1 or y0 >= y1:
            return None
        return slice(y0, y1), slice(x0, x1), self._across[:, :, x0:x1], self._down[:, y0:y1]

    def _blend(
        self,
        region: Region,
        distance: Floats,
        tone: ArrayLike,
        rho: Floats | None,
        flank: Floats | None,
        alpha: ArrayLike = 1.0,
        relief: float = 0.3,
        soft: float = 0.0,
        shadow: float = 0.0,
    ) -> None:
        """Paint a distance field.

        Args:
            region: From `_open`.
            distance: Signed distance to the outline in pixels, negative inside.
            tone: Luminance of the surface where it faces the camera.
            rho: 0 on the axis of the shape, 1 at its outline, where the surface has turned away; None for flat shapes.
            flank: -1 at the left outline, 1 at the right one.
            alpha: Opacity, a number or (T,).
            relief: How much darker the surface gets towards the outline; 0 is flat.
            soft: Width of the transition at the outline in scene units; at least one pixel (anti-aliasing).
            shadow: Reach of the dark halo around the shape in scene units; it tells limbs from the background.
        """
        target = self.pixels[:, region[0], region[1]]
        opacity = per_frame(alpha)
        if shadow:
            # A contact shadow looks right when it fades quadratically and is gone at `shadow`.
            halo = np.clip(1 - distance / (shadow * self.camera.scale), 0, 1)
            target *= 1 - (0.45 * opacity) * halo * halo
        cover = opacity * np.clip(0.5 - distance / max(1.0, soft * self.camera.scale), 0, 1)
        value = per_frame(tone)
        if rho is not None and flank is not None and relief:
            facing = np.sqrt(np.maximum(1 - rho * rho, 0))
            value = value * ((1 - relief) + relief * facing)
            value = value * (1 + (relief * self.light) * np.clip(flank, -1, 1))
        target += cover * (value - target)
