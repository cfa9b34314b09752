"""Motion programs of what a driver does beside driving, mostly with something in the hands."""

from __future__ import annotations

import numpy as np

from datamodules.cabin.pose import PASSENGER_SEAT, Prop, xy
from datamodules.cabin.take import Take, cycle, program, smooth


@program("texting-on-phone")
def _texting(take: Take) -> None:
    pose, on = take.pose, take.hold()
    pose.acting = on
    side = "right" if take.chance(0.8) else "left"
    out = -1 if side == "right" else 1
    thumb = xy(0.006 * np.sin(2 * np.pi * take.rhythm(4, 6)), 0.008 * np.sin(2 * np.pi * take.rhythm(3, 5)))
    up = np.exp(-(((take.u - take.uniform(0.2, 1.4)) / 0.09) ** 2))  # a glance at the road
    take.look(on * (1 - 0.8 * up), yaw=0.25 * out, pitch=0.75)
    hand = take.move(side, on, take.near(0.56 + out * 0.115, 0.655) + thumb, grip=0.8, size=1.1)
    pose.glow = on * take.uniform(0.3, 0.6)
    lift = np.array([-out * 0.014, -0.06])
    pose.props.append(Prop("phone", hand + lift, -out * 0.18 + 0 * on, shown=np.clip(on * 4 - 0.3, 0, 1)))
    if take.chance(0.35):
        other = "left" if side == "right" else "right"
        take.move(other, on, hand + xy(-out * 0.06, 0.0) - 1.5 * thumb, grip=0.8, size=1.1)
    pose.key = "phone"


@program("working-on-laptop")
def _laptop(take: Take) -> None:
    pose = take.pose
    lap = take.near(0.49, 0.78, 0.02) + 0 * pose.right
    tilt = take.uniform(-0.12, 0.05)
    pose.props.append(Prop("laptop", lap, tilt))
    tap = take.rhythm(2.2, 3.3)
    away = take.hold()
    for side, dx, shift in (("right", -0.07, 0.0), ("left", 0.075, 0.5)):
        keys = lap + xy(dx + 0.02 * np.sin(2 * np.pi * (0.4 * tap + shift)), -0.03 - 0.03 * cycle(tap + shift))
        take.move(side, away if side == "left" and take.chance(0.3) else np.ones_like(away), keys, grip=0.35)
    take.look(np.ones_like(away), yaw=-0.3, pitch=take.uniform(0.55, 0.75))
    pose.glow = np.full(pose.frames, take.uniform(0.2, 0.4))
    pose.key = "laptop"


@program("put-onoff-jacket")
def _jacket(take: Take) -> None:
    pose, u = take.pose, take.u
    t = u if take.chance(0.5) else 1 - u
    span = take.uniform(0.85, 1.0)
    t = np.clip(t * span + take.uniform(0, 1 - span), 0, 1)
    pose.jacket = 1 + smooth((t - 0.12) / 0.75)
    stops = np.array([0.0, 0.2, 0.45, 0.7, 1.0])
    right = np.array([[0.46, 0.56], [0.30, 0.44], [0.20, 0.40], [0.22, 0.58], [0.24, 0.62]])
    left = np.array([[0.66, 0.56], [0.82, 0.46], [0.70, 0.60], [0.52, 0.52], [0.34, 0.56]])
    for side, path in (("right", right), ("left", left)):
        path = path + take.rng.uniform(-0.015, 0.015, path.shape)
        track = xy(*(np.interp(t, stops, path[:, axis]) for axis in (0, 1)))
        take.move(side, np.ones_like(u), track, grip=0.9, size=1.05)
    wiggle = np.sin(2 * np.pi * take.rhythm(1.5, 2.4))
    pose.twist = 0.16 * wiggle * np.sin(np.pi * t)
    pose.lean = pose.lean + xy(0.03 * wiggle * np.sin(np.pi * t), -0.01 * np.sin(np.pi * t))
    take.look(smooth(t * 2), yaw=-0.45, pitch=0.25)
    pose.belt, pose.key = np.zeros(pose.frames), "jacket"


