"""Image files of many shapes become one plane; results are written whole."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_cfrseg.errors import ImageError
from napari_cfrseg.io.atomic import atomic_path, clear_leftovers, temporary_beside
from napari_cfrseg.io.picture_files import read_plane, write_labels


@pytest.mark.parametrize(
    ("axes", "shape", "plane", "expected"),
    [
        ("YX", (6, 7), None, (6, 7)),
        ("YXS", (6, 7, 3), None, (6, 7, 3)),
        ("CYX", (2, 6, 7), None, (6, 7, 2)),
        ("ZYX", (4, 6, 7), 3, (6, 7)),
        ("TZCYX", (2, 3, 2, 6, 7), 5, (6, 7, 2)),
    ],
)
def test_tiff_axes(
    tmp_path: Path,
    axes: str,
    shape: tuple[int, ...],
    plane: int | None,
    expected: tuple[int, ...],
) -> None:
    data = np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)
    path = tmp_path / "image.tif"
    tifffile.imwrite(
        path,
        data,
        imagej=axes == "TZCYX",
        photometric="rgb" if "S" in axes else "minisblack",
        metadata={"axes": axes},
    )
    read = read_plane(path, plane)
    assert read.shape == expected
    assert read.dtype == np.uint16
    if axes == "ZYX":
        np.testing.assert_array_equal(read, data[3])
    if axes == "TZCYX":
        np.testing.assert_array_equal(read, np.moveaxis(data[1, 2], 0, -1))


@pytest.mark.parametrize(("mode", "shape"), [("L", (6, 7)), ("RGB", (6, 7, 3))])
def test_png(tmp_path: Path, mode: str, shape: tuple[int, ...]) -> None:
    path = tmp_path / "image.png"
    Image.new(mode, (7, 6)).save(path)
    assert read_plane(path, None).shape == shape


def test_plane_beyond_the_stack(tmp_path: Path) -> None:
    path = tmp_path / "stack.tif"
    stack = np.zeros((4, 6, 7), np.uint8)
    tifffile.imwrite(path, stack, photometric="minisblack", metadata={"axes": "ZYX"})
    with pytest.raises(ImageError, match=r"no plane 4: choose one of 0 … 3"):
        read_plane(path, 4)


@pytest.mark.parametrize("name", ["broken.tif", "broken.png"])
def test_broken_file_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"no image at all")
    with pytest.raises(ImageError, match=name):
        read_plane(path, None)


def test_labels_keep_their_numbers_as_tiff_and_turn_white_as_png(
    tmp_path: Path,
) -> None:
    labels = np.array([[0, 1], [300, 0]], np.uint16)
    write_labels(tmp_path / "new folder" / "labels.tif", labels)
    read = tifffile.imread(tmp_path / "new folder" / "labels.tif")
    np.testing.assert_array_equal(read, labels)
    write_labels(tmp_path / "labels.png", labels)
    picture = np.asarray(Image.open(tmp_path / "labels.png"))
    np.testing.assert_array_equal(picture, [[0, 255], [255, 0]])


def test_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "labels.tif"
    target.write_text("before")

    def fail() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert target.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["labels.tif"]


@pytest.mark.skipif(os.name != "posix", reason="processes cannot be asked after")
def test_leftovers_of_ended_processes_are_removed(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    mine = temporary_beside(tmp_path / "a.labels.tif")
    theirs = mine.name.replace(f"-{os.getpid()}", f"-{ended.pid}")
    elsewhere = f".a.labels.other-host-{ended.pid}.tif"
    old = f".a.labels.old-host-{ended.pid}.tif"
    kept = [
        mine.name,
        elsewhere,
        theirs.replace(".a.", ".b."),
        ".a.labels.tif",
        "a.tif",
    ]
    for name in (*kept, theirs, old):
        (tmp_path / name).touch()
    os.utime(tmp_path / old, (0, 0))
    folder = tmp_path / theirs.replace(".tif", "-old.zarr")
    folder.mkdir()
    (folder / "0").touch()
    clear_leftovers(tmp_path, {"a.labels"})
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(kept)
    clear_leftovers(tmp_path / "not there", {"a.labels"})
