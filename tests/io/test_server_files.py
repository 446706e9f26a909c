"""TIFF on a server: what is read of it, and what is said where that does not work."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
from served import Stalling, serving
from typer.testing import CliRunner

from napari_cfrseg.cli import app
from napari_cfrseg.errors import ImageError
from napari_cfrseg.io import addresses, server_files
from napari_cfrseg.io.images import open_image

FIELD = np.random.default_rng(0).integers(0, 256, (1000, 1200), np.uint8)
#: by name: how each file is written
KINDS = {
    "tiles.tif": (FIELD, {"tile": (128, 128), "compression": "zlib"}),
    "strips.tif": (FIELD, {"rowsperstrip": 16, "compression": "lzw"}),
    "raw.tif": (FIELD.astype(np.uint16), {}),
    "other_bytes.tif": (FIELD.astype(">u2"), {"byteorder": ">"}),
    "colours.tif": (np.stack([FIELD] * 3, -1), {"photometric": "rgb"}),
    "planes_of_colours.tif": (
        np.stack([FIELD] * 3),
        {"photometric": "rgb", "planarconfig": "separate"},
    ),
    "one_strip.tif": (FIELD, {"rowsperstrip": 1000, "compression": "zlib"}),
    "imagej.tif": (
        FIELD.reshape(5, 2, 100, 1200),
        {"imagej": True, "metadata": {"axes": "ZCYX"}},
    ),
    "stack.ome.tif": (
        FIELD.reshape(2, 5, 100, 1200),
        {"metadata": {"axes": "CZYX"}, "tile": (64, 64), "compression": "zlib"},
    ),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_tiff_on_a_server_is_read_as_in_a_folder(tmp_path: Path, name: str) -> None:
    pixels, options = KINDS[name]
    tifffile.imwrite(tmp_path / name, pixels, **options)
    here = open_image(tmp_path / name)
    with serving(tmp_path) as host:
        there = open_image(Path(f"{host}/{name}"))
        assert (there.axes, there.shape, there.spacing, there.is_rgb) == (
            here.axes, here.shape, here.spacing, here.is_rgb,
        )  # fmt: skip
        box = tuple(slice(n // 3, n // 3 + 40) if n > 40 else 0 for n in here.shape)
        assert np.array_equal(there.array[box], here.array[box])
        assert np.array_equal(np.asarray(there.array), np.asarray(here.array))


@pytest.mark.parametrize("name", ["tiles.tif", "strips.tif", "raw.tif"])
def test_only_what_is_asked_for_is_sent(tmp_path: Path, name: str) -> None:
    pixels, options = KINDS[name]
    field = np.tile(pixels, (4, 4))
    tifffile.imwrite(tmp_path / name, field, **options)
    size = (tmp_path / name).stat().st_size
    with serving(tmp_path) as host:
        Stalling.sent_bytes = 0
        array = open_image(Path(f"{host}/{name}")).array
        assert np.array_equal(array[3000:3050, 60:99], field[3000:3050, 60:99])
        once = Stalling.sent_bytes
        assert once < size / 8
        assert np.array_equal(array[3000:3050, 60:99], field[3000:3050, 60:99])
        assert Stalling.sent_bytes == once  # what was read is kept


def test_a_pyramid_on_a_server_is_read_by_levels(tmp_path: Path) -> None:
    levels = [FIELD, FIELD[::2, ::2]]
    with tifffile.TiffWriter(tmp_path / "slide.ome.tif") as file:
        file.write(levels[0], subifds=1, tile=(128, 128), metadata={"axes": "YX"})
        file.write(levels[1], subfiletype=1, tile=(128, 128))
    with serving(tmp_path) as host:
        found = open_image(Path(f"{host}/slide.ome.tif?version=3"), levels=2)
        for level, wanted in zip(found.array.levels, levels, strict=True):
            assert np.array_equal(np.asarray(level), wanted)
        with pytest.raises(ImageError, match=f"{host}/slide.ome.tif has no pyramid"):
            open_image(Path(f"{host}/slide.ome.tif"), 7)


@pytest.fixture
def address(tmp_path: Path):
    """A TIFF in tiles on a server, and nothing of it read yet."""
    pixels, options = KINDS["tiles.tif"]
    tifffile.imwrite(tmp_path / "tiles.tif", pixels, **options)
    with serving(tmp_path) as host:
        yield Path(f"{host}/tiles.tif")


def test_a_server_without_parts_of_files_is_one_line(address: Path) -> None:
    Stalling.whole, Stalling.sent_bytes = True, 0
    with pytest.raises(ImageError, match="sends whole files only: download it"):
        open_image(address)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("none.tif", "there is no such file on the server"),
        ("none.png", "TIFF and OME-Zarr are read: download it"),
        ("none.npy", "TIFF and OME-Zarr are read: download it"),
    ],
)
def test_what_is_not_there_or_not_read_is_one_line(
    address: Path, name: str, said: str
) -> None:
    with pytest.raises(ImageError, match=said) as caught:
        open_image(address.with_name(name))
    assert str(caught.value).startswith("http://127.0.0.1:")
    assert "\n" not in str(caught.value)


def refuse(_: Path) -> None:
    Stalling.refused = 503


def stall(_: Path) -> None:
    Stalling.stalled = True


def shorten(file: Path) -> None:
    os.truncate(file, 100_000)


def replace(file: Path) -> None:
    tifffile.imwrite(file, FIELD[::-1], tile=(128, 128), compression="zlib")


@pytest.mark.parametrize(
    ("fail", "said"),
    [
        (refuse, "the server answers 503"),
        (stall, "has not answered for .* s: try again"),
        (shorten, "try again|changed after it was opened"),
        (Path.unlink, "there is no such file on the server"),
    ],
)
def test_a_read_that_fails_is_one_line_and_the_next_one_works(
    address: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fail, said: str
) -> None:
    monkeypatch.setattr(addresses, "SILENCE_S", 0.5)
    file = tmp_path / "tiles.tif"
    kept = file.read_bytes(), file.stat()
    array = open_image(address).array
    fail(file)
    with pytest.raises(ImageError, match=said) as caught:
        array[600:700, 600:700]
    assert str(caught.value).startswith("http://127.0.0.1:")
    assert "\n" not in str(caught.value)
    Stalling.refused, Stalling.stalled = 0, False
    file.write_bytes(kept[0])
    os.utime(file, ns=(kept[1].st_atime_ns, kept[1].st_mtime_ns))
    assert np.array_equal(array[600:700, 600:700], FIELD[600:700, 600:700])


def test_a_file_that_was_changed_is_not_read_on(
    address: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    array = open_image(address).array
    replace(tmp_path / "tiles.tif")
    os.utime(tmp_path / "tiles.tif", (10**9, 10**9))
    monkeypatch.setattr(server_files, "_SAME_FOR_S", 0.0)
    with pytest.raises(ImageError, match="was changed after it was opened: open it"):
        array[:10, :10]
    again = open_image(address).array
    assert np.array_equal(again[:10, :10], FIELD[::-1][:10, :10])


def test_one_file_of_several_is_one_line(address: Path, tmp_path: Path) -> None:
    """The others would be black: nothing looks for them on a server."""
    tifffile.imwrite(tmp_path / "a.ome.tif", FIELD, metadata={"axes": "YX"})
    data = (tmp_path / "a.ome.tif").read_bytes()
    said = b'<TiffData IFD="0" PlaneCount="1"'
    assert said in data
    more = "".join(
        f'<TiffData IFD="0" FirstZ="{i}" PlaneCount="1">'
        f'<UUID FileName="{name}.ome.tif">urn:uuid:{i}</UUID></TiffData>'
        for i, name in enumerate("ab")
    )
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as file:
        text = file.ome_metadata.replace('SizeZ="1"', 'SizeZ="2"')
    start = text.index("<TiffData")
    text = text[:start] + more + text[text.index("</Pixels>") :]
    tifffile.imwrite(tmp_path / "a.ome.tif", FIELD, description=text, metadata=None)
    with pytest.raises(ImageError, match="one of several files of an image: download"):
        open_image(address.with_name("a.ome.tif"))


def test_a_click_on_a_server_s_tiff(
    tmp_path: Path, random_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    field = np.zeros((5000, 5000), np.uint8)
    field[400:460, 300:360] = 200
    noise = np.random.default_rng(1).integers(0, 30, field.shape, np.uint8)
    tifffile.imwrite(tmp_path / "x.tif", field + noise, tile=(256, 256))
    monkeypatch.chdir(tmp_path)
    options = ["-c", "430,330,+", "--model", str(random_model), "--device", "cpu"]
    with serving(tmp_path) as host:
        Stalling.sent_bytes = 0
        address = f"{host}/x.tif"
        done = CliRunner().invoke(app, ["segment", address, *options, "--json"])
        assert done.exit_code == 0, done.output
        assert Stalling.sent_bytes < field.size / 2
    assert json.loads(done.output)["output"] == "x.mask.tif"
    here = ["segment", "x.tif", *options, "-o", "here.tif"]
    assert CliRunner().invoke(app, here).exit_code == 0
    masks = [tifffile.imread(name) for name in ("x.mask.tif", "here.tif")]
    assert np.array_equal(*masks)