@program("coughing-yawning-sneezing")
def _cough(take: Take) -> None:
    pose = take.pose
    variant = take.rng.choice(["cough", "yawn", "sneeze"])
    side, on = ("right", "left")[int(take.chance(0.4))], take.hold()
    out = -1 if side == "right" else 1
    if variant == "yawn":
        peak = take.uniform(0.4, 0.6)
        wide = smooth(1.35 - np.abs(take.u - peak) / 0.3)
        pose.acting = wide
        pose.mouth, pose.lids = wide, np.maximum(pose.lids, wide)
        take.look(wide, pitch=-0.4, roll=0.08 * out)
        take.move(side, smooth(wide * 1.4 - 0.25), pose.face(0.03 * out, 0.085) + xy(0.03 * out, 0.055), grip=0.0)
    else:
        beat = take.rhythm(2.2, 3.3) if variant == "cough" else take.rhythm(1.1, 1.6)
        jerk = cycle(beat) ** 3 * on
        pose.acting = on
        pose.lids = np.maximum(pose.lids, np.clip(jerk * 2, 0, 1))
        pose.mouth = np.clip(0.2 * on + jerk, 0, 1)
        if variant == "sneeze":
            take.look(on * (1 - jerk), pitch=-0.35)
        take.look(jerk, pitch=0.75 if variant == "sneeze" else 0.5)
        pose.lean = pose.lean + jerk[:, None] * [0.0, 0.035]
        take.move(
            side, on, pose.face(0.008 * out, 0.085) + xy(0.01 * out, 0.012), grip=0.95 if variant == "cough" else 0.2
        )
    pose.key = "mouth"


@program("talking-on-phone")
def _phone_call(take: Take) -> None:
    pose, on = take.pose, take.hold()
    pose.acting = on
    side = "right" if take.chance(0.6) else "left"
    out = -1 if side == "right" else 1
    talk = cycle(take.rhythm(1.8, 3.2))
    pose.mouth = on * talk * take.uniform(0.4, 0.8)
    take.look(on, roll=0.12 * out, yaw=take.uniform(-0.2, 0.2))
    ear = pose.skull + xy(out * 0.112 + 0 * on, 0.045 + 0.006 * talk)
    hand = take.move(side, on, ear + xy(out * 0.016, 0.025), grip=0.75)
    pose.props.append(
        Prop("phone", hand + np.array([-out * 0.004, -0.025]), -out * 0.22 + 0 * on, shown=np.clip(on * 4 - 0.3, 0, 1))
    )
    pose.key = "phone"


@program("sunglasses")
def _sunglasses(take: Take) -> None:
    pose = take.pose
    t = take.u if take.chance(0.6) else 1 - take.u
    start = take.uniform(0.0, 0.15)
    fetch, put, leave = (smooth((t - start - s) / 0.26) for s in (0.0, 0.26, 0.58))
    pose.acting = fetch * (1 - leave)
    side = "right" if take.chance(0.6) else "left"
    out = -1 if side == "right" else 1
    hinge = pose.face(out * 0.07, -0.012) + xy(out * 0.03, 0.01)
    hand = take.move(side, fetch, take.near(0.56 + out * 0.13, 0.60), grip=0.7)
    hand = take.move(side, put, hinge, grip=0.6)
    take.move(side, leave, pose.on_wheel(side), grip=1.0)
    on_nose = put[:, None]
    carried = hand + np.array([-out * 0.075, -0.03])
    place = (1 - on_nose) * carried + on_nose * pose.face(0, -0.018)
    pose.props.append(
        Prop("sunglasses", place, (1 - put) * 0.5 * out + pose.roll, shown=np.clip(fetch * 5 - 0.4, 0, 1))
    )
    take.look(put * (1 - leave), pitch=0.25)
    pose.key = "sunglasses"


