"""Results are checked before they are computed and never lost after it."""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path

import pytest

from napari_cfrseg.errors import OutputError
from napari_cfrseg.io.atomic import (
    check_folder,
    let_streams_print_anything,
    write_or_save_aside,
)
from napari_cfrseg.io.label_exports import check_labels_output


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
        check_labels_output(tmp_path / name, planes, overwrite=False)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("name", ["new/a.tif", "a.ome.tif", "a.png", "a.zarr", "A.TIF"])
def test_what_can_be_written_passes_and_leaves_nothing(tmp_path, name):
    check_labels_output(tmp_path / name, 1, overwrite=False)
    check_folder(tmp_path / "new" / "er")
    assert not list(tmp_path.iterdir())


def test_overwriting_must_be_asked_for(tmp_path):
    (tmp_path / "a.tif").touch()
    check_labels_output(tmp_path / "a.tif", 1, overwrite=True)


def test_a_result_is_saved_elsewhere_when_its_place_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def write(path):
        if path.parent != tmp_path:
            raise OSError(28, "No space left on device")
        path.write_text("result")

    with pytest.raises(OutputError, match="No space left") as raised:
        write_or_save_aside(tmp_path / "full" / "a.tif", write)
    assert str(tmp_path / "a.tif") in str(raised.value)
    assert (tmp_path / "a.tif").read_text() == "result"
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
