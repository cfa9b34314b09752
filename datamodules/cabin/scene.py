"""Draw the cabin around the driver and put a whole clip together, as a near-infrared camera in the mirror sees it."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from datamodules.cabin.canvas import Camera, Canvas, Floats
from datamodules.cabin.driver import SIDES, draw_arm, draw_belt, draw_hand, draw_head, draw_trunk
from datamodules.cabin.pose import (
    GEAR,
    GLOVEBOX,
    MIRROR,
    RADIO,
    SIDE_MIRROR,
    VISOR,
    WHEEL,
    WHEEL_RADII,
    Appearance,
    Pose,
    xy,
)
from datamodules.cabin.props import draw_jacket, draw_prop

WINDOW = [(0.80, 0.13), (1.30, 0.06), (1.30, 0.62), (0.825, 0.56)]


# What stays in its place when the camera zooms in: between the driver's chest and the radio.
CLOSE_UP = np.array([0.40, 0.64])


def camera_of(appearance: Appearance, height: int, width: int, zoom: float = 1.0) -> Camera:
    """Return the camera of a subject's car for a frame size; a zoom above 1 comes closer to driver and console."""
    dx, dy = (0.5 - CLOSE_UP) * (1 - 1 / zoom)
    return Camera(
        height, width, appearance.dx + float(dx), appearance.dy + float(dy), appearance.zoom * zoom, appearance.roll
    )


@lru_cache(maxsize=8)
def _empty_cabin(appearance: Appearance, camera: Camera) -> Floats:
    """Return what never moves, (1, H, W), drawn once for consecutive clips of a subject. Do not write to it."""
    canvas = Canvas(1, camera, light=appearance.light)
    _draw_cabin(canvas, appearance)
    return canvas.pixels


def _draw_cabin(canvas: Canvas, appearance: Appearance) -> None:
    """Draw seats, windows, pillars and doors."""
    trim, seat, glass = appearance.trim, appearance.seat, appearance.window
    canvas.box([0.5, 0.5], (1.5, 1.5), trim * 0.8, relief=0)
    canvas.box([0.5, -0.3], (1.5, 0.36), trim + 0.14, relief=0, soft=0.08)
    canvas.convex([(0.13, 0.14), (0.47, 0.13), (0.49, 0.27), (0.10, 0.29)], glass * 0.62, soft=0.012)
    for x in (0.19, 0.36):  # head rests of the rear bench
        canvas.box([x, 0.275], (0.045, 0.04), trim * 0.9, corner=0.025)
    canvas.box([0.2, 0.42], (0.32, 0.115), trim * 1.15, corner=0.04, relief=0.4)
    canvas.convex([(0.63, 0.15), (0.735, 0.14), (0.745, 0.50), (0.64, 0.48)], glass * 0.7, soft=0.012)
    canvas.convex(WINDOW, glass, soft=0.012)
    canvas.convex([(0.725, -0.1), (0.80, -0.1), (0.835, 0.75), (0.735, 0.75)], trim * 0.9 + 0.04, soft=0.015)
    canvas.convex([(0.80, 0.565), (1.4, 0.60), (1.4, 1.4), (0.78, 1.4)], trim + 0.05, soft=0.01)
    canvas.capsule([0.84, 0.60], [1.3, 0.635], 0.016, trim + 0.16, relief=0.5)
    canvas.box([0.93, 0.72], (0.085, 0.028), trim + 0.13, angle=0.06, corner=0.02, relief=0.4, shadow=0.02)
    for x in (0.885, 0.915, 0.945):
        canvas.box([x, 0.708], (0.009, 0.007), 0.5, corner=0.003, relief=0)
    canvas.box([0.125, 0.47], (0.068, 0.055), seat, corner=0.04, relief=0.45, shadow=0.04)  # passenger's seat
    canvas.box([0.125, 0.86], (0.15, 0.33), seat, corner=0.08, relief=0.4, shadow=0.05)
    canvas.box([0.125, 0.86], (0.085, 0.26), seat * 1.15, corner=0.06, relief=0.3, soft=0.02)
    canvas.box([0.575, 0.27], (0.098, 0.105), seat * 0.95, corner=0.06, relief=0.45, shadow=0.04)
    canvas.box([0.575, 0.83], (0.235, 0.42), seat, corner=0.12, relief=0.45, shadow=0.05)
    canvas.capsule([0.385, 0.60], [0.365, 1.0], 0.032, seat * 1.25, relief=0.6)
    canvas.capsule([0.765, 0.60], [0.785, 1.0], 0.032, seat * 1.25, relief=0.6)