@program("eating-drinking")
def _eating(take: Take) -> None:
    pose = take.pose
    kind = str(take.rng.choice(["cup", "bottle", "sandwich"]))
    side = "right" if take.chance(0.65) else "left"
    out = -1 if side == "right" else 1
    to_mouth = smooth(1.5 * cycle(take.rhythm(1.0, 1.8)) - 0.25)
    food = kind == "sandwich"
    tip = 0.0 if food else take.uniform(0.8, 1.15)
    take.look(to_mouth, pitch=0.1 if food else -0.35)
    pose.mouth = np.clip(to_mouth * 2 - 1.2, 0, 0.8) if food else 0.25 * to_mouth
    pose.mouth = np.clip(pose.mouth + (1 - to_mouth) * food * 0.3 * cycle(take.rhythm(2, 3.3)), 0, 1)
    reach = 0.03 if food else 0.12
    mouth = pose.face(0, 0.07) + xy(
        out * (0.025 + reach * np.sin(tip) * to_mouth), 0.025 + reach * np.cos(tip) + 0 * to_mouth
    )
    take.move(side, np.ones(pose.frames), take.near(0.56 + out * 0.15, 0.66), grip=0.9, size=1.1)
    hand = take.move(side, to_mouth, mouth, grip=0.9, size=1.1)
    shift = np.array([-out * 0.02, -0.035]) if food else np.array([-out * 0.015, -0.01])
    pose.props.append(Prop(kind, hand + shift, -out * tip * to_mouth))
    pose.key = kind


@program("read-paper")
def _paper(take: Take) -> None:
    pose, on = take.pose, take.hold()
    pose.acting = on
    scan = take.rhythm(1.2, 2.4)
    centre = take.near(0.56, 0.66, 0.02) + xy(take.wander(0.012), take.wander(0.016))
    turn = np.clip(np.sin(2 * np.pi * take.rhythm(0.5, 0.9)) * 3 - 2, 0, 1)  # turning a page
    angle = take.uniform(-0.08, 0.08) + take.wander(0.05)
    lower = (1 - on)[:, None] * [0.0, 0.30]
    for side, out in (("right", -1), ("left", 1)):
        edge = centre + lower + xy(out * 0.165 - 0.11 * turn * (out > 0), 0.055 - 0.05 * turn * (out > 0))
        take.move(side, np.clip(on * 1.6, 0, 1), edge, grip=0.6)
    pose.props.append(Prop("paper", centre + lower, angle, shown=np.clip(on * 4, 0, 1)))
    take.look(on, pitch=0.6)
    pose.yaw = pose.yaw + 0.3 * on * np.sin(2 * np.pi * scan)
    pose.key = "paper"


@program("reach-objects")
def _reach(take: Take) -> None:
    pose = take.pose
    t = take.u if take.chance(0.7) else 1 - take.u
    start = take.uniform(-0.1, 0.1)
    out_, back = smooth((t - start) / 0.34), smooth((t - start - 0.5) / 0.36)
    pose.acting = out_ * (1 - back)
    seat = PASSENGER_SEAT + take.rng.uniform([-0.03, -0.03], [0.03, 0.05])
    grope = xy(take.wander(0.02), take.wander(0.02))
    take.move("right", out_, seat + grope, grip=0.4, size=1.0)
    hand = take.move("right", back, take.near(0.42, 0.66, 0.02), grip=0.8, size=1.1)
    leaning = out_ * (1 - back)
    pose.lean = pose.lean + leaning[:, None] * [-0.10, 0.035]
    pose.twist = pose.twist - 0.2 * leaning
    take.look(out_ * (1 - 0.6 * back), yaw=-1.0, pitch=0.15, roll=-0.12)
    taken = smooth((t - start - 0.46) / 0.04)[:, None]
    bag = (1 - taken) * (seat + xy(0.0, 0.03)) + taken * (hand + xy(-0.005, 0.06))
    pose.props.append(Prop("bag", bag, 0.0))
    pose.key = "bag"


@program("blow-nose")
def _blow_nose(take: Take) -> None:
    pose, on = take.pose, take.hold()
    pose.acting = on
    puff = cycle(take.rhythm(1.4, 2.6))
    wipe = 0.016 * np.sin(2 * np.pi * take.rhythm(1.2, 2.4))
    take.look(on, pitch=0.25)
    take.look(on * puff, pitch=0.35)
    pose.lids = np.maximum(pose.lids, on * puff)
    pose.lean = pose.lean + (on * puff)[:, None] * [0.0, 0.012]
    nose = pose.face(0, 0.045) + xy(wipe, 0.004 + 0 * wipe)
    for side, out in (("right", -1), ("left", 1)):
        take.move(side, on, nose + xy(out * 0.052, 0.04), grip=0.7)
    pose.props.append(
        Prop("tissue", nose + xy(0.0, 0.012) + (1 - on)[:, None] * [0.0, 0.28], 0.0, shown=np.clip(on * 3 - 0.4, 0, 1))
    )
    pose.key = "tissue"
