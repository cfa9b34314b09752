"""What the synthetic cabin draws from: a subject's appearance, where things are in the cabin, and the pose over time.

Scene units: the visible square is [0, 1] x [0, 1], x to the right and y downwards as seen from the rear-view mirror.
The driver faces the camera, so the driver's right hand is on the left of the picture. Angles are in radians, clockwise
on the screen. Arrays over time have shape (T,) or (T, 2).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

Track = NDArray[np.float64]

# Where things are in the cabin.
SHOULDERS = np.array([0.56, 0.50])
WHEEL = np.array([0.56, 0.885])
WHEEL_RADII = np.array([0.205, 0.165])
RADIO = np.array([0.262, 0.80])
GLOVEBOX = np.array([0.105, 0.815])
GEAR = np.array([0.31, 0.93])
MIRROR = np.array([0.12, 0.085])
VISOR = np.array([0.57, 0.055])
SIDE_MIRROR = np.array([0.945, 0.40])
DOOR_SWITCH = np.array([0.915, 0.665])
BELT_ANCHOR = np.array([0.805, 0.37])
BELT_BUCKLE = np.array([0.37, 0.93])
PASSENGER_SEAT = np.array([0.13, 0.60])


def xy(x: ArrayLike, y: ArrayLike) -> Track:
    """Return points or shifts (2,) or (T, 2) from their coordinates."""
    points = np.empty((*np.broadcast(x, y).shape, 2))  # several times faster than stacking, and called all the time
    points[..., 0], points[..., 1] = x, y
    return points


def mix(a: Track, b: Track, share: float) -> Track:
    """Return the point that lies ``share`` of the way from ``a`` to ``b``."""
    return a + share * (b - a)


def turned(origin: Track, angle: ArrayLike, dx: ArrayLike, dy: ArrayLike) -> Track:
    """Return ``origin`` + (dx, dy) rotated by ``angle``: a point of a thing that is drawn at an angle."""
    cos, sin = np.cos(angle), np.sin(angle)
    return origin + xy(cos * dx - sin * np.asarray(dy), sin * dx + cos * np.asarray(dy))


@dataclass(frozen=True)
class Appearance:
    """One subject in one car: everything that stays the same over all clips of that subject."""

    build: float
    height: float
    head: float
    long_face: float
    skin: float
    hair: float
    hair_style: str
    beard: float
    glasses: bool
    shirt: float
    pattern: str
    sleeves: float
    jacket: float
    seat: float
    trim: float
    window: float
    scenery: float
    light: float
    exposure: float
    curve: float
    noise: float
    vignette: float
    dx: float
    dy: float
    zoom: float
    roll: float
    grip: float
    slouch: float

    @staticmethod
    def draw(seed: int, subject: int) -> Appearance:
        """Draw the appearance of a subject; it depends on nothing but ``seed`` and ``subject``."""
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0, subject)))
        u = rng.uniform
        skin, shirt = u(0.6, 0.86), u(0.14, 0.8)
        if abs(shirt - skin) < 0.1:  # hands in front of the chest have to stay visible
            shirt -= 0.28
        jacket = shirt + u(0.22, 0.4) * (1 if shirt < 0.42 else -1)
        return Appearance(
            build=u(0.88, 1.14),
            height=u(-0.03, 0.025),
            head=u(0.93, 1.08),
            long_face=u(0.95, 1.08),
            skin=skin,
            hair=u(0.08, 0.42),
            hair_style=str(rng.choice(["short", "short", "long", "bun", "bald", "cap"])),
            beard=float(rng.choice([0.0, 0.0, 0.0, 0.3, 0.5])),
            glasses=bool(rng.random() < 0.25),
            shirt=shirt,
            pattern=str(rng.choice(["plain", "plain", "stripes", "zip", "print"])),
            sleeves=float(rng.choice([0.0, 1.0, 1.0])),
            jacket=float(np.clip(jacket, 0.08, 0.85)),
            seat=u(0.16, 0.34),
            trim=u(0.10, 0.22),
            window=u(0.6, 1.0),
            scenery=u(0.02, 0.08),
            light=u(-0.15, 0.6),
            exposure=u(0.85, 1.18),
            curve=u(0.5, 1.1),
            noise=u(0.006, 0.018),
            vignette=u(0.25, 0.6),
            dx=u(-0.03, 0.03),
            dy=u(-0.02, 0.025),
            zoom=u(0.95, 1.07),
            roll=u(-0.04, 0.04),
            grip=u(-0.12, 0.25),
            slouch=u(-0.02, 0.02),
        )


@dataclass
class Prop:
    """A thing that the driver handles: ``kind`` selects how it is drawn.

    Attributes:
        kind: Name of a painter in `datamodules.cabin.props`, which also is the name that its box is tracked under.
        xy: (T, 2) centre.
        angle: (T,) rotation.
        shown: (T,) opacity, 0 while it is not there.
        layer: ``lap`` is drawn behind the arms, ``hand`` over the arms and under the hands.
    """

    kind: str
    xy: Track
    angle: ArrayLike = 0.0
    shown: ArrayLike = 1.0
    layer: str = "hand"


@dataclass
class Pose:
    """The whole state of a clip over time; an action is a function that fills it in.

    Attributes:
        acting: (T,) how far the action is under way: 0 before and after it, 1 during it. It is not drawn.
        key: Name of the key object of the action, one that drawing tracks (``phone``, ``wheel``, ``mouth``...).
        lean: (T, 2) shift of the shoulders.
        twist: (T,) tilt of the line of the shoulders.
        head: (T, 2) shift of the head relative to the shoulders.
        roll: (T,) tilt of the head to the side.
        yaw: (T,) turn of the head, -1 towards the passenger to 1 towards the driver's window.
        pitch: (T,) nod of the head, -1 up to 1 down.
        mouth: (T,) 0 closed to 1 wide open.
        lids: (T,) 0 open to 1 closed eyes.
        wheel: (T,) angle of the steering wheel.
        right: (T, 2) the driver's right hand (left in the picture).
        left: (T, 2) the driver's left hand.
        right_grip: (T,) 0 flat hand to 1 fist.
        left_grip: (T,) likewise.
        right_size: (T,) magnification of the hand: hands that reach for the camera grow.
        left_size: (T,) likewise.
        belt: (T,) 1 buckled, 0 rolled up.
        belt_hand: (T,) 1 while the belt's tongue is in the left hand.
        jacket: (T,) 0 no jacket in sight, else 1 worn to 2 taken off; -1 everywhere in clips without a jacket.
        visor: (T,) 0 folded up to 1 down.
        glovebox: (T,) 0 closed to 1 open.
        gear: (T, 2) shift of the gear knob.
        mirror: (T,) tilt of the rear-view mirror.
        side_mirror: (T,) turn of the side mirror, -1 to 1.
        radio: (T,) brightness of the radio's display.
        glow: (T,) light that a screen casts on the face.
        scenery: (T,) phase of what passes behind the window.
        props: Things in the hands or on the lap.
    """

    appearance: Appearance
    frames: int
    key: str = "wheel"
    props: list[Prop] = field(default_factory=list)
    acting: Track = field(init=False)
    lean: Track = field(init=False)
    twist: Track = field(init=False)
    head: Track = field(init=False)
    roll: Track = field(init=False)
    yaw: Track = field(init=False)
    pitch: Track = field(init=False)
    mouth: Track = field(init=False)
    lids: Track = field(init=False)
    wheel: Track = field(init=False)
    right: Track = field(init=False)
    left: Track = field(init=False)
    right_grip: Track = field(init=False)
    left_grip: Track = field(init=False)
    right_size: Track = field(init=False)
    left_size: Track = field(init=False)
    belt: Track = field(init=False)
    belt_hand: Track = field(init=False)
    jacket: Track = field(init=False)
    visor: Track = field(init=False)
    glovebox: Track = field(init=False)
    gear: Track = field(init=False)
    mirror: Track = field(init=False)
    side_mirror: Track = field(init=False)
    radio: Track = field(init=False)
    glow: Track = field(init=False)
    scenery: Track = field(init=False)

    def __post_init__(self) -> None:
        for name in ("lean", "head", "gear"):
            setattr(self, name, np.zeros((self.frames, 2)))
        for name in (
            "twist",
            "roll",
            "yaw",
            "pitch",
            "mouth",
            "lids",
            "wheel",
            "belt_hand",
            "visor",
            "glovebox",
            "mirror",
            "side_mirror",
            "glow",
            "scenery",
        ):
            setattr(self, name, np.zeros(self.frames))
        for name in ("acting", "right_size", "left_size", "right_grip", "left_grip", "belt"):
            setattr(self, name, np.ones(self.frames))
        self.radio, self.jacket = np.full(self.frames, 0.4), np.full(self.frames, -1.0)
        self.right, self.left = self.on_wheel("right"), self.on_wheel("left")

    def on_wheel(self, side: str) -> Track:
        """Return where a hand that holds the wheel is (T, 2), for the wheel's angle at each moment."""
        angle = self.wheel + (np.pi + 0.5 + self.appearance.grip if side == "right" else -0.5 - self.appearance.grip)
        return WHEEL + WHEEL_RADII * xy(np.cos(angle), np.sin(angle))

    @property
    def shoulders(self) -> Track:
        """The point between the shoulders (T, 2)."""
        return SHOULDERS + self.lean + xy(self.appearance.slouch, -self.appearance.height)

    def shoulder(self, side: str) -> Track:
        """Return the shoulder joint of one side (T, 2)."""
        half = 0.15 * self.appearance.build * (-1 if side == "right" else 1)
        return self.shoulders + half * xy(np.cos(self.twist), np.sin(self.twist)) + xy(0, 0.045)

    @property
    def skull(self) -> Track:
        """Centre of the head (T, 2): the neck carries it, a nod lowers it, turning and tilting shift it."""
        up = 0.215 * self.appearance.head - 0.095 * np.maximum(self.pitch, 0) - 0.012 * np.minimum(self.pitch, 0)
        tilt = self.roll + 0.5 * self.twist
        along = xy(np.sin(tilt) + 0.09 * self.yaw, -np.cos(tilt))
        return self.shoulders + up[:, None] * along + self.head

    def face(self, dx: ArrayLike, dy: ArrayLike) -> Track:
        """Return a point of the face (T, 2): ``dx``, ``dy`` are in scene units on a face that looks into the camera.

        Features slide over the head as it turns, which is all that is left of the third dimension.
        """
        appearance = self.appearance
        rx, ry = 0.098 * appearance.head, 0.13 * appearance.head * appearance.long_face
        u, v = np.asarray(dx) / 0.098, np.asarray(dy) / 0.13
        sideways = np.sin(np.arcsin(np.clip(u, -1, 1)) + 0.75 * self.yaw)
        down = np.sin(np.arcsin(np.clip(v, -1, 1)) + 0.42 * self.pitch)
        x, y = rx * sideways, ry * down
        cos, sin = np.cos(self.roll), np.sin(self.roll)
        return self.skull + xy(cos * x - sin * y, sin * x + cos * y)
