import numpy as np
import pytest

from sightline.report.figures.contact_sheet import contact_sheet, strip

CLIP = np.arange(2 * 3 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 3)


def test_frames_stand_side_by_side():
    image = strip(CLIP)
    assert image.shape == (3, 4 + 1 + 4, 3)
    assert np.array_equal(image[:, :4], CLIP[0])
    assert (image[:, 4] == 255).all()
    assert np.array_equal(image[:, 5:], CLIP[1])


def test_every_clip_has_its_caption(tmp_path):
    names = ["walk  |  a$b$c.avi", "sit  |  _.avi"]
    figure = contact_sheet([CLIP, CLIP[:, ::-1]], names, "Training")
    assert [axes.get_xlabel() for axes in figure.axes] == names
    assert np.array_equal(figure.axes[1].images[0].get_array(), strip(CLIP[:, ::-1]))
    figure.savefig(tmp_path / "sheet.png", dpi=50)
    assert figure.get_suptitle() == "Training"


def test_bad_input():
    with pytest.raises(ValueError, match="at least one clip and a caption for each, got 0 and 0"):
        contact_sheet([], [], "")
    with pytest.raises(ValueError, match="got 1 and 2"):
        contact_sheet([CLIP], ["a", "b"], "")
