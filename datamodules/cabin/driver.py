"""Draw the driver: trunk, clothes, seat belt, head with its face, arms and hands."""

from __future__ import annotations

import numpy as np

from datamodules.cabin.canvas import Canvas
from datamodules.cabin.pose import BELT_ANCHOR, BELT_BUCKLE, Pose, Track, mix, turned, xy

SIDES = ("right", "left")


def draw_trunk(canvas: Canvas, pose: Pose) -> None:
    """Draw neck, shoulders and chest with the shirt's pattern."""
    appearance, top = pose.appearance, pose.shoulders
    hips = np.array([0.565, 1.08])
    wide, shirt = 0.158 * appearance.build, appearance.shirt
    right, left = pose.shoulder("right"), pose.shoulder("left")
    canvas.capsule(mix(top, hips, 0.2), hips, wide * 1.04, shirt, wide * 0.95, relief=0.5, shadow=0.05)
    canvas.capsule(right, left, 0.062 * appearance.build, shirt, relief=0.3)
    collar = top + xy(0, -0.015)
    for shoulder in (right, left):  # trapezius: from the neck down to the shoulder
        canvas.capsule(collar, mix(collar, shoulder, 0.8) - xy(0, 0.012), 0.046, shirt, 0.05, relief=0.25)
    _draw_pattern(canvas, pose, top, hips)
    neck = 0.048 * appearance.head
    canvas.ellipse(top + xy(0, 0.008), (0.062, 0.046), appearance.skin * 0.72, relief=0.2, soft=0.008)
    canvas.capsule(mix(pose.skull, top, 0.45), top + xy(0, 0.0), neck, appearance.skin * 0.74, neck * 1.12, relief=0.5)
    canvas.ellipse(mix(pose.skull, top, 0.66), (0.062, 0.045), 0.0, alpha=0.25, relief=0, soft=0.04)


def _draw_pattern(canvas: Canvas, pose: Pose, top: Track, hips: Track) -> None:
    appearance = pose.appearance
    ink = appearance.shirt + (0.2 if appearance.shirt < 0.45 else -0.2)
    if appearance.pattern == "stripes":
        for share in (0.22, 0.36, 0.5, 0.64, 0.78):
            y = mix(top, hips, share)
            canvas.capsule(
                y - xy(0.13 * appearance.build, 0),
                y + xy(0.13 * appearance.build, 0),
                0.011,
                ink,
                alpha=0.7,
                relief=0,
                soft=0.008,
            )
    elif appearance.pattern == "zip":
        canvas.capsule(mix(top, hips, 0.12), hips, 0.005, ink, relief=0)
        for side in (-1, 1):
            canvas.capsule(top + xy(side * 0.058, 0.0), top + xy(side * 0.02, 0.075), 0.017, ink, alpha=0.6, relief=0.2)
    elif appearance.pattern == "print":
        canvas.box(mix(top, hips, 0.32), (0.06, 0.04), ink, corner=0.02, alpha=0.8, relief=0)
    for dx, tilt in ((-0.085, 0.05), (0.09, -0.06), (-0.03, -0.04)):  # folds of the cloth
        start = mix(top, hips, 0.3) + xy(dx, 0)
        canvas.capsule(start, start + xy(tilt, 0.2), 0.008, 0.0, 0.02, alpha=0.14, relief=0, soft=0.03)


def draw_belt(canvas: Canvas, pose: Pose) -> None:
    """Draw the belt: buckled across the chest, pulled by the left hand, or hanging from the pillar."""
    tone = 0.16 if pose.appearance.shirt > 0.36 else 0.6
    chest = pose.shoulder("left") + xy(-0.045, -0.045)
    canvas.capsule(BELT_ANCHOR, [0.80, 0.9], 0.007, tone * 0.8, alpha=1 - pose.belt, relief=0)
    pulled = np.where(pose.belt_hand[:, None] > 0.5, pose.left, BELT_BUCKLE)
    # While the hand is still beside the shoulder the strap goes straight to it instead of over the chest.
    crossing = np.clip((chest[:, 0] - pulled[:, 0]) / 0.06 + 0.5, 0, 1)[:, None]
    over = crossing * chest + (1 - crossing) * (BELT_ANCHOR + pulled) / 2
    out = np.maximum(pose.belt, pose.belt_hand > 0.5)
    with canvas.track("belt"):
        canvas.capsule(BELT_ANCHOR, over, 0.014, tone, alpha=out, relief=0.1)
        canvas.capsule(over, pulled, 0.0165, tone, alpha=out, relief=0.1, shadow=0.02)
        canvas.box(pulled, (0.016, 0.024), 0.7, angle=0.5, alpha=out, corner=0.006, relief=0.1)


