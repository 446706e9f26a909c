"""Outlines come back as the pixels they were drawn around."""

from __future__ import annotations

import json

import numpy as np
import pytest
import roifile

from napari_cfrseg.annotation.annotator import Annotator
from napari_cfrseg.annotation.events import Undone
from napari_cfrseg.errors import SessionError
from napari_cfrseg.io.object_exports import (
    ExportedObject,
    write_geojson,
    write_imagej_rois,
)
from napari_cfrseg.io.outline_files import read_outlines
from napari_cfrseg.session.imported_events import events_from_outlines

ROWS = (
    ExportedObject(1, "ring", object_class="cell"),
    ExportedObject(2, "two parts"),
    ExportedObject(3, "pixel"),
)
AXES = ("t", "z", "y", "x")


def stack() -> np.ndarray:
    """(t, z, y, x): a ring on two planes, an object of two parts, and a pixel."""
    labels = np.zeros((2, 3, 20, 30), np.int32)
    labels[1, 0, 2:12, 3:14], labels[1, 0, 5:8, 6:9] = 1, 0
    labels[1, 2, 3:9, 4:9] = 1
    labels[0, 1, 0:3, 0:5] = labels[0, 1, 15:20, 25:30] = 2
    labels[0, 1, 9, 9] = 3
    return labels


def applied(events, shape) -> Annotator:
    annotator = Annotator(lambda _: np.zeros(shape[-2:], np.uint8), shape[-2:])
    for event in events:
        annotator.apply(event)
    return annotator


@pytest.mark.parametrize("ending", [".geojson", ".zip"])
def test_what_was_exported_comes_back(tmp_path, ending):
    path, labels = tmp_path / f"a{ending}", stack()
    write = write_geojson if ending == ".geojson" else write_imagej_rois
    write(path, labels, ROWS, AXES)
    outlines = read_outlines(path)
    made = events_from_outlines(outlines, labels.shape, axes=AXES[:2], here=(0, 0))
    annotator = applied(made, labels.shape)
    names = {i: state.name for i, state in annotator.objects.items()}
    found = annotator.labels_array(labels.shape[:2])
    numbers = {row.object_id: row.name for row in ROWS}
    for number, name in names.items():
        (own,) = [i for i, said in numbers.items() if said == name]
        assert np.array_equal(found == number, labels == own)
    assert sorted(names.values()) == sorted(numbers.values())
    if ending == ".geojson":
        classes = {o.name: o.object_class for o in annotator.objects.values()}
        assert classes == {"ring": "cell", "two parts": "", "pixel": ""}
    annotator.apply(Undone())
    assert not annotator.objects


def test_qupath_s_and_imagej_s_own_outlines_are_read(tmp_path):
    path = tmp_path / "qupath.geojson"
    corners = [[2.0, 1.0], [6.0, 1.0], [6.0, 5.0], [2.0, 5.0], [2.0, 1.0]]
    shapes = [
        {"type": "Polygon", "coordinates": [corners]},
        {"type": "LineString", "coordinates": corners},
    ]
    features = [{"type": "Feature", "geometry": s, "properties": {}} for s in shapes]
    path.write_text(json.dumps(features))
    (outline,) = read_outlines(path)
    mask = outline.mask((20, 30))
    assert (mask.box, mask.area) == ((1, 2, 5, 6), 16)
    roi = roifile.ImagejRoi.frompoints([[2, 1], [6, 1], [6, 5], [2, 5]], name="a")
    roi.position = 3
    roi.tofile(str(tmp_path / "a.roi"))
    (outline,) = read_outlines(tmp_path / "a.roi")
    assert outline.mask((20, 30)).box == (1, 2, 5, 6)
    assert outline.plane((0,), ("z",)) == (2,)
    assert outline.plane((0, 1), ("t", "z")) == (0, 1)
    oval = roifile.ImagejRoi(
        roitype=roifile.ROI_TYPE.OVAL, left=4, top=2, right=24, bottom=12
    )
    oval.tofile(str(tmp_path / "oval.roi"))
    (outline,) = read_outlines(tmp_path / "oval.roi")
    assert outline.mask((20, 30)).area == pytest.approx(np.pi * 10 * 5, rel=0.05)


@pytest.mark.parametrize(
    "text",
    ["", "[", "{}", "[]", "[1]", "7", '{"features": [{"geometry": null}]}',
     '[{"geometry": {"type": "Polygon", "coordinates": [[[1]]]}}]',
     '[{"geometry": {"type": "Polygon", "coordinates": [[["a", 2]]]}}]',
     '[{"geometry": {"type": "Polygon", "coordinates": [[[1,2],[3,NaN],[5,6]]]}}]'],
)  # fmt: skip
@pytest.mark.parametrize("ending", [".geojson", ".zip", ".roi"])
def test_what_is_no_file_of_outlines_is_one_line(tmp_path, text, ending):
    path = tmp_path / f"a{ending}"
    path.write_text(text)
    with pytest.raises(SessionError, match=f"a{ending}") as said:
        read_outlines(path)
    assert len(str(said.value).splitlines()) == 1


def test_outlines_beside_the_image_and_too_many_are_refused(tmp_path):
    path = tmp_path / "a.geojson"
    write_geojson(path, stack(), ROWS, AXES)
    outlines = read_outlines(path)
    with pytest.raises(SessionError, match="'two parts' does not lie on the image"):
        events_from_outlines(outlines, (2, 1, 20, 30), axes=AXES, here=(0, 0))
    with pytest.raises(SessionError, match="3 objects: 2 are the most"):
        events_from_outlines(outlines, stack().shape, axes=AXES, here=(0, 0), most=2)
