import random

import pytest
import torch
from torchvision.transforms.v2 import functional as F

from datamodules.augmentation import Augmentation, augment

SIZE = 24
EACH = {
    "crop": Augmentation(random_resized_crop=(0.2, 0.6)),
    "flip": Augmentation(flip_probability=0.5),
    "color": Augmentation(color_jitter=0.5),
    "rand": Augmentation(rand_augment=(2, 15)),
}
ALL = Augmentation(0.5, (0.2, 0.6), 0.5, (2, 15))


def noise(clips: int = 6, size: int = SIZE) -> torch.Tensor:
    return torch.randint(
        0, 256, (clips, 3, 4, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


def steps_of(augmentation: Augmentation):
    return augmentation.steps(SIZE, antialias=True)


def test_off_means_the_same_tensor():
    assert steps_of(Augmentation()) == {}
    clips = noise()
    assert augment(clips, range(6), {}) is clips


def test_an_empty_batch_stays_one():
    assert augment(noise(0), [], steps_of(ALL)).shape == (0, 3, 4, SIZE, SIZE)


def test_flip_is_torch_flip_at_its_rate():
    clips = noise(200, 2)
    assert torch.equal(augment(clips, range(200), steps_of(Augmentation(flip_probability=1.0))), clips.flip(-1))
    some = augment(clips, range(200), steps_of(EACH["flip"]))
    flipped = [torch.equal(found, clip.flip(-1)) for found, clip in zip(some, clips, strict=True)]
    assert all(
        torch.equal(found, clip) for found, clip, is_flipped in zip(some, clips, flipped, strict=True) if not is_flipped
    )
    assert 70 < sum(flipped) < 130  # 200 draws at one half: 100 +- 7


@pytest.mark.parametrize("name", [*EACH, "all"])
def test_frames_of_a_clip_are_changed_alike_and_clips_each_in_their_way(name):
    steps = steps_of(ALL if name == "all" else EACH[name])
    # Every clip is the same image four times: what differs afterwards is due to the draws.
    clips = noise(1)[:, :, :1].repeat(8, 1, 4, 1, 1)
    found = augment(clips, range(8), steps)
    assert found.dtype == torch.uint8
    assert found.shape == (8, 3, 4, SIZE, SIZE)
    for clip in found:
        assert all(torch.equal(clip[:, 0], clip[:, frame]) for frame in range(1, 4))
    assert len({clip.numpy().tobytes() for clip in found}) > (1 if name == "flip" else 4)


@pytest.mark.parametrize("name", EACH)
def test_a_clip_depends_on_its_seed_only(name):
    steps, clips, seeds = steps_of(EACH[name]), noise(), [11, 7, 5, 3, 2, 1]
    found = augment(clips, seeds, steps)
    torch.manual_seed(3)  # torch's own generator neither matters nor moves
    before = torch.get_rng_state()
    for place in (4, 0):
        [alone] = augment(clips[place : place + 1], seeds[place : place + 1], steps)
        assert torch.equal(alone, found[place])
    assert torch.equal(torch.get_rng_state(), before)


def test_one_step_does_not_move_the_draws_of_another():
    clips = noise()
    flipped = augment(clips, range(6), steps_of(EACH["flip"]))
    colored = augment(flipped, range(6), steps_of(EACH["color"]))
    both = Augmentation(flip_probability=0.5, color_jitter=0.5)
    assert torch.equal(augment(clips, range(6), steps_of(both)), colored)


def test_the_crop_is_a_resized_part_of_the_square():
    # Brightness rises linearly to the right and in the second channel downwards, so a part tells where it was cut.
    ramp = torch.arange(120.0).expand(120, 120)
    image = torch.stack([ramp, ramp.T, torch.zeros(120, 120)]).to(torch.uint8)
    clips = image[None, :, None].repeat(40, 1, 2, 1, 1)
    found = augment(clips, range(40), Augmentation(random_resized_crop=(0.25, 0.5)).steps(60, antialias=False)).float()
    width = (found[:, 0, 0, 30, 59] - found[:, 0, 0, 30, 0]) * 60 / 59
    height = (found[:, 1, 0, 59, 30] - found[:, 1, 0, 0, 30]) * 60 / 59
    share, ratio = width * height / 120**2, width / height
    # Two grey levels of some 70 are lost to rounding.
    assert 0.25 * 0.93 <= share.min() < 0.32
    assert 0.43 < share.max() <= 0.5 * 1.07
    assert 3 / 4 * 0.95 <= ratio.min() < 0.95
    assert 1.05 < ratio.max() <= 4 / 3 * 1.05
    assert found[:, 0, 0, 30, 0].std() > 5


def test_color_keeps_grey_grey_and_its_strength():
    grey = torch.full((50, 3, 2, 4, 4), 100, dtype=torch.uint8)
    found = augment(grey, range(50), steps_of(Augmentation(color_jitter=0.2)))
    assert torch.equal(found[:, 0], found[:, 1])
    assert torch.equal(found[:, 0], found[:, 2])
    # Contrast and saturation leave an even grey alone, so this is brightness: 100 times 0.8 to 1.2.
    assert 79 <= found.min() < 85
    assert 115 < found.max() <= 120


def test_rand_augment_at_magnitude_zero_leaves_geometry():
    # Of its operations only those without a magnitude, and posterising to 8 bits, change anything at magnitude 0.
    clips = noise(12)
    found = augment(clips, range(12), steps_of(Augmentation(rand_augment=(1, 0))))
    for clip, before in zip(found, clips, strict=True):
        frames = before.transpose(0, 1)
        without = (frames, F.autocontrast(frames), F.equalize(frames), F.solarize(frames, 255.0))
        assert any(torch.equal(clip.transpose(0, 1), expected) for expected in without)


@pytest.mark.parametrize(
    "options",
    [
        {"flip_probability": 1.5},
        {"color_jitter": -0.1},
        {"random_resized_crop": (0.0, 1.0)},
        {"random_resized_crop": (0.8, 0.5)},
        {"random_resized_crop": (0.5,)},
        {"rand_augment": (0, 9)},
        {"rand_augment": (2, 31)},
        {"rand_augment": (2,)},
    ],
)
def test_refuses_nonsense(options):
    with pytest.raises(ValueError, match=f"Expected {next(iter(options))}"):
        Augmentation(**options)


def test_seeds_may_be_large():
    assert augment(noise(1), [random.Random(0).getrandbits(63)], steps_of(ALL)).shape == (1, 3, 4, SIZE, SIZE)
