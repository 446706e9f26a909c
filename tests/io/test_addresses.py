"""Images on a server: opened, replayed, and what is said where they are not there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr
from served import Stalling, served, serving
from typer.testing import CliRunner

from napari_cfrseg.cli import app
from napari_cfrseg.errors import ImageError
from napari_cfrseg.io.addresses import whereabouts
from napari_cfrseg.io.images import open_image
from napari_cfrseg.io.label_exports import write_ome_zarr
from napari_cfrseg.io.tiled_labels import TiledLabels


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """An OME-Zarr of two levels in which some pieces are no files."""
    pixels = TiledLabels((1000, 9000))
    pixels[20:60, 30:80] = np.full((40, 50), 7, np.int32)
    write_ome_zarr(tmp_path / "served" / "slide.zarr", pixels, axes=("y", "x"))
    return tmp_path / "served" / "slide.zarr"


def test_an_image_on_a_server_is_read_by_levels(store: Path) -> None:
    with serving(store.parent) as host:
        path = Path(f"{host}/slide.zarr")
        found = open_image(path, levels=2)
        assert [level.shape for level in found.array.levels] == [
            (1000, 9000),
            (500, 4500),
        ]
        box = found.array[:100, :100]
        assert np.array_equal(box, open_image(store).array[:100, :100])
        assert not found.array[600:700, 5000:5100].any()  # a piece that is no file
        with pytest.raises(ImageError, match=f"{host}/slide.zarr has no pyramid level"):
            open_image(path, 9)


@pytest.mark.parametrize(
    ("name", "status", "said"), [("none.zarr", 0, ""), ("slide.zarr", 403, "403"),
                                 ("slide.zarr", 500, "500")]
)  # fmt: skip
def test_what_is_not_there_or_refused_is_no_empty_image(
    store: Path, name: str, status: int, said: str
) -> None:
    with serving(store.parent) as host:
        Stalling.refused = status
        with pytest.raises(ImageError) as caught:
            open_image(Path(f"{host}/{name}"))
    assert str(caught.value).startswith(f"{host}/{name}:")  # with both slashes
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_array_that_goes_is_no_empty_one(store: Path) -> None:
    """A server answers 404 for a piece without pixels, and for all when it is gone."""
    with serving(store.parent) as host:
        array = open_image(Path(f"{host}/slide.zarr")).array
        assert array[20:30, 30:40].all()
        assert not array[600:700, 5000:5100].any()
        shutil.rmtree(store)
        with pytest.raises(ImageError, match="nothing is there any more"):
            array[20:30, 30:40]


def test_a_level_that_goes_from_a_folder_is_no_empty_one(store: Path) -> None:
    array = open_image(store).array
    shutil.rmtree(store / "0")
    with pytest.raises(ImageError, match="gone"):
        array[20:30, 30:40]


def test_an_array_says_where_it_lies_but_no_secret(tmp_path: Path) -> None:
    path = tmp_path / "cells.zarr"
    zarr.create_array(path, shape=(8, 8), chunks=(8, 8), dtype="u1")
    assert whereabouts(zarr.open_array(path, mode="r")) == str(path)
    with served(path) as array:
        assert whereabouts(array) == f"http://{array.store.path.split('//')[1]}"
        array.store.path += "?X-Amz-Signature=secret"
        assert whereabouts(array) is None
    assert whereabouts(zarr.create_array({}, shape=(8, 8), dtype="u1")) is None
    assert whereabouts(np.zeros(3)) is None


def test_commands_read_from_a_server(
    store: Path, tmp_path: Path, random_model: Path
) -> None:
    runner, target = CliRunner(), tmp_path / "mask.tif"
    options = ["--model", str(random_model), "--device", "cpu", "-o", str(target)]
    with serving(store.parent) as host:
        address = f"{host}/slide.zarr"
        done = runner.invoke(
            app, ["segment", address, "-c", "40,50,+", "--json", *options]
        )
        assert done.exit_code == 0, done.output
        assert json.loads(done.output)["output"] == str(target)
        there = runner.invoke(app, ["segment", str(store), "-c", "40,50,+", *options])
        assert "exists" in there.output  # the same mask's place
    gone = runner.invoke(
        app, ["segment", address, "-c", "40,50,+", *options[:-1], "x.tif"]
    )
    assert gone.exit_code == 1
    assert address in gone.output


def test_a_level_that_is_named_and_missing_says_so(store: Path) -> None:
    shutil.rmtree(store / "1")
    with pytest.raises(ImageError, match="names a level '1' that is not there"):
        open_image(store, levels=3)
