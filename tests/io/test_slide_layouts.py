"""Scanners' TIFFs as their makers lay them out: the slide is found, with its size.

All are made here, after the makers' descriptions and what tifffile reads of them: no
file of a real scanner is among the tests.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_cfrseg.errors import ImageError
from napari_cfrseg.io.axes import Pyramid
from napari_cfrseg.io.images import axes_in, count_levels, left_out, open_image

SIDE = 512
_rows, _columns = np.mgrid[:SIDE, :SIDE]
#: smooth, so that JPEG keeps it
SLIDE = np.stack([_rows // 2, _columns // 2, (_rows + _columns) // 4], -1)
SLIDE = SLIDE.astype(np.uint8)
MACRO = np.full((90, 60, 3), 77, np.uint8)
TILED = {"tile": (128, 128), "compression": "jpeg", "photometric": "rgb"}


def level(factor: int) -> np.ndarray:
    return np.ascontiguousarray(SLIDE[::factor, ::factor])


def write_levels(file: tifffile.TiffWriter, **options: object) -> None:
    for factor in (1, 2, 4):
        file.write(level(factor), metadata=None, **TILED, **options)


def write_sub_levels(file: tifffile.TiffWriter, **options: object) -> None:
    file.write(level(1), subifds=2, **TILED, **options)
    for factor in (2, 4):
        file.write(level(factor), subfiletype=1, **TILED)


def pages_of_falling_size(path: Path) -> None:
    with tifffile.TiffWriter(path) as file:
        write_levels(file)


def sub_ifds(path: Path) -> None:
    with tifffile.TiffWriter(path) as file:
        write_sub_levels(file, metadata=None)


def ome_after_its_macro(path: Path) -> None:
    """Several series: the label's picture comes first, a second slide last."""
    size = {"PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25}
    with tifffile.TiffWriter(path, ome=True) as file:
        file.write(MACRO, photometric="rgb", metadata={"axes": "YXS"})
        write_sub_levels(file, metadata={"axes": "YXS", **size})
        file.write(level(2), subifds=1, metadata={"axes": "YXS"}, **TILED)
        file.write(level(4), subfiletype=1, **TILED)


def aperio_2000(path: Path) -> None:
    """JPEG 2000; a thumbnail follows the first level."""
    said = f"Aperio Image Library v11.2.1\r\n{SIDE}x{SIDE} J2K/YUV16|MPP = 0.25"
    options = {**TILED, "compression": "jpeg2000", "description": said}
    with tifffile.TiffWriter(path) as file:
        file.write(level(1), metadata=None, **options)
        file.write(MACRO, photometric="rgb", metadata=None, description=said)
        for factor in (2, 4):
            file.write(level(factor), metadata=None, **options)


def leica(path: Path) -> None:
    """The overview comes first; the field of view is in nm."""
    levels = "".join(
        f'<dimension sizeX="{SIDE // f}" sizeY="{SIDE // f}" r="{r}" ifd="{r + 1}"/>'
        for r, f in enumerate((1, 2, 4))
    )
    said = (
        '<?xml version="1.0"?><scn xmlns="http://www.leica-microsystems.com/scn/2010/'
        '10/01"><collection name="a" sizeX="26000000" sizeY="76000000"><image name="m">'
        '<pixels sizeX="60" sizeY="90"><dimension sizeX="60" sizeY="90" r="0" ifd="0"/>'
        '</pixels><view sizeX="26000000" sizeY="76000000" offsetX="0" offsetY="0"/>'
        f'</image><image name="s"><pixels sizeX="{SIDE}" sizeY="{SIDE}">{levels}'
        f'</pixels><view sizeX="{SIDE * 250}" sizeY="{SIDE * 250}" offsetX="0" '
        'offsetY="0"/></image></collection></scn>'
    )
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        file.write(MACRO, photometric="rgb", metadata=None, description=said)
        write_levels(file)


def ventana(path: Path) -> None:
    """The label comes first; the size of a pixel is in each level's XMP."""

    def xmp(said: bytes) -> list[tuple[int, int, int, bytes, bool]]:
        return [(700, 1, len(said), said, True)]

    with tifffile.TiffWriter(path, bigtiff=True) as file:
        first = {"description": "Label_Image", "extratags": xmp(b"<iScan>x</iScan>")}
        file.write(MACRO, photometric="rgb", metadata=None, **first)
        for number, factor in enumerate((1, 2, 4)):
            file.write(
                level(factor),
                metadata=None,
                description=f"level={number} mag={40 / factor} quality=95",
                extratags=xmp(b'<iScan Magnification="40" ScanRes="0.25">x</iScan>'),
                **TILED,
            )


def hamamatsu(path: Path) -> None:
    """Offsets of 64 bits in a classic TIFF; a level is one JPEG with restart marks."""
    out = bytearray(struct.pack("<2sHQ", b"II", 42, 0))
    link = 4
    for factor in (1, 2, 4):
        file = io.BytesIO()
        Image.fromarray(level(factor)).save(
            file, "JPEG", quality=95, subsampling="4:2:0", restart_marker_blocks=8
        )
        jpeg = file.getvalue()
        begin = jpeg.index(b"\xff\xda")
        begin += 2 + int.from_bytes(jpeg[begin + 2 : begin + 4], "big")
        marks = [f"\xff{chr(0xD0 + i)}".encode("latin1") for i in range(8)]
        cuts = [begin, *(i + 2 for i in range(len(jpeg)) if jpeg[i : i + 2] in marks)]
        data, side = len(out), SIDE // factor
        out += jpeg
        bits, size, starts = (len(out), len(out) + 6, len(out) + 14)
        out += struct.pack("<3H2I", 8, 8, 8, 40_000, factor)
        out += struct.pack(f"<{len(cuts)}I", *cuts)
        tags = [
            (256, 4, 1, side), (257, 4, 1, side), (258, 3, 3, bits), (259, 3, 1, 7),
            (262, 3, 1, 6), (271, 2, 4, 0x504144), (273, 4, 1, data),
            (277, 3, 1, 3), (278, 4, 1, side),
            (279, 4, 1, len(jpeg)), (282, 5, 1, size), (283, 5, 1, size),
            (296, 3, 1, 3), (530, 3, 2, 2 | 2 << 16), (65420, 4, 1, 1),
            (65426, 4, len(cuts), starts),
        ]  # fmt: skip
        out[link : link + 8] = struct.pack("<Q", len(out))
        out += struct.pack("<H", len(tags))
        out += b"".join(struct.pack("<HHII", *tag) for tag in tags)
        link = len(out)
        out += bytes(8 + 4 * len(tags))
    path.write_bytes(out)


LAYOUTS: dict[str, tuple[Callable[[Path], None], float | None]] = {
    "pages.ptif": (pages_of_falling_size, None),
    "sub.tif": (sub_ifds, None),
    "late.ome.tif": (ome_after_its_macro, 0.25),
    "made.svs": (aperio_2000, 0.25),
    "made.scn": (leica, 0.25),
    "made.bif": (ventana, 0.25),
    "made.ndpi": (hamamatsu, 0.25),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_slide_is_found_with_its_levels_and_size(tmp_path: Path, name: str) -> None:
    write, size = LAYOUTS[name]
    path = tmp_path / name
    write(path)
    assert count_levels(path) == 3
    assert axes_in(path) == (("y", "x", "c"), SLIDE.shape)
    found = open_image(path, levels=3)
    assert isinstance(found.array, Pyramid)
    assert found.is_rgb
    assert [len(one.shape) for one in found.array.levels] == [3, 3, 3]
    for one, factor in zip(found.array.levels, (1, 2, 4), strict=True):
        wrong = np.abs(np.asarray(one).astype(int) - level(factor)).mean()
        assert wrong < 4, (factor, wrong)
    spacing = found.spacing
    assert spacing == (None if size is None else pytest.approx((size, size)))


def test_what_is_not_shown_of_a_slide_is_one_line(tmp_path: Path) -> None:
    said = {}
    for name, (write, _) in LAYOUTS.items():
        write(tmp_path / name)
        said[name] = left_out(tmp_path / name)
    assert "of 2 images the one of 512 × 512 × 3 is shown" in said.pop("late.ome.tif")
    assert "tiles overlap" in said.pop("made.bif")
    assert set(said.values()) == {""}


def test_further_positions_of_a_file_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "positions.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as file:
        for number in range(3):
            pixels = np.full((40, 50), number, np.uint8)
            file.write(pixels, photometric="minisblack", metadata={"axes": "YX"})
    assert (open_image(path).read() == 0).all()
    assert "of 3 images the one of 40 × 50 is shown" in left_out(path)


def test_a_compression_that_cannot_be_decoded_is_said_at_once(tmp_path: Path) -> None:
    path = tmp_path / "odd.svs"
    tifffile.imwrite(path, SLIDE, tile=(128, 128), compression="zlib")
    with tifffile.TiffFile(path, mode="r+") as file:
        file.pages[0].tags["Compression"].overwrite(34661)
    with pytest.raises(ImageError, match=r"odd\.svs.*compressed as JBIG"):
        open_image(path)
