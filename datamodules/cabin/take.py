"""What the motion programs of the synthetic cabin are written with: a take, and the registry that they enter.

Time runs from 0 to 1 over the clip, whatever its length in seconds, so that a rhythm stays visible where few frames are
sampled: no rhythm that an action has to be told by is faster than 3.4 cycles per clip, and 8 frames show up to 4.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from datamodules.cabin.pose import Pose, Track, xy

ACTIONS: tuple[str, ...] = (
    "texting-on-phone",
    "working-on-laptop",
    "put-onoff-jacket",
    "glovebox",
    "adjust-radio",
    "coughing-yawning-sneezing",
    "talking",
    "adjust-rear-mirror",
    "talking-on-phone",
    "sunglasses",
    "eating-drinking",
    "steering",
    "sunblinds",
    "switch-gear",
    "read-paper",
    "reach-objects",
    "drowsy",
    "adjust-side-mirror",
    "seatbelt",
    "blow-nose",
)


def smooth(share: Track) -> Track:
    """Return ``share`` cut to [0, 1], starting and ending gently."""
    share = np.clip(share, 0, 1)
    return share * share * (3 - 2 * share)


def cycle(phase: Track) -> Track:
    """Return 0 at whole phases and 1 halfway between them, smoothly."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * phase)


@dataclass
class Take:
    """One performance: the pose to fill in, time, and the random numbers of the clip."""

    pose: Pose
    u: Track
    rng: np.random.Generator

    def uniform(self, low: float, high: float) -> float:
        """Return a random number between ``low`` and ``high``."""
        return float(self.rng.uniform(low, high))

    def chance(self, probability: float) -> bool:
        """Return true with the given probability."""
        return bool(self.rng.random() < probability)

    def ramp(self, start: float, stop: float) -> Track:
        """Return 0 before ``start``, 1 after ``stop``."""
        return smooth((self.u - start) / (stop - start))

    def hold(self) -> Track:
        """Return 0 to 1 and perhaps back: reached before or soon after the start, left towards the end or never."""
        start = self.uniform(-0.3, 0.12)
        stop = self.uniform(0.86, 1.4)
        return self.ramp(start, start + 0.2) * (1 - self.ramp(stop, stop + 0.18))

    def rhythm(self, low: float, high: float) -> Track:
        """Return a phase that starts anywhere and advances by ``low`` to ``high`` cycles over the clip."""
        return self.uniform(0, 1) + self.uniform(low, high) * self.u

    def wander(self, amplitude: float) -> Track:
        """Return a slow, small drift around 0."""
        return amplitude * np.sin(2 * np.pi * self.rhythm(0.2, 0.8)) * self.uniform(0.3, 1)

    def near(self, x: float, y: float, spread: float = 0.012) -> Track:
        """Return a point (2,) at random near another."""
        return np.array([x, y]) + self.rng.uniform(-spread, spread, 2)

    def move(self, side: str, share: Track, target: Track, grip: float = 0.5, size: float = 1.0) -> Track:
        """Bring a hand from where it is to ``target``, by ``share`` (T,) of the way; returns where it is then."""
        pose, share2 = self.pose, share[:, None]
        # Hands travel on an arc towards the camera: a little outwards and larger than at either end.
        arc = xy(0 * share, -0.05 * np.sin(np.pi * share))
        setattr(pose, side, (1 - share2) * getattr(pose, side) + share2 * target + arc)
        grip_before, size_before = getattr(pose, f"{side}_grip"), getattr(pose, f"{side}_size")
        setattr(pose, f"{side}_grip", grip_before + share * (grip - grip_before))
        setattr(pose, f"{side}_size", size_before + share * (size - size_before) + 0.1 * np.sin(np.pi * share))
        return getattr(pose, side)

    def look(self, share: Track, yaw: float = 0.0, pitch: float = 0.0, roll: float = 0.0) -> None:
        """Turn the head by ``share`` (T,) of the given angles."""
        self.pose.yaw = self.pose.yaw + share * yaw
        self.pose.pitch = self.pose.pitch + share * pitch
        self.pose.roll = self.pose.roll + share * roll


Program = Callable[[Take], None]
PROGRAMS: dict[str, Program] = {}


def program(name: str) -> Callable[[Program], Program]:
    """Register the decorated function as the program of an action."""

    def register(function: Program) -> Program:
        assert name in ACTIONS, name
        assert name not in PROGRAMS, name
        PROGRAMS[name] = function
        return function

    return register