def _draw_side_mirror(canvas: Canvas, pose: Pose) -> None:
    turn = pose.side_mirror
    with canvas.track("side mirror"):
        canvas.box(SIDE_MIRROR, (0.062, 0.05), pose.appearance.trim, corner=0.02, relief=0.4, shadow=0.02)
        canvas.box(
            SIDE_MIRROR,
            (0.052 - 0.018 * np.abs(turn), 0.04),
            0.45 + 0.3 * turn,
            angle=0.25 * turn,
            corner=0.012,
            relief=0.1,
        )


def _draw_console(canvas: Canvas, pose: Pose) -> None:
    """Draw dashboard, glove box, radio and gear lever at the lower left."""
    trim, shut = pose.appearance.trim, 1 - pose.glovebox
    canvas.convex(
        [(-0.5, 0.74), (0.115, 0.735), (0.325, 0.735), (0.365, 0.86), (0.43, 1.5), (-0.5, 1.5)],
        trim + 0.03,
        shadow=0.05,
    )
    canvas.capsule([-0.5, 0.742], [0.322, 0.738], 0.008, trim + 0.2, relief=0.4)
    with canvas.track("glovebox"):
        x, y = GLOVEBOX
        canvas.box([x, y + 0.01], (0.073, 0.055), 0.03, corner=0.012, alpha=np.clip(pose.glovebox * 4, 0, 1), relief=0)
        canvas.ellipse([x + 0.01, y + 0.02], (0.045, 0.028), 0.8, alpha=0.85 * pose.glovebox, relief=0, soft=0.03)
        drop = y + 0.01 + 0.115 * pose.glovebox
        lid = xy(x, drop)
        canvas.box(
            lid,
            (0.073, 0.055 - 0.005 * pose.glovebox),
            trim + 0.09 + 0.22 * pose.glovebox,
            corner=0.012,
            relief=0.15,
            shadow=0.02,
        )
        canvas.box(lid - xy(0 * shut, 0.035 * shut), (0.022, 0.006), 0.5, corner=0.004, relief=0)
    with canvas.track("radio"):
        canvas.box(RADIO, (0.062, 0.047), trim * 0.6, corner=0.01, relief=0.1, shadow=0.015)
        canvas.box(RADIO - xy(0, 0.012), (0.05, 0.024), pose.radio, corner=0.004, relief=0.05)
        for dx in (-0.038, 0.038):
            canvas.ellipse(RADIO + xy(dx, 0.03), (0.012, 0.012), 0.6, relief=0.5)
    canvas.box([0.31, 1.0], (0.062, 0.08), trim * 0.5, corner=0.03, relief=0.2)
    with canvas.track("gear lever"):
        knob = GEAR + pose.gear
        canvas.capsule(knob, [0.315, 1.0], 0.011, 0.4, 0.02, relief=0.4)
        canvas.ellipse(knob, (0.026, 0.03), trim + 0.28, relief=0.5, shadow=0.02)


def _draw_wheel(canvas: Canvas, pose: Pose) -> None:
    rx, ry = WHEEL_RADII
    dark = pose.appearance.trim * 0.55
    with canvas.track("wheel"):
        for spoke in (0.12, np.pi - 0.12, np.pi / 2):
            angle = pose.wheel + spoke
            rim = WHEEL + xy(rx * np.cos(angle), ry * np.sin(angle)) * 0.96
            canvas.capsule(WHEEL, rim, 0.034, dark + 0.08, 0.017, relief=0.35, shadow=0.02)
        canvas.ellipse(WHEEL, (0.062, 0.052), dark + 0.14, relief=0.45, shadow=0.03)
        badge = WHEEL + xy(np.sin(pose.wheel), -np.cos(pose.wheel)) * 0.028
        canvas.ellipse(badge, (0.014, 0.012), 0.75, relief=0.2)
        canvas.ellipse(WHEEL, (rx, ry), dark + 0.22, ring=0.0185, relief=0.6, shadow=0.03)


def _draw_roof(canvas: Canvas, pose: Pose) -> None:
    """Draw sun visor and rear-view mirror, which are nearest to the camera."""
    down = pose.visor
    with canvas.track("visor"):
        centre = VISOR + xy(0 * down, 0.062 * down - 0.045)
        tone = pose.appearance.trim + 0.3
        canvas.box(centre, (0.165, 0.014 + 0.058 * down), tone, angle=-0.02, corner=0.014, relief=0.2, shadow=0.04)
        canvas.box(
            centre,
            (0.06, 0.001 + 0.032 * down),
            0.72,
            angle=-0.02,
            corner=0.006,
            alpha=np.clip(2 * down - 0.4, 0, 0.8),
            relief=0,
        )
    with canvas.track("mirror"):
        canvas.capsule([0.16, -0.1], MIRROR, 0.014, 0.12)
        canvas.box(MIRROR, (0.125, 0.042), 0.08, angle=pose.mirror, corner=0.025, relief=0.5, shadow=0.04)
        canvas.box(MIRROR, (0.112, 0.031), 0.42 + 0.5 * pose.mirror, angle=pose.mirror, corner=0.02, relief=0.15)


