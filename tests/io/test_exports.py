"""Every export is read back by the library of its format, pixel by pixel."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest
import roifile
import shapely
import tifffile
import zarr
from pycocotools.coco import COCO
from skimage.draw import polygon2mask

from napari_cfrseg.io.images import open_image
from napari_cfrseg.io.label_exports import write_labels, write_ome_tiff, write_ome_zarr
from napari_cfrseg.io.named_axes import length_sign, time_sign, unit_name
from napari_cfrseg.io.object_exports import (
    ExportedObject,
    plane_place,
    write_coco,
    write_geojson,
    write_imagej_rois,
)

ROWS = (
    ExportedObject(1, "ring", "#ff0080", "vesicle"),
    ExportedObject(3, "../../two: parts", "#00ff00"),
    ExportedObject(4, "../../two: parts", "#0000ff"),
)


def plane() -> np.ndarray:
    out = np.zeros((20, 24), np.int32)
    out[2:10, 3:12] = 1
    out[4:7, 5:9] = 0
    out[5, 6] = 1  # an island in the hole
    out[12:14, 1] = 3
    out[14:18, 2:4] = 3  # touches at a corner only
    out[0, 0] = 4
    out[19, 23] = 300
    return out


def stack() -> np.ndarray:
    """Return (T, Z, Y, X) labels, other ones on each plane."""
    out = np.zeros((2, 3, 20, 24), np.int32)
    out[0, 0], out[0, 2], out[1, 2] = plane(), plane()[::-1], plane()[:, ::-1]
    return out


def filled(ring: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return polygon2mask(shape, np.asarray(ring)[:, ::-1] - 0.5)


def test_geojson_by_shapely(tmp_path):
    write_geojson(tmp_path / "a.geojson", stack(), ROWS, ("t", "z", "y", "x"))
    back = np.zeros_like(stack())
    rows, columns = np.mgrid[:20, :24] + 0.5
    for feature in json.loads((tmp_path / "a.geojson").read_text())["features"]:
        found = shapely.from_geojson(json.dumps(feature["geometry"]))
        assert found.is_valid
        where = feature["geometry"]["plane"]
        assert where["c"] == -1
        mask = shapely.contains_xy(found, columns, rows)
        assert found.area == mask.sum()
        back[where["t"], where["z"]][mask] = feature["properties"]["object_id"]
    np.testing.assert_array_equal(back, stack())


def corners() -> np.ndarray:
    """Return two holes, and a hole and the outside, that touch at corners only."""
    out = np.zeros((12, 12), np.int32)
    out[1:11, 1:11] = 1
    out[4, 4] = out[5, 5] = out[9, 9] = out[10, 10] = 0
    return out


@pytest.mark.parametrize("seed", range(4))
def test_polygons_never_touch_themselves(tmp_path, seed):
    random = np.random.default_rng(seed).integers(0, 2, (12, 12))
    labels = random if seed else corners()
    write_geojson(tmp_path / "a.geojson", labels)
    (feature,) = json.loads((tmp_path / "a.geojson").read_text())["features"]
    found = shapely.from_geojson(json.dumps(feature["geometry"]))
    if found.geom_type == "Polygon":
        found = shapely.multipolygons([found])
    assert all(part.is_valid for part in found.geoms)
    rows, columns = np.mgrid[:12, :12] + 0.5
    np.testing.assert_array_equal(shapely.contains_xy(found, columns, rows), labels)


def test_imagej_rois_by_roifile(tmp_path):
    path = tmp_path / "a.zip"
    write_imagej_rois(path, stack(), ROWS, ("t", "z", "y", "x"))
    names = zipfile.ZipFile(path).namelist()
    assert len(names) == len(set(names)) == 12  # four objects on three planes
    assert not any(c in name for name in names for c in '/\\:*?"<>|')
    back = np.zeros_like(stack())
    numbers = {("ring", b"\xff\xff\x00\x80"): 1, ("Object 300", b"\xff" * 4): 300}
    numbers["../../two: parts", b"\xff\x00\xff\x00"] = 3
    numbers["../../two: parts", b"\xff\x00\x00\xff"] = 4
    for roi in roifile.roiread(path):
        mask = np.zeros(back.shape[-2:], bool)
        for ring in roi.coordinates(multi=True):
            mask ^= filled(ring, mask.shape)
        target = back[roi.t_position - 1, roi.z_position - 1]
        target[mask] = numbers[roi.name, roi.stroke_color]
        inside = np.argwhere(mask)
        assert (roi.top, roi.left) == tuple(inside.min(axis=0))
    np.testing.assert_array_equal(back, stack())


def test_imagej_rois_of_one_stack_say_their_slice(tmp_path):
    write_imagej_rois(tmp_path / "a.zip", stack()[0], ROWS)
    rois = roifile.roiread(tmp_path / "a.zip")
    assert {(roi.position, roi.z_position) for roi in rois} == {(1, 1), (3, 3)}


def test_coco_by_pycocotools(tmp_path):
    path = tmp_path / "a.coco.json"
    write_coco(path, stack(), ROWS, file_name="a.tif")
    coco = COCO(str(path))
    back = np.zeros_like(stack())
    planes = {i["id"]: tuple(i["plane"]) for i in coco.loadImgs(coco.getImgIds())}
    ordinary = coco.getAnnIds(iscrowd=False)
    assert len(ordinary) == len(coco.getAnnIds()) == 12
    for found in coco.loadAnns(ordinary):
        mask = coco.annToMask(found).astype(bool)
        assert mask.sum() == found["area"]
        rows, columns = np.nonzero(mask)
        box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
        assert found["bbox"] == [int(v) for v in box]
        is_ring = found["name"] == "ring"
        assert isinstance(found["segmentation"], dict) == is_ring  # it has a hole
        kind = coco.loadCats(found["category_id"])[0]["name"]
        assert kind == ("vesicle" if is_ring else "object")
        back[planes[found["image_id"]]][mask] = found["object_id"]
    np.testing.assert_array_equal(back, stack())


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("write", [write_labels, write_ome_tiff])
def test_planes_of_labels_are_never_colours(tmp_path, count, write):
    labels = np.stack([plane().astype(np.uint16)] * count)
    write(tmp_path / "a.tif", labels)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert "S" not in file.series[0].axes
        assert int(file.pages[0].photometric) == 1
        assert len(file.pages) == count
        assert file.series[0].axes.endswith("ZYX" if count > 1 else "YX")
        np.testing.assert_array_equal(file.asarray().reshape(labels.shape), labels)


@pytest.mark.parametrize(
    ("said", "name", "sign"),
    [
        ("um", "micrometer", ("µm", "")),
        ("centimetre", "centimeter", ("cm", "")),
        ("pm", "picometer", ("pm", "")),
        ("m", "meter", ("m", "")),
        ("sec", "second", ("pixel", "s")),
        ("Minutes", "minute", ("pixel", "min")),
        ("ms", "millisecond", ("pixel", "ms")),
        ("hours", "hour", ("pixel", "h")),
        ("parsec", "pixel", ("pixel", "")),
        (None, "pixel", ("pixel", "")),
    ],
)
def test_units_are_spelt_as_the_formats_spell_them(said, name, sign):
    assert unit_name(said) == name
    assert (length_sign(said), time_sign(said)) == sign


@pytest.mark.parametrize("ending", [".ome.tif", ".zarr"])
@pytest.mark.parametrize("source", ["ome", "imagej", "imagej in minutes", "ngff"])
def test_the_time_between_planes_is_kept(tmp_path, source, ending):
    labels = np.stack([plane(), plane()[::-1]]).astype(np.uint16)
    path, size, unit = tmp_path / "a.tif", 90.0, "second"
    match source:
        case "ome":
            said = {"axes": "TYX", "TimeIncrement": 90.0, "PhysicalSizeX": 0.5}
            tifffile.imwrite(
                path, labels, ome=True, metadata={**said, "PhysicalSizeY": 0.25}
            )
        case "ngff":
            path, (size, unit) = tmp_path / "a.zarr", (1.5, "minute")
            own = {"spacing": (1.5, 0.25, 0.5), "units": (unit, "µm", "µm")}
            write_ome_zarr(path, labels, axes=("t", "y", "x"), **own)
        case _:
            said = {"axes": "TYX", "finterval": 90.0, "unit": "um"}
            if "minutes" in source:
                said, unit = {**said, "finterval": 1.5, "tunit": "min"}, "minute"
                size = 1.5
            tifffile.imwrite(
                path, labels, imagej=True, resolution=(2, 4), metadata=said
            )
    opened = open_image(path)
    assert opened.spacing == (size, 0.25, 0.5)
    assert opened.units == (unit, "micrometer", "micrometer")
    written = tmp_path / f"labels{ending}"
    write_labels(written, labels, **opened.placement("tyx"))
    again = open_image(written)
    assert (again.axes, again.spacing, again.units) == (
        opened.axes,
        opened.spacing,
        opened.units,
    )


def test_ome_tiff_keeps_names_and_sizes(tmp_path):
    write_ome_tiff(
        tmp_path / "a.tif",
        stack(),
        axes=("t", "z", "y", "x"),
        spacing=(1.0, 6.0, 0.5, 0.25),
        units=("pixel", "um", "micrometer", "µm"),
    )
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.series[0].axes == "TZYX"
    opened = open_image(tmp_path / "a.tif")
    assert opened.axes == ("t", "z", "y", "x")
    assert opened.spacing == (1.0, 6.0, 0.5, 0.25)
    assert opened.units[1:] == ("micrometer",) * 3
    np.testing.assert_array_equal(opened.read(), stack())


@pytest.mark.parametrize("before", ["nothing", "file", "folder", "link"])
def test_ome_zarr_takes_the_place_of_what_was_there(tmp_path, before):
    path = tmp_path / "a.zarr"
    if before == "file":
        path.write_text("no folder")
    elif before == "folder":
        write_ome_zarr(path, plane() * 0)
    elif before == "link":
        (tmp_path / "real.zarr").mkdir()
        path.symlink_to(tmp_path / "real.zarr")
    write_ome_zarr(path, stack(), ROWS, axes=("t", "z", "y", "x"))
    group = zarr.open_group(path, mode="r")
    np.testing.assert_array_equal(group["0"][...], stack())
    names = {p["name"] for p in group.attrs["ome"]["image-label"]["properties"]}
    assert names == {row.name for row in ROWS}
    assert path.is_symlink() == (before == "link")
    assert {p.name for p in tmp_path.iterdir()} <= {"a.zarr", "real.zarr"}


@pytest.mark.parametrize(
    ("index", "axes", "place"),
    [
        ((), None, {}),
        ((2,), None, {"z": 2}),
        ((5, 2), None, {"t": 5, "z": 2}),
        ((2, 5), ("z", "t", "y", "x"), {"z": 2, "t": 5}),
        ((1, 2), ("c", "axis 1"), {"c": 1, "z": 2}),
        ((3,), ("c", "y", "x"), {"c": 3}),
        ((1, 2, 3, 4), None, {"z": 4, "t": 3, "c": 2}),
    ],
)
def test_a_plane_s_place(index, axes, place):
    assert plane_place(index, axes) == place


@pytest.mark.parametrize("name", ["", "tc", "depth"])
def test_axes_that_ome_tiff_does_not_know_are_z(tmp_path, name):
    write_ome_tiff(tmp_path / "a.tif", stack()[0], axes=(name, "y", "x"))
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.series[0].axes == "ZYX"
        np.testing.assert_array_equal(file.asarray(), stack()[0])
