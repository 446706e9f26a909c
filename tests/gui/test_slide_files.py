"""Scanners' TIFF pyramids: opened by levels, clicked, saved and replayed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
from closed_form import FloodNetwork
from napari.components import ViewerModel
from napari.layers import Image, Layer
from sync_runner import HeldRunner

from napari_cfrseg.annotation.events import ClickAdded, ObjectCreated
from napari_cfrseg.engine.segmenter import Segmenter
from napari_cfrseg.errors import ImageError
from napari_cfrseg.gui.segment.controller import Controller
from napari_cfrseg.gui.session.layer_references import layer_reference, read_whole
from napari_cfrseg.gui.session.session_layers import get_slide_reader
from napari_cfrseg.io.axes import Pyramid
from napari_cfrseg.io.tiled_labels import label_runs
from napari_cfrseg.session.recording import RecordedAnnotator
from napari_cfrseg.session.references import open_reference

SIDE = 12_000
#: first pixel of the one square that is bright
SPOT = (5_120, 7_168)


def write_slide(path: Path, compression: str, channels: int = 0) -> None:
    """Write a sparse tiled pyramid with a bright square of 60 pixels."""
    samples: tuple[int, ...] = () if channels else (3,)
    options = {
        "tile": (512, 512),
        "compression": compression,
        "photometric": "minisblack" if channels else "rgb",
        "metadata": {"axes": "CYX"} if channels else None,
    }

    def tiles(factor: int) -> Iterator[np.ndarray | None]:
        side = SIDE // factor
        for _ in range(max(channels, 1)):
            for y in range(0, side, 512):
                for x in range(0, side, 512):
                    tile = np.zeros((512, 512, *samples), np.uint8)
                    rows, columns = np.ogrid[y : y + 512, x : x + 512]
                    tile[
                        (abs(rows * factor - SPOT[0] - 30) < 30)
                        & (abs(columns * factor - SPOT[1] - 30) < 30)
                    ] = 200
                    yield tile if tile.any() or not (y or x) else None

    with tifffile.TiffWriter(path, ome=bool(channels)) as file:
        for level, factor in enumerate((1, 4, 16)):
            side = SIDE // factor
            leading = (channels,) if channels else ()
            file.write(
                tiles(factor),
                shape=(*leading, side, side, *samples),
                dtype="u1",
                **(options if level == 0 else {**options, "metadata": None}),
                **({"subifds": 2} if level == 0 else {"subfiletype": 1}),
            )


def open_layers(path: Path) -> list[Layer]:
    reader = get_slide_reader(str(path))
    assert reader is not None
    return [
        Layer.create(data, kwargs, kind) for data, kwargs, kind in reader(str(path))
    ]


def test_a_jpeg_slide_is_clicked_and_replayed_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "slide.svs"
    write_slide(path, "jpeg")
    viewer, told = ViewerModel(), []
    (layer,) = open_layers(path)
    assert layer.rgb
    assert [len(a) for a in layer.level_shapes] == [2, 2, 2]
    layer._source = layer.source.model_copy(update={"path": str(path)})
    viewer.add_layer(layer)
    segmenter = Segmenter(FloodNetwork(), device="cpu")
    controller = Controller(
        viewer, layer, HeldRunner(), lambda: segmenter, lambda _, t: told.append(t)
    )
    controller.clicked((SPOT[0] + 30, SPOT[1] + 30))
    assert not told
    shown = label_runs(controller.labels.layer.data[0])
    assert 3_000 < shown.size < 3_900
    reference = layer_reference(controller.image, tmp_path)
    assert (reference.path, reference.levels) == ("slide.svs", 3)
    opened = open_reference(reference, path)
    assert isinstance(opened.array, Pyramid)
    annotator = RecordedAnnotator(lambda _: opened.array, (SIDE, SIDE), segmenter)
    for entry in controller.annotator.objects.values():
        for plane, made in entry.clicks():
            annotator.apply(ObjectCreated(entry.object_id))
            click = (entry.object_id, plane, made.click.yx, True, made.click_id)
            annotator.apply(ClickAdded(*click, hint=made.hint))
    assert label_runs(annotator.labels()) == shown
    controller.close()


def test_channels_that_are_no_colours_are_layers_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "cells.ome.tif"
    write_slide(path, "zlib", channels=2)
    layers = open_layers(path)
    assert [tuple(layer.data.shape) for layer in layers] == [(SIDE, SIDE)] * 2
    assert layers[1].data[0][SPOT[0] + 9, SPOT[1] + 9] == 200


def test_a_small_file_is_a_plain_layer(tmp_path: Path) -> None:
    """Whoever opens every OME-TIFF with this plugin sees small ones, too."""
    path = tmp_path / "small.ome.tif"
    pixels = np.arange(2 * 40 * 50, dtype=np.uint16).reshape(2, 40, 50)
    tifffile.imwrite(
        path,
        pixels,
        metadata={"axes": "CYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5},
    )
    layers = open_layers(path)
    assert [layer.multiscale for layer in layers] == [False, False]
    assert all(np.array_equal(x.data, y) for x, y in zip(layers, pixels, strict=True))
    assert tuple(layers[0].scale) == (0.5, 0.5)


def test_a_pyramid_that_napari_read_whole_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "slide.tif"
    write_slide(path, "jpeg")
    layer = Image(np.broadcast_to(np.zeros((), np.uint8), (SIDE, SIDE, 3)), rgb=True)
    assert read_whole(layer) == ""
    layer._source = layer.source.model_copy(update={"path": str(path)})
    said = read_whole(layer)
    assert "3 levels" in said
    assert "slide.ptif" in said
    path.rename(path.with_suffix(".ptif"))
    (layer,) = open_layers(path.with_suffix(".ptif"))
    assert len(layer.level_shapes) == 3
    assert read_whole(layer) == ""


def test_a_broken_file_says_so(tmp_path: Path) -> None:
    path = tmp_path / "broken.svs"
    path.write_bytes(b"no slide")
    with pytest.raises(ImageError, match=r"broken\.svs cannot be read"):
        open_layers(path)
    assert get_slide_reader([str(path)]) is None
