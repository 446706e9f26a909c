"""Measurements: known shapes give known numbers, in pixels and in units."""

from __future__ import annotations

import numpy as np
from session_cases import record

from napari_cfrseg.annotation.state import ObjectState
from napari_cfrseg.geometry.masks import LabelRuns
from napari_cfrseg.io.tiled_labels import TiledLabels
from napari_cfrseg.session.format import ImageReference
from napari_cfrseg.session.imported_events import hidden_labels
from napari_cfrseg.session.replay_session import areas_of, compare_labels
from napari_cfrseg.session.session import Session
from napari_cfrseg.session.session_exports import (
    export,
    measure,
    measure_whole,
    table_csv,
)

OBJECTS = (
    ObjectState(1, "a, b", "#000000", object_class="cell"),
    ObjectState(4, "c", "#000000"),
)


def reference(shape, axes, spacing=None, units=None) -> ImageReference:
    return ImageReference(None, shape, "uint8", axes, "0" * 64, spacing, units)


def test_area_perimeter_and_mean_of_each_channel_on_each_plane():
    labels = np.zeros((2, 10, 12), np.int32)
    labels[0, 2:6, 2:7] = 1
    labels[1, 4:6, 4:6] = 4
    pixels = np.zeros((2, 10, 12, 2), np.uint8)
    pixels[0, 2:6, 2:7] = (10, 20)
    pixels[1, 4:6, 4:5] = (8, 0)
    image = reference(
        pixels.shape, ("z", "y", "x", "c"), (2.0, 0.5, 0.5), ("um", "um", "um")
    )
    table = measure(labels, OBJECTS, image, pixels)
    assert table["object"] == [1, 4]
    assert table["z"] == [0, 1]
    assert table["area_px"] == [20, 4]
    assert table["area_um2"] == [5.0, 1.0]
    assert table["perimeter_px"][0] == 14.0
    assert table["perimeter_um"][0] == 7.0
    assert table["mean_0"] == [10.0, 4.0]
    assert table["mean_1"] == [20.0, 0.0]
    assert (table["std_0"], table["min_0"], table["max_0"]) == (
        [0, 4],
        [10, 0],
        [10, 8],
    )
    assert (table["y_px"], table["x_px"]) == ([3.5, 4.5], [4.0, 4.5])
    # of a rectangle of h × w pixels the ellipse's axes are 4 √((n² − 1) / 12) long
    assert table["major_axis_px"][0] == round(4 * np.sqrt((5**2 - 1) / 12), 3)
    assert table["minor_axis_um"][0] == round(2 * np.sqrt((4**2 - 1) / 12), 3)
    assert table["circularity"] == [1.0, 1.0]
    lines = table_csv(table).splitlines()
    assert lines[0].startswith("object,name,class,z,area_px")
    assert lines[1].startswith('1,"a, b",cell,0,20,')


def test_whole_objects_have_volumes_at_each_time():
    labels = np.zeros((2, 3, 10, 12), np.int32)
    labels[0, 0:2, 2:6, 2:8] = 1  # two planes of 24 pixels
    labels[0, 2, 2:4, 2:4] = 1
    labels[1, 1, 4:6, 4:6] = 4
    pixels = np.zeros(labels.shape, np.uint8)
    pixels[0, 0, 2:6, 2:8], pixels[0, 2, 2:4, 2:4] = 10, 62
    sizes = ((60.0, 2.0, 0.5, 0.5), ("second", "um", "um", "um"))
    image = reference(labels.shape, ("t", "z", "y", "x"), *sizes)
    whole = measure_whole(measure(labels, OBJECTS, image, pixels), image)
    (first, second) = (
        dict(zip(whole, row, strict=True)) for row in zip(*whole.values(), strict=True)
    )
    assert (first["object"], first["t"], first["class"]) == (1, 0, "cell")
    assert (first["planes"], first["voxels"], first["volume_um3"]) == (3, 52, 26.0)
    assert first["z_px"] == round((24 * 1 + 4 * 2) / 52, 3)
    assert (first["mean"], first["min"], first["max"]) == (round(488 / 52, 3), 0, 62)
    assert (second["object"], second["t"], second["y_px"]) == (4, 1, 4.5)
    assert "z" not in whole
    assert "minor_axis_px" not in whole
    flat = reference((10, 12), ("y", "x"), (0.5, 0.5), ("um", "um"))
    table = measure_whole(measure(labels[0, 0], OBJECTS, flat), flat)
    assert (table["voxels"], "volume_um3" in table) == ([24], False)


