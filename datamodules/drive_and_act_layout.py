"""What Drive&Act fixes: its views, its classes, and where its folders and files lie."""

from __future__ import annotations

from pathlib import Path

# The end of a view's file ids: near-infrared cameras are numbered.
VIEWS = {
    "inner_mirror": "ids_1",
    "a_column_co_driver": "ids_2",
    "ceiling": "ids_3",
    "steering_wheel": "ids_4",
    "a_column_driver": "ids_5",
    "kinect_color": "kinect_color",
    "kinect_ir": "kinect_ir",
    "kinect_depth": "kinect_depth",
}

# Fixed, not taken from the lists: a split in which a class does not occur must not renumber the others.
EVALUATED = (
    "closing_bottle",
    "closing_door_inside",
    "closing_door_outside",
    "closing_laptop",
    "drinking",
    "eating",
    "entering_car",
    "exiting_car",
    "fastening_seat_belt",
    "fetching_an_object",
    "interacting_with_phone",
    "looking_or_moving_around (e.g. searching)",
    "opening_backpack",
    "opening_bottle",
    "opening_door_inside",
    "opening_door_outside",
    "opening_laptop",
    "placing_an_object",
    "preparing_food",
    "pressing_automation_button",
    "putting_laptop_into_backpack",
    "putting_on_jacket",
    "putting_on_sunglasses",
    "reading_magazine",
    "reading_newspaper",
    "sitting_still",
    "taking_laptop_from_backpack",
    "taking_off_jacket",
    "taking_off_sunglasses",
    "talking_on_phone",
    "unfastening_seat_belt",
    "using_multimedia_display",
    "working_on_laptop",
    "writing",
)
# Annotated in the list without splits, but in none of the splits. Last, so that the first 34 labels are the same.
UNEVALUATED = (
    "closing_backpack",
    "looking_back_left_shoulder",
    "looking_back_right_shoulder",
    "moving_towards_door",
    "standing_by_the_door",
)

# Levels that unpacking and copying add above the folders of the views.
_VIDEO_LEVELS = (".", "data")
_LIST_LEVELS = (
    "activities_3s",
    "iccv_activities_3s/activities_3s",
    "iccv_activities_3s",
    "data/activities_3s",
    "data/iccv_activities_3s/activities_3s",
    "data/iccv_activities_3s",
    "data",
    ".",
)


def list_name(level: str, split: int | None, part: str) -> str:
    """The file name of a list of chunks; ``split`` None is the one without splits."""
    return f"{level}.chunks_90.csv" if split is None else f"{level}.chunks_90.split_{split}.{part}.csv"


def find_videos(root: Path, view: str) -> Path:
    """The folder of a view's videos.

    Raises:
        FileNotFoundError: If it is nowhere; a name that is no view's is a ValueError.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"Expected the folders of the views in {root}, which does not exist. Set data.root.")
    places = [root / level / view for level in _VIDEO_LEVELS]
    for place in places:
        if place.is_dir():
            return place
    if view not in VIEWS:
        there = sorted(folder.name for folder in root.iterdir() if folder.is_dir())
        raise ValueError(
            f"Expected data.view to be one of {', '.join(VIEWS)}, or a folder of {root}, got {view!r}. "
            f"Folders there: {', '.join(there[:20]) or 'none'}."
        )
    raise FileNotFoundError(
        f"Expected the videos of the view {view} in {' or '.join(map(str, places))}, found no such folder. "
        "Set data.root to the folder that holds the view's, or data.view to a view that you have."
    )


def find_lists(annotations: Path, view: str, level: str) -> Path:
    """The folder of a view's lists: the view's own, or ``annotations`` itself where the lists lie in it.

    Raises:
        FileNotFoundError: If there is none.
    """
    if not annotations.is_dir():
        raise FileNotFoundError(
            f"Expected the annotations (activities_3s) in {annotations}, which does not exist. Set data.annotations."
        )
    places = [annotations / above / view for above in _LIST_LEVELS] + [annotations]
    for place in places:
        if any(place.glob(f"{level}.chunks_90*.csv")):
            return place
    raise FileNotFoundError(
        f"Expected lists {level}.chunks_90*.csv of the view {view}, found none. Looked in "
        f"{', '.join(str(place) for place in places)}. Set data.annotations to the folder that holds activities_3s, or "
        "to that of the lists."
    )
