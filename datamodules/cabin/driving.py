"""Motion programs of what a driver does with the car and without anything in the hands.

Drowsy, talking and steering differ only in motion. All three have the same three channels (nodding with drooping
lids; the mouth with the turning of the head that goes with speech; the wheel), each at a phase drawn uniformly from
its cycle. Only the channel that gives the clip its label advances from there; the other two stay where they are. At
any single frame the three states are therefore independent and distributed alike under all three labels: no frame
alone tells them apart.
"""

from __future__ import annotations

import numpy as np

from datamodules.cabin.pose import BELT_ANCHOR, BELT_BUCKLE, DOOR_SWITCH, GEAR, GLOVEBOX, MIRROR, RADIO, VISOR, xy
from datamodules.cabin.take import Take, cycle, program, smooth

MOTION_ONLY = ("drowsy", "talking", "steering")


def _three_channels(take: Take, moving: str) -> None:
    """Fill in the state shared by drowsy, talking and steering; only the channel ``moving`` advances."""
    speed = {"drowsy": (0.9, 1.5), "talking": (2.2, 3.2), "steering": (1.0, 1.8)}
    phase = {name: take.uniform(0, 1) + 0 * take.u for name in MOTION_ONLY}
    phase[moving] = phase[moving] + take.uniform(*speed[moving]) * take.u
    pose, side = take.pose, take.uniform(-1, 1)
    # Falling asleep: the head sinks slowly and jerks up. Warping the phase before the cosine does this smoothly.
    sinking = cycle((phase["drowsy"] % 1) ** 0.7)
    depth = take.uniform(0.8, 1.1)
    pose.pitch = pose.pitch + depth * 0.95 * sinking - 0.1
    pose.roll = pose.roll + 0.22 * side * sinking
    pose.lids = np.clip(1.5 * sinking - 0.1, 0, 1)
    # Talking is told by the mouth; at 64 pixels the head that goes with every second syllable helps to see it.
    pose.mouth = take.uniform(0.8, 1.0) * cycle(phase["talking"])
    pose.yaw = pose.yaw + take.uniform(0.25, 0.45) * np.sin(2 * np.pi * phase["talking"])
    pose.wheel = take.uniform(0.9, 1.2) * np.sin(2 * np.pi * phase["steering"])
    pose.right, pose.left = pose.on_wheel("right"), pose.on_wheel("left")


@program("drowsy")
def _drowsy(take: Take) -> None:
    _three_channels(take, "drowsy")
    take.pose.key = "eyes"


@program("talking")
def _talking(take: Take) -> None:
    _three_channels(take, "talking")
    take.pose.key = "mouth"


@program("steering")
def _steering(take: Take) -> None:
    _three_channels(take, "steering")
    take.pose.key = "wheel"


@program("glovebox")
def _glovebox(take: Take) -> None:
    pose, on = take.pose, take.hold()
    pose.acting = on
    pose.glovebox = np.clip(on * 2.5 - 1.2, 0, 1)
    search = take.rhythm(1.2, 2.4)
    inside = xy(0.035 * np.sin(2 * np.pi * search), 0.022 * np.cos(4 * np.pi * search))
    take.move("right", on, take.near(*(GLOVEBOX + xy(0.035, -0.005))) + inside, grip=0.3, size=1.2)
    pose.lean = pose.lean + on[:, None] * [-0.075, 0.045]
    pose.twist = pose.twist - 0.16 * on
    take.look(on, yaw=-0.75, pitch=0.45, roll=-0.1)
    pose.key = "glovebox"


@program("adjust-radio")
def _radio(take: Take) -> None:
    pose, on = take.pose, take.hold()
    pose.acting = on
    press = take.rhythm(1.6, 3.0)
    knob = RADIO + xy(take.uniform(-0.01, 0.035), -0.005)
    dab = xy(0.022 * np.sin(np.pi * press), -0.026 * cycle(press))
    take.move("right", on, knob + dab, grip=0.45, size=1.15)
    pose.radio = pose.radio + 0.3 * on * (np.floor(press) % 2)
    glance = on * (0.45 + 0.55 * cycle(take.rhythm(0.5, 1.2)))
    take.look(glance, yaw=-0.65, pitch=0.4)
    pose.lean = pose.lean + on[:, None] * [-0.02, 0.01]
    pose.key = "radio"