def draw_head(canvas: Canvas, pose: Pose) -> None:
    """Draw hair, ears, face and, where the subject wears them, beard, glasses and cap."""
    appearance, skull, size = pose.appearance, pose.skull, pose.appearance.head
    rx, ry = 0.098 * size, 0.13 * size * appearance.long_face
    skin = appearance.skin * (1 + 0.35 * pose.glow)
    with canvas.track("head"):
        _draw_hair(canvas, pose, rx, ry)
        for side in (-1, 1):
            near = np.clip(1.2 - 1.6 * np.maximum(side * pose.yaw, 0), 0, 1)
            ear = turned(
                skull,
                pose.roll,
                side * rx * (1.0 - 0.1 * np.abs(pose.yaw)) - 0.035 * pose.yaw,
                0.012 + 0.02 * pose.pitch,
            )
            canvas.ellipse(ear, (0.019 * size, 0.034 * size), skin * 0.8, angle=pose.roll, alpha=near, relief=0.5)
        jaw = pose.mouth * 0.032
        chin = turned(skull, pose.roll, 0.022 * pose.yaw, 0.056 * size + 0.02 * pose.pitch + jaw)
        face = turned(skull, pose.roll, 0.018 * pose.yaw, 0.006 + 0.016 * pose.pitch)
        canvas.ellipse(chin, (rx * 0.74, ry * 0.6), skin * 0.94, angle=pose.roll, relief=0.55, shadow=0.05)
        canvas.ellipse(face, (rx * 0.97, ry * 0.92), skin, angle=pose.roll, relief=0.5, soft=0.01)
    _draw_face(canvas, pose, skin)
    if appearance.hair_style == "cap":
        with canvas.track("head"):
            brow = pose.face(0, -0.1) - xy(0 * pose.pitch, 0.03 * np.maximum(pose.pitch, 0))
            canvas.ellipse(
                turned(skull, pose.roll, 0, -0.075 * size),
                (rx * 1.08, ry * 0.55),
                appearance.hair + 0.1,
                angle=pose.roll,
                relief=0.4,
            )
            canvas.ellipse(
                brow + xy(0, 0.012),
                (rx * 0.95, 0.022),
                appearance.hair * 0.7 + 0.05,
                angle=pose.roll,
                relief=0.3,
                shadow=0.03,
            )


def _draw_hair(canvas: Canvas, pose: Pose, rx: float, ry: float) -> None:
    appearance, skull = pose.appearance, pose.skull
    if appearance.hair_style == "bald":
        canvas.ellipse(
            turned(skull, pose.roll, 0, -0.2 * ry),
            (rx * 1.01, ry * 0.84),
            appearance.skin * 0.97,
            angle=pose.roll,
            relief=0.36,
        )
        return
    tone = appearance.hair
    if appearance.hair_style == "long":
        for side in (-1, 1):
            top = turned(skull, pose.roll, side * rx * 0.86, -0.03)
            canvas.capsule(top, mix(pose.shoulders, top, 0.3) + xy(side * 0.085, 0.0), 0.036, tone, 0.03, relief=0.5)
    if appearance.hair_style == "bun":
        canvas.ellipse(turned(skull, pose.roll, 0, -ry * 1.12), (0.045, 0.04), tone, relief=0.5)
    back = turned(skull, pose.roll, -0.02 * pose.yaw, -0.022 + 0.006 * pose.pitch)
    canvas.ellipse(back, (rx * 1.09, ry * 1.03), tone, angle=pose.roll, relief=0.5, shadow=0.03)


