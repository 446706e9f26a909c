"""Large pages of a TIFF are read piece by piece: the right pixels, or one line."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_cfrseg.errors import ImageError
from napari_cfrseg.io import tiff_pieces
from napari_cfrseg.io.axes import ArrayView, Pyramid
from napari_cfrseg.io.images import open_image
from napari_cfrseg.io.tiff_pieces import Pieces

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def every_page_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("napari_cfrseg.io.tiff._SMALL_PAGE_BYTES", 0)


def pieces_of(path: Path, **options: int) -> Pieces:
    array = open_image(path, **options).array
    assert isinstance(array, ArrayView)
    found = array._array
    assert isinstance(found, Pieces)
    return found


KINDS = {
    "tiles": ((150, 210), "u2", {"tile": (64, 32), "compression": "zlib"}),
    "strips": ((150, 210), ">u2", {"rowsperstrip": 7, "compression": "zlib"}),
    "colours": ((150, 210, 3), "u1", {"tile": (64, 64), "photometric": "rgb"}),
    "pages": (
        (3, 150, 210),
        "f4",
        {"tile": (64, 64), "compression": "zlib", "photometric": "minisblack"},
    ),
    "bits": ((150, 210), "?", {"rowsperstrip": 16, "compression": "zlib"}),
    "colour pages": (
        (2, 3, 90, 70, 3),
        "u1",
        {"rowsperstrip": 8, "photometric": "rgb", "compression": "zlib"},
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_any_part_is_read(kind: str, tmp_path: Path) -> None:
    shape, dtype, options = KINDS[kind]
    values = RNG.integers(0, 2 if dtype == "?" else 200, shape).astype(dtype)
    path = tmp_path / "image.tif"
    axes = {"axes": "TZYXS"} if kind == "colour pages" else None
    tifffile.imwrite(path, values, metadata=axes, ome=axes is not None, **options)
    array = pieces_of(path)
    assert (array.shape, array.dtype) == (values.shape, values.dtype.newbyteorder("="))
    assert np.array_equal(array[()], values)
    for _ in range(60):
        key = tuple(
            int(RNG.integers(n))
            if RNG.random() < 0.2
            else slice(*sorted(RNG.integers(0, n + 3, 2)), int(RNG.integers(1, 4)))
            for n in shape[: RNG.integers(1, len(shape) + 1)]
        )
        assert np.array_equal(array[key], values[key]), key


def test_levels_share_one_open_file(tmp_path: Path) -> None:
    values = RNG.integers(0, 200, (256, 256)).astype(np.uint8)
    path = tmp_path / "image.tif"
    with tifffile.TiffWriter(path) as file:
        options = {"tile": (64, 64), "compression": "zlib", "metadata": None}
        file.write(values, subifds=1, **options)
        file.write(values[::2, ::2], subfiletype=1, **options)
    image = open_image(path, levels=2).array
    assert isinstance(image, Pyramid)
    held = {level._array._held for level in image.levels}
    assert len(held) == 1
    coarse, opened = image.levels[1], held.pop().file
    del image
    assert np.array_equal(coarse[10:99, 3:70], values[::2, ::2][10:99, 3:70])
    del coarse
    assert opened.filehandle.closed
    with pytest.raises(ImageError, match="no pyramid level 2"):
        open_image(path, levels=3)


def test_pieces_without_pixels_are_empty(tmp_path: Path) -> None:
    tile = np.full((64, 64), 9, np.uint8)
    path = tmp_path / "image.tif"
    tifffile.imwrite(
        path,
        iter([tile, None, None, tile]),
        shape=(128, 128),
        dtype="u1",
        tile=(64, 64),
        compression="zlib",
    )
    found = pieces_of(path)[()]
    assert found[:64, :64].min() == 9
    assert found[:64, 64:].max() == 0


def jpeg(path: Path) -> tuple[np.ndarray, list[int], list[int]]:
    values = RNG.integers(0, 255, (256, 256, 3)).astype(np.uint8)
    options = {"tile": (128, 128), "compression": "jpeg", "photometric": "rgb"}
    tifffile.imwrite(path, values, metadata=None, **options)
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        return page.asarray(), list(page.dataoffsets), list(page.databytecounts)


@pytest.mark.parametrize("damage", ["zeros", "start", "noise", "text"])
def test_a_half_overwritten_jpeg_tile_is_one_line(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "image.tif"
    values, offsets, counts = jpeg(path)
    half = counts[3] // 2
    at, data = {
        "zeros": (offsets[3] + half, bytes(counts[3] - half)),
        "start": (offsets[3], bytes(half)),
        "noise": (offsets[3] + half, RNG.bytes(counts[3] - half)),
        "text": (offsets[3] + half, b"\xff\xd8\xff\xe0" * ((counts[3] - half) // 4)),
    }[damage]
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)
    array = open_image(path).array
    assert np.array_equal(array[:128, :], values[:128])
    with pytest.raises(ImageError, match=r"image\.tif"):
        array[128:, 128:]
    assert np.array_equal(array[128:, :128], values[128:, :128])


def test_a_jpeg_without_its_end_marker_is_read(tmp_path: Path) -> None:
    path = tmp_path / "image.tif"
    values, offsets, counts = jpeg(path)
    with path.open("r+b") as file:
        for offset, count in zip(offsets, counts, strict=True):
            file.seek(offset + count - 2)
            file.write(b"\x00\x00")
    assert np.array_equal(open_image(path).array[:, :], values)


def test_a_file_that_is_cut_or_written_to_while_open_is_one_line(
    tmp_path: Path,
) -> None:
    path = tmp_path / "image.tif"
    values, *_ = jpeg(path)
    array = open_image(path).array
    assert np.array_equal(array[:128, :128], values[:128, :128])
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImageError, match="changed after it was opened"):
        array[128:, 128:]
    with pytest.raises(ImageError, match=r"ends within|cannot be read"):
        open_image(path).array[128:, 128:]
    path.write_bytes(whole)
    assert np.array_equal(open_image(path).array[128:, 128:], values[128:, 128:])


def test_another_file_put_in_its_place_is_not_read(tmp_path: Path) -> None:
    path, other = tmp_path / "image.tif", tmp_path / "other.tif"
    values, *_ = jpeg(path)
    array = open_image(path).array
    jpeg(other)
    other.rename(path)
    assert np.array_equal(array[128:, :], values[128:])


def test_a_file_may_go_while_another_ones_piece_is_kept(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.ones((128, 128), "u1"), tile=(64, 64))
    held = [pieces_of(tmp_path / "a.tif")]
    assert held[0][:].all()

    def collect_while_keeping() -> None:
        with tiff_pieces._kept._lock:  # a garbage collection begins at any allocation
            held.clear()

    thread = threading.Thread(target=collect_while_keeping, daemon=True)
    thread.start()
    thread.join(5)
    assert not thread.is_alive()


def test_no_planes_of_whole_pages_have_the_pages_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_cfrseg.io.tiff._SMALL_PAGE_BYTES", 1 << 20)
    values = RNG.integers(0, 200, (3, 20, 30)).astype(np.uint16)
    path = tmp_path / "image.tif"
    options = {"photometric": "minisblack", "compression": "zlib"}
    tifffile.imwrite(path, values, **options)
    array = open_image(path).array
    for key in (
        (slice(0, 0),),
        (slice(1, 1), slice(2, 9)),
        (1, 4),
        (slice(1, 3), ..., 7),
    ):
        found = array[key]
        assert found.dtype == values.dtype
        assert np.array_equal(found, values[key])
