from collections import Counter
from itertools import pairwise

from datamodules.limit import limit_per_class
from sightline.video.clips import Clip

# Class 0: 5 clips of a, 1 of b, 1 of c; class 1: 3 clips of a.
CLIPS = [
    Clip(f"{label}{group}{number}", "", label, group)
    for label, group, count in [(0, "a", 5), (0, "b", 1), (1, "a", 3), (0, "c", 1)]
    for number in range(count)
]


def test_groups_take_turns():
    for seed in range(5):
        kept = limit_per_class(CLIPS, 4, seed)
        groups = Counter((clip.label, clip.group) for clip in kept)
        assert groups == {(0, "a"): 2, (0, "b"): 1, (0, "c"): 1, (1, "a"): 3}
    assert Counter(clip.group for clip in limit_per_class(CLIPS[:6] + CLIPS[9:], 2)).most_common()[0][1] == 1


def test_order_stays_and_nothing_is_cut_without_need():
    assert limit_per_class(CLIPS, 7) == CLIPS
    kept = limit_per_class(CLIPS, 3)
    assert kept == [clip for clip in CLIPS if clip in kept]


def test_a_smaller_limit_keeps_a_part_of_a_larger_one():
    choices = [{clip.sample_id for clip in limit_per_class(CLIPS, limit, seed=2)} for limit in range(1, 8)]
    assert all(small < large for small, large in pairwise(choices))
    assert [len(choice) for choice in choices] == [2, 4, 6, 7, 8, 9, 10]


def test_the_choice_depends_on_seed_and_content_only():
    def names(clips, seed):
        return sorted(clip.sample_id for clip in limit_per_class(clips, 2, seed))

    assert names(CLIPS[::-1], 0) == names(CLIPS, 0)
    assert len({tuple(names(CLIPS, seed)) for seed in range(10)}) > 3
    # Another class's clips do not matter.
    assert [name for name in names(CLIPS, 0) if name[0] == "1"] == names([c for c in CLIPS if c.label == 1], 0)
