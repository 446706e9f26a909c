"""Results are checked before they are computed and never lost after it."""

from __future__ import annotations

import io
import multiprocessing
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from napari_cfrseg.errors import OutputError
from napari_cfrseg.io.atomic import (
    check_folder,
    let_streams_print_anything,
    temporary_beside,
    write_or_save_aside,
)
from napari_cfrseg.io.images import open_image
from napari_cfrseg.io.label_exports import (
    check_labels_output,
    write_labels,
    write_ome_zarr,
)

IMAGE = Path("image.tif")


@pytest.mark.parametrize(
    ("name", "planes", "reason"),
    [
        ("mask", 1, "expected the ending"),
        ("mask.xyz", 1, "expected the ending"),
        ("mask.jpg", 1, "expected the ending"),
        ("mask.png", 2, "holds one plane"),
        ("there.tif", 1, "exists"),
        ("there.zarr", 1, "exists"),
        ("folder.tif", 1, "is a folder"),
        ("there.tif/mask.tif", 1, "nothing can be written"),
        ("/proc/mask.tif", 1, "nothing can be written"),
        ("/proc/mask.zarr", 1, "nothing can be written"),
    ],
)
def test_what_cannot_be_written_is_said_first(tmp_path, name, planes, reason):
    (tmp_path / "there.tif").touch()
    (tmp_path / "there.zarr").mkdir()
    (tmp_path / "folder.tif").mkdir()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(OutputError, match=reason):
        check_labels_output(tmp_path / name, (planes, 8, 8), IMAGE, overwrite=False)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("name", ["new/a.tif", "a.ome.tif", "a.png", "a.zarr", "A.TIF"])
def test_what_can_be_written_passes_and_leaves_nothing(tmp_path, name):
    check_labels_output(tmp_path / name, (8, 8), IMAGE, overwrite=False)
    check_folder(tmp_path / "new" / "er")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("place", ["a.zarr", "a.zarr/0", "b.tif"])
def test_the_image_itself_is_never_overwritten(tmp_path, monkeypatch, place):
    (tmp_path / "a.zarr" / "0").mkdir(parents=True)
    (tmp_path / "b.tif").touch()
    monkeypatch.chdir(tmp_path)
    target = Path(place).parts[0]
    with pytest.raises(OutputError, match=f"{target} is the image itself"):
        check_labels_output(Path(target), (8, 8), tmp_path / place, overwrite=True)


def test_no_folder_that_is_still_to_be_made_hides_the_image(tmp_path):
    (tmp_path / "b.tif").touch()
    hidden = tmp_path / "new" / ".." / "b.tif"
    with pytest.raises(OutputError, match="is the image itself"):
        check_labels_output(hidden, (8, 8), tmp_path / "b.tif", overwrite=True)


def test_a_name_that_is_too_long_loses_no_result(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    target = tmp_path / ("n" * 250 + ".tif")
    with pytest.raises(OutputError, match=r"choose a shorter name\); the result is"):
        write_or_save_aside(
            target, lambda path: write_labels(path, np.ones((8, 8), np.uint16))
        )
    (aside,) = tmp_path.glob("cfrseg-*/*.tif")
    assert open_image(aside).read().all()


@pytest.mark.parametrize("name", ["a.png", "a.BMP"])
def test_a_picture_of_a_slide_is_refused_with_the_remedy(tmp_path, name):
    check_labels_output(tmp_path / name, (16_384, 16_384), IMAGE, overwrite=False)
    with pytest.raises(OutputError, match=r"10000 million pixels.*write \.tif or"):
        check_labels_output(tmp_path / name, (100_000, 100_000), IMAGE, overwrite=False)
    check_labels_output(tmp_path / "a.tif", (100_000, 100_000), IMAGE, overwrite=False)


@pytest.mark.parametrize("name", ["a.tif", "a.zarr"])
def test_what_a_killed_process_began_goes_before_the_next(tmp_path, name):
    """Of this machine's processes; what one that runs is writing stays."""
    here = temporary_beside(tmp_path / name)
    (gone := here.with_name(here.name.replace(str(os.getpid()), "999999999"))).mkdir()
    here.touch()
    check_labels_output(tmp_path / name, (8, 8), IMAGE, overwrite=False)
    assert here.exists()
    assert not gone.exists()


def _write_often(path, number):
    for _ in range(15):
        write_ome_zarr(path, np.full((8, 8), number, np.int32), axes=("y", "x"))


def test_processes_that_write_one_zarr_at_once_all_succeed(tmp_path):
    path = tmp_path / "a.zarr"
    start = multiprocessing.get_context("spawn").Process
    jobs = [start(target=_write_often, args=(path, n)) for n in (1, 2, 3)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert [job.exitcode for job in jobs] == [0, 0, 0]
    assert len(np.unique(np.asarray(open_image(path).array))) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]


def test_overwriting_must_be_asked_for(tmp_path):
    (tmp_path / "a.tif").touch()
    check_labels_output(tmp_path / "a.tif", (8, 8), IMAGE, overwrite=True)


def test_a_result_is_saved_elsewhere_when_its_place_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def write(path):
        if path.parent.name == "full":
            raise OSError(28, "No space left on device")
        path.write_text("result")

    for _ in range(2):  # a result of another job stays
        with pytest.raises(OutputError, match="No space left") as raised:
            write_or_save_aside(tmp_path / "full" / "a.tif", write)
    first, second = tmp_path.rglob("a.tif")
    assert str(first) in str(raised.value) or str(second) in str(raised.value)
    assert first.read_text() == second.read_text() == "result"
    with pytest.raises(OutputError, match="cannot be written"):
        write_or_save_aside(
            tmp_path / "full" / "b.tif",
            lambda path: (Path("/proc") / path.name).write_text("result"),
        )


def test_streams_of_windows_consoles_never_raise(monkeypatch):
    for name in ("stdout", "stderr"):
        raw = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
        monkeypatch.setattr(sys, name, raw)
    let_streams_print_anything()
    sys.stdout.write("→ 细胞.tif é")
    sys.stdout.flush()
    assert sys.stdout.buffer.getvalue().decode("cp1252").endswith(".tif é")
    monkeypatch.setattr(sys, "stdout", None)
    let_streams_print_anything()