@program("adjust-rear-mirror")
def _rear_mirror(take: Take) -> None:
    pose, on = take.pose, take.hold()
    pose.acting = on
    tilt = np.sin(2 * np.pi * take.rhythm(1.0, 2.2))
    pose.mirror = 0.24 * tilt * on
    grip = MIRROR + xy(0.085 + 0 * tilt, 0.055 + 0.03 * tilt)
    take.move("right", on, grip, grip=0.25, size=1.45)
    pose.lean = pose.lean + on[:, None] * [-0.015, -0.01]
    take.look(on, yaw=-0.55, pitch=-0.4)
    pose.key = "mirror"


@program("adjust-side-mirror")
def _side_mirror(take: Take) -> None:
    pose, on = take.pose, take.hold()
    pose.acting = on
    nudge = take.rhythm(1.4, 2.6)
    pose.side_mirror = on * np.sin(2 * np.pi * nudge)
    press = xy(0.024 * np.sin(2 * np.pi * nudge), -0.012 * cycle(2 * nudge))
    take.move("left", on, DOOR_SWITCH + press, grip=0.4, size=1.1)
    pose.lean = pose.lean + on[:, None] * [0.02, 0.0]
    take.look(on, yaw=0.85, pitch=0.05)
    pose.key = "side mirror"


@program("sunblinds")
def _sunblinds(take: Take) -> None:
    pose = take.pose
    side = "right" if take.chance(0.5) else "left"
    out = -1 if side == "right" else 1
    on = take.hold()
    pose.acting = on
    down = cycle(take.rhythm(0.8, 1.5))
    pose.visor = down if take.chance(0.5) else down * on
    edge = VISOR + xy(out * 0.10 + 0 * down, -0.02 + 0.115 * pose.visor)
    take.move(side, on, edge, grip=0.35, size=1.3)
    take.look(on, pitch=-0.45, yaw=0.1 * out)
    pose.key = "visor"


@program("switch-gear")
def _switch_gear(take: Take) -> None:
    pose, on = take.pose, take.hold()
    pose.acting = on
    shift = take.rhythm(1.0, 2.0)
    pose.gear = on[:, None] * xy(0.028 * np.sin(np.pi * shift), 0.045 * np.sin(2 * np.pi * shift) - 0.03)
    take.move("right", on, GEAR + pose.gear + xy(0.0, -0.012), grip=0.95, size=1.1)
    take.look(on * cycle(take.rhythm(0.3, 0.9)), yaw=-0.3, pitch=0.35)
    pose.lean = pose.lean + on[:, None] * [-0.012, 0.01]
    pose.key = "gear lever"


@program("seatbelt")
def _seatbelt(take: Take) -> None:
    pose = take.pose
    t = take.u if take.chance(0.65) else 1 - take.u
    start = take.uniform(-0.1, 0.08)
    grab, pull, leave = (smooth((t - start - s) / w) for s, w in ((0.0, 0.2), (0.26, 0.42), (0.78, 0.3)))
    pose.acting = grab * (1 - leave)
    take.move("left", grab, BELT_ANCHOR + xy(-0.005, 0.06), grip=0.8)
    take.move("left", pull, BELT_BUCKLE + xy(0.0, -0.02), grip=0.9, size=1.1)
    take.move("right", pull * (1 - leave), BELT_BUCKLE + xy(-0.05, -0.005), grip=0.6)
    pose.belt_hand = ((t - start > 0.2) & (leave <= 0)).astype(float)
    pose.belt = (leave > 0).astype(float)
    take.look(grab * (1 - pull), yaw=0.75, pitch=0.05)
    take.look(pull * (1 - leave), yaw=-0.35, pitch=0.6)
    take.move("left", leave, pose.on_wheel("left"), grip=1.0)
    pose.key = "belt"