def draw_clip(pose: Pose, camera: Camera, raster: bool = True) -> Canvas:
    """Draw all frames of a clip from back to front, before light and sensor."""
    appearance = pose.appearance
    canvas = Canvas(pose.frames, camera, light=appearance.light, raster=raster)
    if raster:
        canvas.pixels[:] = _empty_cabin(appearance, camera)
        _draw_scenery(canvas, pose)
    draw_scene(canvas, pose)
    return canvas


def draw_scene(canvas: Canvas, pose: Pose) -> None:
    """Draw driver, cockpit and what the driver handles, from back to front: all that is tracked."""
    _draw_side_mirror(canvas, pose)
    draw_trunk(canvas, pose)
    jacket = bool((pose.jacket >= 0).any())
    if not jacket:
        draw_belt(canvas, pose)
    draw_head(canvas, pose)
    _draw_console(canvas, pose)
    for prop in pose.props:
        if prop.layer == "lap":
            draw_prop(canvas, pose, prop)
    _draw_wheel(canvas, pose)
    for side in SIDES:
        draw_arm(canvas, pose, side)
    if jacket:
        draw_jacket(canvas, pose)
    _draw_roof(canvas, pose)
    for prop in pose.props:
        if prop.layer == "hand":
            draw_prop(canvas, pose, prop)
    for side in SIDES:
        draw_hand(canvas, pose, side)


def _draw_scenery(canvas: Canvas, pose: Pose) -> None:
    """Let blurred trees and houses pass behind the driver's window."""
    mask = Canvas(1, canvas.camera)
    mask.convex(WINDOW, 1.0, soft=0.012)
    mask.convex([(0.725, -0.1), (0.80, -0.1), (0.835, 0.75), (0.735, 0.75)], 0.0, soft=0.015)
    x = np.arange(canvas.camera.width, dtype=np.float32) / canvas.camera.scale
    phase = pose.scenery[:, None]
    wave = np.sin(19 * x + phase) + 0.6 * np.sin(41 * x + 1.7 * phase + 1) - 0.4
    canvas.pixels += mask.pixels * (pose.appearance.scenery * wave.astype(np.float32))[:, None, :]


def expose(canvas: Canvas, pose: Pose, rng: np.random.Generator) -> Floats:
    """Turn luminance into what the sensor reads, (T, H, W) in [0, 1]: lamp, vignette, glare, exposure, noise."""
    appearance, camera, image = pose.appearance, canvas.camera, canvas.pixels
    # Exponentials are taken in double precision and rounded: those in single precision differ in the last bit between
    # processors with and without AVX-512, which turned a pixel of every thirtieth clip.
    down, across = np.mgrid[0 : camera.height, 0 : camera.width] + 0.5
    x, y = (across - camera.width / 2) / camera.scale, (down - camera.height / 2) / camera.scale
    # The lamp sits beside the camera and is aimed at the driver.
    lamp = 1.0 + 0.45 * np.exp(-((x - 0.06) ** 2) / 0.07 - (y + 0.05) ** 2 / 0.13)
    falloff = lamp * (1 - appearance.vignette * np.clip(x * x + (y + 0.05) ** 2, 0, 1) * 1.3)
    glare = 0.12 * appearance.window * np.exp(-((x - 0.5) ** 2) / 0.05 - (y + 0.15) ** 2 / 0.12)
    image *= appearance.exposure * falloff
    image += glare * (0.5 + 0.5 * max(appearance.light, 0))
    # Highlights saturate softly, as a film curve has it: 0 stays 0 and 1.5 becomes 1.
    np.maximum(image - np.float32(0.015), 0, out=image)
    image *= -appearance.curve
    image[:] = np.expm1(image.astype(np.float64)) / np.expm1(-1.5 * appearance.curve)
    # Shot noise grows with the signal; the fixed share is read-out noise.
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    image += noise * (appearance.noise * (0.6 + 0.8 * np.sqrt(image)))
    return np.clip(image, 0, 1, out=image)