def _draw_face(canvas: Canvas, pose: Pose, skin: Track) -> None:
    appearance, roll = pose.appearance, pose.roll
    canvas.capsule(
        pose.face(0, -0.045),
        pose.face(0, -0.08),
        0.03,
        np.minimum(skin * 1.1, 1),
        0.035,
        alpha=0.5,
        relief=0,
        soft=0.04,
    )
    if appearance.beard:
        jaw = pose.face(0, 0.08) + 0.02 * pose.mouth[:, None] * [0, 1]
        canvas.ellipse(jaw, (0.062, 0.045), appearance.hair, angle=roll, alpha=appearance.beard, relief=0.3, soft=0.03)
    with canvas.track("eyes"):
        for side in (-1, 1):
            _draw_eye(canvas, pose, side * 0.042, skin)
    ridge, tip = pose.face(0, -0.025), pose.face(0.1 * np.sin(pose.yaw) * 0.2, 0.03)
    canvas.capsule(ridge, tip, 0.007, np.minimum(skin * 1.1, 1), 0.014, alpha=0.6, relief=0, soft=0.014)
    canvas.capsule(tip + xy(-0.012, 0.012), tip + xy(0.012, 0.012), 0.005, skin * 0.45, alpha=0.8, relief=0, soft=0.008)
    _draw_mouth(canvas, pose, skin)
    if appearance.glasses:
        for side in (-1, 1):
            eye = pose.face(side * 0.043, -0.02)
            canvas.ellipse(eye, (0.031, 0.025), 0.1, angle=roll, ring=0.0032, relief=0)
            canvas.ellipse(eye + xy(0.008, -0.008), (0.007, 0.005), 0.95, alpha=0.5, relief=0, soft=0.006)
        canvas.capsule(pose.face(-0.012, -0.022), pose.face(0.012, -0.022), 0.0032, 0.1, relief=0)


def _draw_eye(canvas: Canvas, pose: Pose, dx: float, skin: Track) -> None:
    eye, roll = pose.face(dx, -0.02), pose.roll
    open_ = 1 - pose.lids
    canvas.ellipse(eye, (0.029, 0.02), skin * 0.6, angle=roll, alpha=0.75, relief=0, soft=0.014)
    canvas.ellipse(eye, (0.021, 0.003 + 0.0105 * open_), 0.92, angle=roll, alpha=np.clip(open_ * 3, 0, 1), relief=0.15)
    # Near-infrared pupils are dark and carry the reflection of the camera's lamp.
    pupil = eye + xy(0.006 * pose.yaw, 0.003 * pose.pitch)
    canvas.ellipse(pupil, (0.0105, 0.002 + 0.0095 * open_), 0.05, alpha=np.clip(open_ * 3 - 0.4, 0, 1), relief=0)
    canvas.ellipse(pupil + xy(0.003, -0.003), (0.0036, 0.0036), 1.0, alpha=np.clip(open_ * 2 - 0.8, 0, 1), relief=0)
    lash = 0.009 * (pose.lids * 2 - 1)
    ends = [turned(eye, roll, s * 0.021, lash * 0.55) for s in (-1, 1)]
    canvas.capsule(ends[0], ends[1], 0.0042, 0.12, relief=0)
    brow = pose.face(dx * 1.04, -0.055 - 0.0)
    canvas.capsule(
        turned(brow, roll, -0.021, 0.0),
        turned(brow, roll, 0.021, 0.0),
        0.0058,
        pose.appearance.hair * 0.8,
        relief=0,
        alpha=0.85,
    )


