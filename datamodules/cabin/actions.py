"""The 20 driver actions: from a name and a source of chance to the pose of a clip over time."""

from __future__ import annotations

import numpy as np

from datamodules.cabin import driving, handling  # noqa: F401  (they register their programs)
from datamodules.cabin.driving import MOTION_ONLY
from datamodules.cabin.pose import Appearance, Pose, xy
from datamodules.cabin.take import ACTIONS, PROGRAMS, Take

__all__ = ["ACTIONS", "MOTION_ONLY", "act"]
assert set(PROGRAMS) == set(ACTIONS)


def act(appearance: Appearance, action: str, frames: int, rng: np.random.Generator) -> Pose:
    """Perform ``action`` once and return the pose over ``frames`` moments."""
    pose = Pose(appearance, frames)
    take = Take(pose, (np.arange(frames) + 0.5) / frames, rng)
    pose.scenery = 2 * np.pi * (take.uniform(0, 1) + rng.choice([0.0, 0.0, 0.5, 1.0]) * take.u)
    pose.head = pose.head + xy(take.wander(0.006), take.wander(0.004))
    pose.lean = pose.lean + xy(take.wander(0.005), take.wander(0.003))
    pose.radio = pose.radio + take.uniform(-0.1, 0.25)
    if action not in MOTION_ONLY:
        pose.wheel = take.uniform(-0.12, 0.12) + take.wander(0.06)
        pose.right, pose.left = pose.on_wheel("right"), pose.on_wheel("left")
        pose.roll, pose.yaw = pose.roll + take.wander(0.04), pose.yaw + take.wander(0.12)
        blink = take.uniform(-0.5, 1.5)
        pose.lids = np.maximum(pose.lids, np.exp(-(((take.u - blink) / 0.04) ** 2)))
    PROGRAMS[action](take)
    return pose