def test_a_single_pixel_is_measured():
    labels = np.zeros((5, 5), np.int32)
    labels[2, 3] = 1
    pixels = np.full((5, 5), np.float16(2.5))
    table = measure(labels, OBJECTS, reference((5, 5), ("y", "x")), pixels)
    (row,) = zip(*table.values(), strict=True)
    found = dict(zip(table, row, strict=True))
    assert (found["area_px"], found["y_px"], found["x_px"]) == (1, 2, 3)
    assert (found["circularity"], found["mean"], found["std"]) == (None, 2.5, 0)


class Far:
    """Lazy pixels of a whole slide, which count the most that was read at once."""

    shape, dtype, most = (40_000, 40_000, 3), np.dtype(np.uint8), 0

    def __getitem__(self, key: tuple[slice, slice]) -> np.ndarray:
        sides = [part.stop - part.start for part in key]
        self.most = max(self.most, *sides)
        return np.full((*sides, 3), (7, 8, 9), np.uint8)


def test_of_a_whole_slide_only_the_objects_are_read():
    labels = TiledLabels(Far.shape[:2])
    labels[(slice(30_000, 30_020), slice(9_000, 9_030))] = np.ones((20, 30), np.int32)
    labels[(slice(50, 60), slice(39_000, 39_010))] = np.full((10, 10), 4, np.int32)
    pixels = Far()
    table = measure(labels, OBJECTS, reference(Far.shape, ("y", "x", "c")), pixels)
    assert table["area_px"] == [600, 100]
    assert table["mean_2"] == [9.0, 9.0]
    assert pixels.most == 30


def test_no_units_and_oblong_pixels_are_not_guessed():
    labels = np.ones((4, 4), np.int32)
    table = measure(labels, OBJECTS, reference((4, 4), ("y", "x")))
    assert not [name for name in table if name.startswith("area_u")]
    assert "mean" not in table
    image = reference((4, 4), ("y", "x"), (1.0, 0.5), ("um", "um"))
    table = measure(labels, OBJECTS, image)
    assert table["area_um2"] == [8.0]
    assert "perimeter_um" not in table


def test_areas_in_the_file_are_those_of_the_labels(tmp_path):
    annotator, path = record(tmp_path)
    session, target = Session.open(path), tmp_path / "a.measurements.csv"
    labels = annotator.labels_array()
    export(target, session.content, tuple(session.objects()), labels)
    header, *rows = [line.split(",") for line in target.read_text().splitlines()]
    column = header.index("area_px")
    found = {int(row[0]): int(row[column]) for row in rows}
    numbers, counts = np.unique(labels[labels > 0], return_counts=True)
    assert found == dict(zip(numbers.tolist(), counts.tolist(), strict=True))


def test_what_changed_costs_what_the_pixels_cost() -> None:
    """Numbers of objects may be as large as a date or a track's number."""
    labels = np.full((4, 4), 2_000_000_000, np.int32)
    less = labels.copy()
    less[0, 0], less[0, 1] = 0, 7
    large = {"object": 2_000_000_000, "before_px": 16, "after_px": 14, "iou": 0.875}
    new = {"object": 7, "before_px": 0, "after_px": 1, "iou": 0.0}
    assert compare_labels(labels, less) == [new, large]
    assert compare_labels(less, less) == []
    assert areas_of(less) == {"7": 1, "2000000000": 14}
    held = LabelRuns.from_mask(less > 7)
    assert hidden_labels(less, {(): held}.get) == [2_000_000_000]
    assert hidden_labels(less, lambda _: None) == []