def _draw_mouth(canvas: Canvas, pose: Pose, skin: Track) -> None:
    gape, roll = np.clip(pose.mouth, 0, 1), pose.roll
    mouth = pose.face(0, 0.068) + xy(-np.sin(roll), np.cos(roll)) * (0.016 * gape)[:, None]
    with canvas.track("mouth"):
        half = 0.034 - 0.003 * gape, 0.009 + 0.033 * gape
        canvas.ellipse(mouth, half, skin * 0.62, angle=roll, relief=0.1, soft=0.006)
        canvas.ellipse(mouth, (half[0] - 0.004, 0.0022 + 0.032 * gape), 0.05, angle=roll, relief=0)
        canvas.ellipse(
            mouth - xy(0, 0.011) * gape[:, None], (0.016, 0.005), 0.8, alpha=np.clip(gape * 2 - 0.9, 0, 0.8), relief=0
        )


def elbow(pose: Pose, side: str) -> Track:
    """Return where an elbow is (T, 2).

    Instead of solving for two limbs of fixed length, which flip when foreshortened, it hangs outside the shoulder and
    follows the hand by a third; lengths then vary as they do in projection.
    """
    out = -1 if side == "right" else 1
    shoulder, hand = pose.shoulder(side), getattr(pose, side)
    rest = np.array([0.56 + out * 0.13, 0.80])
    joint = shoulder + xy(out * 0.055 * pose.appearance.build, 0.2) + 0.36 * (hand - rest)
    reach = np.hypot(*(hand - joint).T)[:, None]
    return hand - (hand - joint) * np.minimum(1, 0.30 / np.maximum(reach, 1e-6))


def draw_arm(canvas: Canvas, pose: Pose, side: str, sleeve: float | None = None) -> None:
    """Draw one upper arm and forearm; the hand is drawn later, over what it holds."""
    appearance, build = pose.appearance, pose.appearance.build
    shoulder, joint, hand = pose.shoulder(side), elbow(pose, side), getattr(pose, side)
    cloth = appearance.shirt * 0.94 if sleeve is None else sleeve
    grown = getattr(pose, f"{side}_size")
    wrist = mix(joint, hand, 0.86)
    bare = appearance.sleeves == 0.0 and sleeve is None
    canvas.capsule(
        joint, wrist, 0.043 * build, appearance.skin * 0.9 if bare else cloth, 0.028 * grown, relief=0.45, shadow=0.05
    )
    if bare:
        canvas.capsule(shoulder, joint, 0.052 * build, appearance.skin * 0.88, 0.043 * build, relief=0.45, shadow=0.05)
        canvas.capsule(shoulder, mix(shoulder, joint, 0.55), 0.064 * build, cloth, 0.06 * build, relief=0.4)
    else:
        canvas.capsule(shoulder, joint, 0.066 * build, cloth, 0.048 * build, relief=0.45, shadow=0.05)
        canvas.capsule(mix(joint, wrist, 0.93), wrist, 0.03 * grown, cloth * 0.8, relief=0.3)


def draw_hand(canvas: Canvas, pose: Pose, side: str) -> None:
    """Draw palm, four fingers and thumb; a fist has short fingers."""
    hand, joint = getattr(pose, side), elbow(pose, side)
    size, fist = 1.14 * getattr(pose, f"{side}_size"), getattr(pose, f"{side}_grip")
    along = hand - joint
    angle = np.arctan2(along[:, 0], -along[:, 1])  # 0: the hand points up
    tone, out = pose.appearance.skin, -1 if side == "right" else 1
    with canvas.track(f"{side}_hand"):
        canvas.ellipse(hand, (0.030 * size, 0.036 * size), tone * 0.95, angle=angle, relief=0.3, shadow=0.035)
        root = turned(hand, angle, -out * 0.022 * size, 0.012 * size)
        tip = turned(hand, angle, -out * (0.044 - 0.012 * fist) * size, -(0.022 - 0.008 * fist) * size)
        canvas.capsule(root, tip, 0.0105 * size, tone * 0.92, relief=0.4)
        long = (0.062 - 0.034 * fist) * size
        for i, share in enumerate((0.88, 1.0, 0.97, 0.8)):
            across = (i - 1.5) * 0.0155 * size
            root, tip = (
                turned(hand, angle, across, -0.016 * size),
                turned(hand, angle, across * 1.1, -long * share - 0.004),
            )
            canvas.capsule(root, tip, 0.0088 * size, tone * (1.0 - 0.03 * i), relief=0.55)
