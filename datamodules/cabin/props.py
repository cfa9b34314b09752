"""Draw what the driver handles: phone, laptop, paper, food, tissue, sunglasses, bag, jacket."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from datamodules.cabin.canvas import Canvas
from datamodules.cabin.driver import elbow
from datamodules.cabin.pose import Pose, Prop, mix, turned, xy

Painter = Callable[[Canvas, Pose, Prop], None]
PAINTERS: dict[str, Painter] = {}


def _painter(function: Painter) -> Painter:
    PAINTERS[function.__name__.lstrip("_")] = function
    return function


def draw_prop(canvas: Canvas, pose: Pose, prop: Prop) -> None:
    """Draw a prop and track its box under its kind."""
    with canvas.track(prop.kind):
        PAINTERS[prop.kind](canvas, pose, prop)


@_painter
def _phone(canvas: Canvas, pose: Pose, prop: Prop) -> None:
    canvas.box(prop.xy, (0.041, 0.074), 0.07, prop.angle, corner=0.011, relief=0.25, alpha=prop.shown, shadow=0.02)
    canvas.box(prop.xy, (0.036, 0.069), 0.13, prop.angle, corner=0.009, relief=0.2, alpha=prop.shown)
    lens = turned(prop.xy, prop.angle, 0.018, -0.048)
    canvas.ellipse(lens, (0.009, 0.009), 0.9, alpha=prop.shown, relief=0.2)


@_painter
def _laptop(canvas: Canvas, pose: Pose, prop: Prop) -> None:
    deck = [(-0.155, -0.075), (0.155, -0.075), (0.175, 0.0), (-0.175, 0.0)]
    corners = np.stack([turned(prop.xy, prop.angle, dx, dy) for dx, dy in deck], axis=1)
    canvas.convex(corners, 0.5, alpha=prop.shown, shadow=0.04)
    for row in (-0.058, -0.04, -0.022):  # keys
        ends = [turned(prop.xy, prop.angle, dx, row) for dx in (-0.125, 0.125)]
        canvas.capsule(ends[0], ends[1], 0.0055, 0.16, alpha=prop.shown, relief=0)
    lid = turned(prop.xy, prop.angle, 0, 0.085)
    canvas.box(lid, (0.19, 0.088), 0.62, prop.angle, corner=0.012, alpha=prop.shown, relief=0.12, shadow=0.03)
    canvas.ellipse(lid, (0.018, 0.018), 0.9, alpha=prop.shown, relief=0)


@_painter
def _paper(canvas: Canvas, pose: Pose, prop: Prop) -> None:
    for side in (-1, 1):  # two leaves with a fold between them
        leaf = turned(prop.xy, prop.angle, side * 0.083, 0.004)
        turn = np.asarray(prop.angle) + side * 0.07
        canvas.box(
            leaf,
            (0.085, 0.115),
            0.93 - 0.08 * (side > 0),
            turn,
            corner=0.004,
            relief=0.04,
            alpha=prop.shown,
            shadow=0.03,
        )
        for row in (-0.085, -0.06, -0.035, -0.01, 0.015, 0.04, 0.065, 0.09):
            half = 0.066 if row != 0.015 else 0.04
            a, b = turned(leaf, turn, -half, row), turned(leaf, turn, half, row)
            canvas.capsule(a, b, 0.0048, 0.45, alpha=prop.shown, relief=0)


@_painter
def _cup(canvas: Canvas, pose: Pose, prop: Prop) -> None:
    top, foot = turned(prop.xy, prop.angle, 0, -0.06), turned(prop.xy, prop.angle, 0, 0.055)
    canvas.capsule(top, foot, 0.043, 0.9, 0.031, alpha=prop.shown, relief=0.4, shadow=0.03)
    canvas.box(prop.xy, (0.041, 0.024), 0.3, prop.angle, alpha=prop.shown, relief=0.3)
    canvas.box(
        turned(prop.xy, prop.angle, 0, -0.088),
        (0.046, 0.015),
        0.15,
        prop.angle,
        corner=0.006,
        alpha=prop.shown,
        relief=0.2,
    )


@_painter
def _bottle(canvas: Canvas, pose: Pose, prop: Prop) -> None:
    neck = turned(prop.xy, prop.angle, 0, -0.115)
    canvas.capsule(
        turned(prop.xy, prop.angle, 0, -0.05), neck, 0.03, 0.75, 0.016, alpha=prop.shown, relief=0.4, shadow=0.03
    )
    canvas.box(
        turned(prop.xy, prop.angle, 0, 0.015),
        (0.037, 0.08),
        0.75,
        prop.angle,
        corner=0.02,
        alpha=prop.shown,
        relief=0.5,
        shadow=0.03,
    )
    canvas.box(turned(prop.xy, prop.angle, 0, 0.02), (0.037, 0.03), 0.3, prop.angle, alpha=prop.shown, relief=0.4)
    canvas.box(neck, (0.017, 0.015), 0.12, prop.angle, corner=0.004, alpha=prop.shown, relief=0.2)


@_painter
def _sandwich(canvas: Canvas, pose: Pose, prop: Prop) -> None:
    for dy, tone in ((0.022, 0.5), (0.0, 0.12), (-0.022, 0.6)):
        canvas.box(
            turned(prop.xy, prop.angle, 0, dy),
            (0.07, 0.02),
            tone,
            prop.angle,
            corner=0.018,
            alpha=prop.shown,
            relief=0.35,
            shadow=0.01,
        )


@_painter
def _tissue(canvas: Canvas, pose: Pose, prop: Prop) -> None:
    for dx, dy, r in ((-0.035, 0.01, 0.04), (0.035, 0.008, 0.042), (0.0, 0.035, 0.045), (0.0, -0.008, 0.04)):
        canvas.ellipse(
            turned(prop.xy, prop.angle, dx, dy),
            (r, r * 0.85),
            0.97,
            prop.angle,
            alpha=prop.shown,
            relief=0.2,
            shadow=0.012,
        )


@_painter
def _sunglasses(canvas: Canvas, pose: Pose, prop: Prop) -> None:
    for side in (-1, 1):
        lens = turned(prop.xy, prop.angle, side * 0.043, 0)
        canvas.ellipse(lens, (0.041, 0.032), 0.02, prop.angle, alpha=prop.shown, relief=0.1, shadow=0.015)
        canvas.ellipse(
            turned(lens, prop.angle, 0.012, -0.01),
            (0.01, 0.005),
            0.6,
            prop.angle,
            alpha=prop.shown,
            relief=0,
            soft=0.01,
        )
        end = turned(prop.xy, prop.angle, side * 0.1, -0.008)
        canvas.capsule(turned(lens, prop.angle, side * 0.03, -0.01), end, 0.006, 0.04, alpha=prop.shown, relief=0)
    canvas.capsule(
        turned(prop.xy, prop.angle, -0.03, -0.01),
        turned(prop.xy, prop.angle, 0.03, -0.01),
        0.007,
        0.03,
        alpha=prop.shown,
        relief=0,
    )


@_painter
def _bag(canvas: Canvas, pose: Pose, prop: Prop) -> None:
    canvas.ellipse(
        turned(prop.xy, prop.angle, 0, -0.065), (0.04, 0.045), 0.7, prop.angle, ring=0.008, alpha=prop.shown, relief=0.3
    )
    canvas.box(
        turned(prop.xy, prop.angle, 0, 0.02),
        (0.085, 0.065),
        0.78,
        prop.angle,
        corner=0.022,
        alpha=prop.shown,
        relief=0.35,
        shadow=0.04,
    )
    canvas.box(
        turned(prop.xy, prop.angle, 0, 0.025),
        (0.05, 0.03),
        0.35,
        prop.angle,
        corner=0.008,
        alpha=prop.shown,
        relief=0.2,
    )


def draw_jacket(canvas: Canvas, pose: Pose) -> None:
    """Draw a jacket from worn (1) over hanging behind the shoulders (1.5) to a bundle in the hands (2)."""
    tone, off = pose.appearance.jacket, np.clip(pose.jacket - 1, 0, 1)
    slip = np.clip(off * 2.2, 0, 1)
    with canvas.track("jacket"):
        for side, out in (("right", -1), ("left", 1)):
            worn = np.clip((0.42 if side == "right" else 0.72) * 12 - 12 * off, 0, 1)
            shoulder, joint, hand = pose.shoulder(side), elbow(pose, side), getattr(pose, side)
            drop = xy(out * 0.05 * slip, 0.16 * slip)
            collar = pose.shoulders + xy(out * 0.07, 0.0) + xy(out * 0.09 * slip, 0.10 * slip)
            hem = np.array([0.565 + out * 0.13, 1.02])
            canvas.capsule(collar, hem, 0.052, tone, 0.075, alpha=worn, relief=0.4, shadow=0.03)
            canvas.capsule(collar, shoulder + drop, 0.06, tone * 1.05, 0.066, alpha=worn, relief=0.4)
            canvas.capsule(
                shoulder + drop, mix(joint, hand, 0.1), 0.078, tone, 0.064, alpha=worn, relief=0.45, shadow=0.03
            )
            canvas.capsule(joint, mix(joint, hand, 0.86), 0.06, tone, 0.048, alpha=worn, relief=0.45, shadow=0.03)
        bundle = np.clip(off * 12 - 4.6, 0, 1)
        middle = (pose.right + pose.left) / 2 + xy(0, 0.06)
        for share, r in ((0.0, 0.07), (0.35, 0.095), (0.7, 0.09)):
            cloth = mix(pose.right, middle, share) + xy(0.0, 0.05)
            canvas.ellipse(cloth, (r, r * 0.95), tone * (1 - 0.12 * share), alpha=bundle, relief=0.45, shadow=0.03)
        canvas.capsule(
            mix(pose.right, middle, 0.3),
            mix(pose.right, middle, 0.4) + xy(-0.05, 0.2),
            0.05,
            tone * 0.95,
            0.03,
            alpha=bundle,
            relief=0.45,
            shadow=0.02,
        )
