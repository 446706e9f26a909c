"""Labels of a huge plane in files of other programs: small, exact, with a pyramid."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from napari_cfrseg.io.images import open_image
from napari_cfrseg.io.label_exports import write_ome_tiff, write_ome_zarr
from napari_cfrseg.io.object_exports import regions, write_coco, write_geojson
from napari_cfrseg.io.tiled_labels import TiledLabels, filled_pixels

SIDE = 50_000
PLACES = {1: (0, 1_500), 7: (SIDE - 40, SIDE - 60), 9: (25_590, 25_590)}


@pytest.fixture
def labels() -> TiledLabels:
    """Three discs, two of them in corners and one across tiles, with a hole."""
    tiled = TiledLabels((SIDE, SIDE))
    y, x = np.mgrid[:40, :60]
    radius = np.hypot(y - 20, x - 20)
    for label, (row, column) in PLACES.items():
        values = np.where((radius < 18) & (radius > 5), label, 0)
        tiled[row : row + 40, column : column + 60] = values
    return tiled


def tile_at(array: object, label: int) -> np.ndarray:
    y, x = PLACES[label]
    return np.asarray(array[y : y + 40, x : x + 60])  # type: ignore[index]


def test_ome_zarr_has_a_pyramid_and_the_labels(
    labels: TiledLabels, tmp_path: Path
) -> None:
    path = tmp_path / "labels.zarr"
    place = {"spacing": (0.5, 0.5), "origin": (10.0, 0.0)}
    write_ome_zarr(path, labels, axes=("y", "x"), **place)
    array = open_image(path).array
    assert array.shape == (SIDE, SIDE)
    for label in PLACES:
        assert np.array_equal(tile_at(array, label), tile_at(labels, label))
    group = zarr.open_group(str(path), mode="r")
    scales = group.attrs["ome"]["multiscales"][0]["datasets"]
    assert [d["path"] for d in scales] == [str(i) for i in range(8)]
    assert scales[3]["coordinateTransformations"] == [
        {"type": "scale", "scale": [4.0, 4.0]},
        {"type": "translation", "translation": [11.75, 1.75]},
    ]
    assert open_image(path).origin == (10.0, 0.0)
    assert open_image(path, 3).origin == (11.75, 1.75)
    assert set(np.unique(group["7"][:])) == {0, *PLACES}
    assert sum(f.stat().st_size for f in path.rglob("*")) < 1_000_000


def test_ome_tiff_is_tiled_with_a_pyramid(labels: TiledLabels, tmp_path: Path) -> None:
    path = tmp_path / "labels.ome.tif"
    write_ome_tiff(path, labels, axes=("y", "x"), spacing=(0.5, 0.5))
    assert path.stat().st_size < 1_000_000
    with tifffile.TiffFile(path) as file:
        assert file.is_ome
        levels = file.series[0].levels
        assert [level.shape[0] for level in levels[:3]] == [SIDE, 25_000, 12_500]
        assert len(levels) == 8
        store = zarr.open_array(file.aszarr(series=0, level=0), mode="r")
        for label in PLACES:
            assert np.array_equal(tile_at(store, label), tile_at(labels, label))
        assert set(np.unique(levels[-1].asarray())) == {0, *PLACES}


def test_libtiff_reads_tiles_without_labels(tmp_path: Path) -> None:
    """Pillow reads compressed TIFFs with libtiff, which refuses tiles left out."""
    labels = TiledLabels((9_000, 600))
    labels[8_000:8_040, 500:560] = np.full((40, 60), 70_000)
    path = tmp_path / "labels.ome.tif"
    write_ome_tiff(path, labels)
    with Image.open(path) as picture:
        found = np.asarray(picture)
    assert np.array_equal(found, np.asarray(labels))


@pytest.mark.parametrize("side", [(9_001, 300), (700, 8_500)])
def test_large_stacks_in_both_formats(side: tuple[int, int], tmp_path: Path) -> None:
    labels = TiledLabels((2, 3, *side))
    rng = np.random.default_rng(0)
    for number, plane in enumerate(np.ndindex(2, 3), start=1):
        y, x = (int(rng.integers(0, n - 50)) for n in side)
        labels[(*plane, slice(y, y + 50), slice(x, x + 50))] = np.full((50, 50), number)
    wanted = labels.with_pyramid().levels
    write_ome_tiff(tmp_path / "l.ome.tif", labels, axes=("t", "z", "y", "x"))
    write_ome_zarr(tmp_path / "l.zarr", labels, axes=("t", "z", "y", "x"))
    with tifffile.TiffFile(tmp_path / "l.ome.tif") as file:
        assert file.series[0].axes == "TZYX"
        found = [level.asarray() for level in file.series[0].levels]
    assert len(found) == 6
    group = zarr.open_group(str(tmp_path / "l.zarr"), mode="r")
    for number, level in enumerate(found):
        assert np.array_equal(level, wanted[number])
        assert np.array_equal(group[str(number)][:], wanted[number])
    assert sorted(group.array_keys()) == [str(i) for i in range(6)]


def test_polygons_are_in_pixels_of_the_finest_level(
    labels: TiledLabels, tmp_path: Path
) -> None:
    path = tmp_path / "labels.geojson"
    write_geojson(path, labels)
    features = json.loads(path.read_text())["features"]
    assert [f["properties"]["object_id"] for f in features] == [1, 7, 9]
    for feature in features:
        outer = np.array(feature["geometry"]["coordinates"][0])
        y, x = PLACES[feature["properties"]["object_id"]]
        assert np.array_equal(outer.min(0), (x + 3, y + 3))
        assert np.array_equal(outer.max(0), (x + 38, y + 38))
    assert [r.plane for r in regions(labels)] == [(), (), ()]


def test_coco_counts_lie_on_the_whole_plane(
    labels: TiledLabels, tmp_path: Path
) -> None:
    path = tmp_path / "labels.coco.json"
    write_coco(path, labels)
    for found in json.loads(path.read_text())["annotations"]:
        counts = np.array(found["segmentation"]["counts"])
        assert counts.sum() == SIDE**2
        assert counts[1::2].sum() == found["area"]
        y, x = PLACES[found["object_id"]]
        assert counts[0] // SIDE == x + 3
        assert y < counts[0] % SIDE < y + 40


def test_two_tiled_labels_are_compared_where_either_holds_some(
    labels: TiledLabels,
) -> None:
    other = TiledLabels((SIDE, SIDE))
    other[3:9, 3:9] = np.full((6, 6), 4)
    first, second = filled_pixels(labels, other)
    assert np.count_nonzero(first) == labels.runs().size
    assert np.count_nonzero(second) == 36
