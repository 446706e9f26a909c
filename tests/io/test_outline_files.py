"""Outlines come back as the pixels they were drawn around."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest
import roifile
from pycocotools import mask as coco_masks

from napari_cfrseg.annotation.annotator import Annotator
from napari_cfrseg.annotation.events import MaskImported, ObjectCreated, Undone
from napari_cfrseg.errors import SessionError
from napari_cfrseg.io import outline_files
from napari_cfrseg.io.object_exports import (
    ExportedObject,
    write_coco,
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


@pytest.mark.parametrize("ending", [".geojson", ".zip", ".coco.json"])
def test_what_was_exported_comes_back(tmp_path, ending):
    path, labels = tmp_path / f"a{ending}", stack()
    write = {".geojson": write_geojson, ".zip": write_imagej_rois}.get(ending)
    if write is None:
        write_coco(path, labels, ROWS)
    else:
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
    if ending != ".zip":
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
    mask = outline.runs((20, 30)).mask()
    assert (mask.box, mask.area) == ((1, 2, 5, 6), 16)
    roi = roifile.ImagejRoi.frompoints([[2, 1], [6, 1], [6, 5], [2, 5]], name="a")
    roi.position = 3
    roi.tofile(str(tmp_path / "a.roi"))
    (outline,) = read_outlines(tmp_path / "a.roi")
    assert outline.runs((20, 30)).mask().box == (1, 2, 5, 6)
    assert outline.plane((0,), ("z",)) == (2,)
    assert outline.plane((0, 1), ("t", "z")) == (0, 1)
    oval = roifile.ImagejRoi(
        roitype=roifile.ROI_TYPE.OVAL, left=4, top=2, right=24, bottom=12
    )
    oval.tofile(str(tmp_path / "oval.roi"))
    (outline,) = read_outlines(tmp_path / "oval.roi")
    assert outline.runs((20, 30)).mask().area == pytest.approx(np.pi * 10 * 5, rel=0.05)


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


def square(first: float, end: float, **said) -> dict:
    ring = [[first, first], [end, first], [end, end], [first, end], [first, first]]
    geometry = {"type": "Polygon", "coordinates": [ring]}
    return {"type": "Feature", "geometry": geometry, "properties": said}


def written(path, features, start: str = ""):
    path.write_text(start + json.dumps(features), "utf-8")
    return read_outlines(path)


def test_the_smallest_of_outlines_that_overlap_has_the_pixels(tmp_path):
    found = [square(5, 95, name="tissue"), square(10, 20, name="cell")]
    found += [square(12, 15, name="nucleus"), square(12, 15, name="again")]
    outlines = written(tmp_path / "a.geojson", found)
    made = events_from_outlines(outlines, (100, 100))
    assert sum(isinstance(e, MaskImported) for e in made) == 3  # of 4 outlines
    annotator = applied(made, (100, 100))
    names = {i: state.name for i, state in annotator.objects.items()}
    assert names == {1: "tissue", 2: "cell", 3: "nucleus"}
    areas = np.bincount(annotator.labels_array(()).ravel())
    assert areas[1:].tolist() == [8000, 91, 9]


@pytest.mark.parametrize("ending", [".geojson", ".zip"])
def test_objects_of_one_name_come_back_as_they_were(tmp_path, ending):
    path, labels = tmp_path / f"a{ending}", np.zeros((2, 20, 20), np.int32)
    labels[:, 2:5, 2:5], labels[:, 9:15, 9:15] = 1, 2
    labels[0, 17:, 17:], labels[1, :2, 17:] = 3, 4
    rows = [ExportedObject(i, "cell") for i in (1, 2, 3, 4)]
    write = write_geojson if ending == ".geojson" else write_imagej_rois
    write(path, labels, rows, AXES[1:])
    outlines = read_outlines(path)
    made = events_from_outlines(outlines, labels.shape, axes=("z",), here=(0,))
    annotator = applied(made, labels.shape)
    assert np.array_equal(annotator.labels_array((2,)), labels)
    assert {o.name for o in annotator.objects.values()} == {"cell"}


def test_a_name_given_twice_on_a_plane_joins_nothing(tmp_path):
    found = [square(1, 4, name="cell"), square(8, 12, name="cell")] * 2
    found = json.loads(json.dumps(found))
    for feature, z in zip(found, (0, 0, 1, 1), strict=True):
        feature["geometry"]["plane"] = {"z": z}
    outlines = written(tmp_path / "a.geojson", found)
    made = events_from_outlines(outlines, (2, 20, 20), axes=("z",), here=(0,))
    assert sum(isinstance(e, ObjectCreated) for e in made) == 4


@pytest.mark.parametrize("place", ["Infinity", "1" * 401])
def test_numbers_without_end_are_one_line(tmp_path, place):
    path = tmp_path / "a.geojson"
    feature = square(1, 4)
    feature["geometry"]["plane"] = {"z": 7}
    path.write_text(json.dumps([feature]).replace("7", place).replace("4", place, 1))
    with pytest.raises(SessionError, match="no outlines can be read"):
        read_outlines(path)


@pytest.mark.parametrize("far", [1e5, 1e30, 1e300])
def test_an_outline_far_around_the_image_covers_it(tmp_path, far):
    diamond = square(-far, far)
    ring = [[0, -far], [far, 0], [0, far], [-far, 0]]
    diamond["geometry"]["coordinates"] = [ring]
    found = written(tmp_path / "a.geojson", [square(-far, far), diamond])
    assert [outline.runs((20, 30)).mask().area for outline in found] == [600, 600]


def test_what_has_no_pixel_is_left_out_and_the_rest_is_read(tmp_path):
    sliver, elsewhere = square(3.6, 3.9), square(50, 60)
    later, line = square(1, 4), square(1, 4)
    later["geometry"]["plane"] = {"z": 10**30}
    line["geometry"]["coordinates"] = [[[1, 1], [4, 4]]]
    ringed = square(2, 6, name="kept")
    ringed["geometry"]["coordinates"] += [[[3, 3], [4, 4]], []]
    nothing = {"type": "Feature", "geometry": None, "properties": {}}
    found = [sliver, elsewhere, later, nothing, line, ringed]
    outlines = written(tmp_path / "a.geojson", found, "\ufeff")
    assert len(outlines) == 5
    made = events_from_outlines(outlines, (1, 20, 20), axes=("z",), here=(0,))
    created, imported = made
    assert (created.name, imported.mask.size) == ("kept", 16)
    with pytest.raises(SessionError, match="no outline has a pixel of the image"):
        events_from_outlines(outlines[:4], (1, 20, 20), axes=("z",), here=(0,))


def test_archives_that_unpack_to_too_much_are_refused_unread(tmp_path, monkeypatch):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(3):
            archive.writestr(f"{number}.roi", bytes(1 << 20))
    monkeypatch.setattr(outline_files, "MOST_BYTES", 2 << 20)
    with pytest.raises(SessionError, match="larger than"):
        read_outlines(path)
    monkeypatch.setattr(outline_files, "MOST_BYTES", 4 << 20)
    monkeypatch.setattr(outline_files, "MOST_ENTRIES", 2)
    with pytest.raises(SessionError, match="more than 2 files"):
        read_outlines(path)


def test_outlines_that_share_an_edge_share_no_pixel(tmp_path):
    left, right = square(0.5, 5.5), square(0.5, 5.5)
    (ring,) = right["geometry"]["coordinates"]
    right["geometry"]["coordinates"] = [[[x + 5, y] for x, y in ring]]
    both = square(0.5, 5.5)
    both["geometry"]["type"] = "MultiPolygon"
    both["geometry"]["coordinates"] = [
        part["geometry"]["coordinates"] for part in (left, right)
    ]
    holed = square(0.5, 10.5)
    holed["geometry"]["coordinates"] += left["geometry"]["coordinates"]
    found = written(tmp_path / "a.geojson", [left, right, both, holed])
    masks = [outline.runs((20, 30)).mask() for outline in found]
    assert [mask.area for mask in masks] == [25, 25, 50, 75]
    assert masks[2].box == (0, 0, 5, 10)


def test_outlines_beside_the_image_and_too_many_are_refused(tmp_path):
    path = tmp_path / "a.geojson"
    write_geojson(path, stack(), ROWS, AXES)
    outlines = read_outlines(path)
    with pytest.raises(SessionError, match="no outline has a pixel of the image"):
        events_from_outlines(outlines, (1, 1, 20, 30), axes=AXES, here=(0, 0))
    with pytest.raises(SessionError, match="3 objects: 2 are the most"):
        events_from_outlines(outlines, stack().shape, axes=AXES, here=(0, 0), most=2)


def test_coco_of_other_tools_is_read(tmp_path):
    mask = np.zeros((20, 30), bool)
    mask[2:9, 3:17], mask[4:6, 5:9], mask[15:, 29] = True, False, True
    packed = coco_masks.encode(np.asfortranarray(mask.astype(np.uint8)))
    packed["counts"] = packed["counts"].decode()
    square = [3, 2, 7, 2, 7, 6, 3, 6]
    shapes = [packed, [square, [20, 10, 24, 10, 24, 14, 20, 14]], [], [[1, 1, 2, 2]]]
    annotations = [
        {"id": i, "image_id": 9, "category_id": 1, "segmentation": shape, "iscrowd": 0}
        for i, shape in enumerate(shapes)
    ]
    categories = [{"id": 1, "name": "cell"}]
    path = tmp_path / "instances.json"

    larger = coco_masks.encode(np.ones((40, 40), np.uint8, "F"))["counts"].decode()

    def read(annotations):
        images = [{"id": i, "file_name": f"{i}.png"} for i in (8, 9)]
        whole = {"images": images, "categories": categories, "annotations": annotations}
        path.write_text(json.dumps(whole))
        return read_outlines(path)

    found = read(annotations)
    assert np.array_equal(found[0].runs((20, 30)).mask().to_mask((20, 30)), mask)
    assert [outline.runs((20, 30)).mask().area for outline in found[1:]] == [32, 0, 0]
    assert found[0].runs((5, 30)).mask().area == mask[:5].sum()
    assert {outline.object_class for outline in found} == {"cell"}
    for size, counts in (
        ([20, 30], [5, 700]),
        ([20, 30], larger),
        ([9], []),
        (7, []),
        ([9**9] * 2, [1, 9**17]),
    ):
        bad = {"size": size, "counts": counts}
        with pytest.raises(SessionError, match=r"instances\.json: no outlines can be"):
            read([{**annotations[0], "segmentation": bad}])
    with pytest.raises(SessionError, match="of 2 images: keep those of one"):
        read([annotations[0], {**annotations[1], "image_id": 8}])


def test_of_coco_s_images_the_one_of_that_name_is_read(tmp_path):
    square = [3, 2, 7, 2, 7, 6, 3, 6]
    files = ["train/a.png", "train\\b.png", "c.png", "d.png"]
    whole = {
        "images": [{"id": i, "file_name": name} for i, name in enumerate(files)],
        "annotations": [
            {"image_id": i, "segmentation": [square], "name": f"of {i}"}
            for i in (0, 0, 1, 2)
        ],
    }
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(whole))
    for names, wanted in (
        ({"a.png"}, ["of 0", "of 0"]),
        ({"my image", "b"}, ["of 1"]),
        ({"c"}, ["of 2"]),
    ):
        assert [outline.name for outline in read_outlines(path, names)] == wanted
    for names in ((), {"e"}, {"a", "b"}):
        with pytest.raises(SessionError, match=r"of 3 images: .*a\.png, b\.png, c"):
            read_outlines(path, names)
    with pytest.raises(SessionError, match="holds no outlines"):
        read_outlines(path, {"d"})


BESIDE = [10, 10, 30, 10, 30, 30, 10, 30], [20, 10, 40, 10, 40, 30, 20, 30]
INSIDE = [10, 10, 30, 10, 30, 30, 10, 30], [15, 15, 20, 15, 20, 20, 15, 20]


@pytest.mark.parametrize(("parts", "area"), [(BESIDE, 600), (INSIDE, 400)])
def test_coco_s_polygons_of_one_object_are_joined(tmp_path, parts, area):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"annotations": [{"segmentation": parts}]}))
    (outline,) = read_outlines(path)
    wanted = coco_masks.frPyObjects([list(map(float, p)) for p in parts], 50, 50)
    mask = outline.runs((50, 50)).mask().to_mask((50, 50))
    assert mask.sum() == area
    assert np.array_equal(mask, coco_masks.decode(coco_masks.merge(wanted)) > 0)


def test_other_forms_of_coco_are_read(tmp_path):
    path, square = tmp_path / "a.json", [3, 2, 7, 2, 7, 6, 3, 6]
    runs = {"size": [20, 30], "counts": [43, 2, 555]}
    sam = {"image": {"image_id": 1}, "annotations": [{"segmentation": runs}]}
    flat = {"id": 1, "image_id": 1, "segmentation": square, "name": None}
    empty = {"id": 1, "plane": None, "width": 30, "height": 20}
    for whole, area in (
        ([{"image_id": 9, "segmentation": runs, "score": 0.9}], 2),
        (sam, 2),
        ({"annotations": [flat], "categories": [{"id": 1}], "images": [empty]}, 16),
    ):
        path.write_text(json.dumps(whole))
        (outline,) = read_outlines(path)
        assert outline.runs((20, 30)).mask().area == area
        assert (outline.name, outline.object_class, outline.index) == ("", "", ())
    assert outline.size == (20, 30)
    path.write_text(json.dumps([{"label": "cell", "points": []}]))
    with pytest.raises(SessionError, match="'geometry' is missing"):
        read_outlines(path)


def test_a_small_mask_of_a_huge_image_is_read_and_a_huge_one_refused(tmp_path):
    path, side = tmp_path / "a.json", 100_000
    low = side * 50 + side - 9  # from the lower edge on, round the corner, and below
    shapes = [[low - side * 40, 5, side * 40, 4], [low, 20, side * side - low - 20]]
    for counts, area in zip(shapes, (9, 20), strict=True):
        shape = {"size": [side, side], "counts": counts}
        path.write_text(json.dumps([{"segmentation": shape}]))
        (outline,) = read_outlines(path)
        assert outline.runs((side, side)).mask().area == area
    shape = {"size": [side, side], "counts": [0, 10**9]}
    path.write_text(json.dumps([{"segmentation": shape}]))
    with pytest.raises(SessionError, match="a mask of 100000 × 100000 pixels"):
        read_outlines(path)
