"""Results are written whole or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_cfrseg.io.atomic import atomic_path, clear_leftovers, temporary_beside
from napari_cfrseg.io.label_exports import write_labels


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
