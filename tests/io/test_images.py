"""Images of every format, axis order and type are opened by name, or refused."""

from __future__ import annotations

import json
import os
import struct
import zlib

import numcodecs
import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from napari_cfrseg.errors import CfrSegError, ImageError
from napari_cfrseg.io.axes import plane_of, turned
from napari_cfrseg.io.images import (
    axes_in,
    count_levels,
    image_files,
    left_out,
    open_image,
    open_labels,
    read_image,
    read_labels,
)


def ramp(*shape: int, dtype: type = np.uint16) -> np.ndarray:
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


@pytest.mark.parametrize("compression", [None, "zlib", "lzw", "packbits", "zstd"])
@pytest.mark.parametrize(
    ("axes", "shape", "options", "arranged"),
    [
        ("YX", (6, 7), {}, "yx"),
        ("YXS", (6, 7, 3), {"photometric": "rgb"}, "yxc"),
        ("CYX", (2, 6, 7), {"imagej": True}, "yxc"),
        ("ZYX", (4, 6, 7), {"imagej": True}, "zyx"),
        ("TZCYX", (2, 3, 2, 6, 7), {"imagej": True}, "tzyxc"),
        ("CYX", (4, 6, 7), {"ome": True}, "yxc"),
        ("TCYX", (2, 3, 6, 7), {"ome": True}, "tyxc"),
        ("TCZYX", (1, 1, 5, 6, 7), {"ome": True}, "zyx"),
        ("CZYX", (2, 5, 6, 7), {"ome": True, "tile": (16, 16)}, "zyxc"),
    ],
)
def test_tiff_axes_are_known_by_name(
    tmp_path, compression, axes, shape, options, arranged
):
    if options.get("imagej") and compression in ("packbits", "zstd"):
        pytest.skip("not a combination that is written")
    data = ramp(*shape)
    options = {"photometric": "minisblack", **options}
    path = tmp_path / "image.tif"
    tifffile.imwrite(
        path, data, compression=compression, metadata={"axes": axes}, **options
    )
    opened = open_image(path).arranged()
    assert "".join(opened.axes) == arranged
    assert opened.is_rgb == ("S" in axes)
    wanted = data
    if "C" in axes and arranged.endswith("c"):
        wanted = np.moveaxis(data, axes.index("C"), -1)
    np.testing.assert_array_equal(opened.read(), wanted.squeeze())


def test_a_jpeg_compressed_tiff_is_read(tmp_path):
    Image.fromarray(np.full((32, 32), 90, np.uint8)).save(
        tmp_path / "a.tif", compression="jpeg"
    )
    assert np.allclose(open_image(tmp_path / "a.tif").read(), 90, atol=2)


@pytest.mark.parametrize(
    ("mode", "axes", "rgb", "dtype"),
    [
        ("1", "yx", False, bool),
        ("L", "yx", False, np.uint8),
        ("LA", "yx", False, np.uint8),
        ("P", "yxc", True, np.uint8),
        ("I;16", "yx", False, np.uint16),
        ("RGB", "yxc", True, np.uint8),
        ("RGBA", "yxc", True, np.uint8),
    ],
)
def test_pictures(tmp_path, mode, axes, rgb, dtype):
    Image.new(mode, (7, 6)).save(tmp_path / "a.png")
    opened = open_image(tmp_path / "a.png")
    assert ("".join(opened.axes), opened.is_rgb) == (axes, rgb)
    assert opened.array.dtype == dtype
    assert opened.shape[:2] == (6, 7)


@pytest.mark.parametrize("ending", [".jpg", ".bmp"])
def test_grey_pictures_of_other_formats(tmp_path, ending):
    Image.new("L", (7, 6), 100).save(tmp_path / f"a{ending}")
    assert open_image(tmp_path / f"a{ending}").read().mean() == 100


def test_palette_images_hold_colours_and_palette_labels_numbers(tmp_path):
    numbers = np.array([[0, 1], [2, 1]], np.uint8)
    picture = Image.fromarray(numbers).convert("P")
    picture.putpalette([0, 0, 0, 255, 0, 0, 0, 0, 255])
    picture.putdata(numbers.ravel().tolist())
    for name in ("a.png", "a.tif"):
        picture.save(tmp_path / name)
        np.testing.assert_array_equal(read_labels(tmp_path / name), numbers)
        opened = open_image(tmp_path / name)
        assert opened.is_rgb
        assert opened.read()[0, 1].tolist() == [255, 0, 0]
    picture.convert("RGB").save(tmp_path / "rgb.png")
    with pytest.raises(ImageError, match="picture in colours"):
        read_labels(tmp_path / "rgb.png")


@pytest.mark.parametrize(
    ("shape", "axes"),
    [((6, 7), "yx"), ((3, 6, 7), "qyx"), ((6, 7, 3), "yxc"), ((2, 3, 6, 7), "qiyx")],
)
def test_npy(tmp_path, shape, axes):
    np.save(tmp_path / "a.npy", ramp(*shape, dtype=">f4"))
    opened = open_image(tmp_path / "a.npy")
    assert "".join(opened.axes) == axes
    assert not opened.is_rgb
    np.testing.assert_array_equal(opened.read(), ramp(*shape))


def ome(version: str, axes: str, **scale: object) -> dict:
    named = [{"name": a, "type": "space", "unit": "micrometer"} for a in axes]
    said = {"multiscales": [{"axes": named, "datasets": [{"path": "0", **scale}]}]}
    return {"ome": {"version": version, **said}} if version == "0.5" else said


def test_ome_zarr_says_where_its_first_pixel_lies(tmp_path):
    data = ramp(2, 3, 64, 96)
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=3)
    scale = {"type": "scale", "scale": [1.0, 2.0, 0.5, 0.25]}
    moved = {"type": "translation", "translation": [0.0, 10.0, 3.0, -4.0]}
    said = ome("0.5", "czyx", coordinateTransformations=[scale, moved])
    common = [
        {"type": "scale", "scale": [1.0, 1.0, 2.0, 2.0]},
        {"type": "translation", "translation": [0.0, 0.0, 1.0, 0.0]},
    ]
    said["ome"]["multiscales"][0]["coordinateTransformations"] = common
    group.attrs.update(said)
    group.create_array("0", data=data)
    opened = open_image(tmp_path / "a.zarr").arranged()
    assert opened.spacing == (2.0, 1.0, 0.5)
    assert opened.origin == (10.0, 7.0, -8.0)
    assert opened.with_channels([1]).placement("yx")["origin"] == (7.0, -8.0)
    assert open_image(tmp_path / "a.zarr", axes="TZYX").origin[1:] == opened.origin


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize(
    ("axes", "shape", "arranged"),
    [
        ("yx", (6, 7), "yx"),
        ("cyx", (3, 6, 7), "yxc"),
        ("tczyx", (1, 1, 4, 6, 7), "zyx"),
        ("tczyx", (2, 3, 4, 6, 7), "tzyxc"),
    ],
)
def test_ome_zarr(tmp_path, version, axes, shape, arranged):
    import zarr

    data = ramp(*shape)
    steps = [{"type": "scale", "scale": [float(i + 2) for i in range(len(axes))]}]
    group = zarr.open_group(
        tmp_path / "a.zarr", mode="w", zarr_format=3 if version == "0.5" else 2
    )
    group.attrs.update(ome(version, axes, coordinateTransformations=steps))
    group.create_array("0", data=data)
    opened = open_image(tmp_path / "a.zarr").arranged()
    assert "".join(opened.axes) == arranged
    wanted = np.moveaxis(data, axes.index("c"), -1) if "c" in axes else data
    np.testing.assert_array_equal(opened.read(), wanted.squeeze())
    own = [axes.index(a) + 2.0 for a in arranged if a != "c"]
    assert opened.spacing == tuple(own)
    assert set(opened.units) == {"micrometer"}
    assert open_image(tmp_path / "a.zarr" / "0").shape == shape


def test_a_bioformats2raw_root_opens_its_first_image(tmp_path):
    import zarr

    root = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    root.attrs["bioformats2raw.layout"] = 3
    series = root.create_group("0")
    series.attrs.update(ome("0.4", "yx"))
    series.create_array("0", data=ramp(6, 7))
    root.create_group("OME").attrs["series"] = ["0"]
    np.testing.assert_array_equal(open_image(tmp_path / "a.zarr").read(), ramp(6, 7))
    root.attrs["plate"] = {}
    with pytest.raises(ImageError, match="name one field"):
        open_image(tmp_path / "a.zarr")


@pytest.mark.parametrize(
    ("options", "metadata", "size"),
    [
        ({"imagej": True}, {"spacing": 6.0, "unit": "um"}, (6.0, 0.5, 0.5)),
        ({"imagej": True}, {"spacing": 6.0, "unit": "\\u00B5m"}, (6.0, 0.5, 0.5)),
        ({"imagej": True}, {"unit": "micron"}, (0.5, 0.5, 0.5)),
        ({"imagej": True}, {"spacing": 6.0, "unit": "micrometers"}, (6.0, 0.5, 0.5)),
        (
            {"ome": True},
            {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.25, "PhysicalSizeZ": 6.0},
            (6.0, 0.25, 0.5),
        ),
        ({"ome": True}, {}, None),
        ({}, {}, None),
    ],
)
def test_voxel_sizes_come_from_the_file(tmp_path, options, metadata, size):
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path,
        ramp(3, 6, 7),
        photometric="minisblack",
        resolution=(2.0, 2.0),
        metadata={"axes": "ZYX", **metadata},
        **options,
    )
    opened = open_image(path)
    assert opened.spacing == (None if size is None else pytest.approx(size))
    if size is not None:
        assert set(opened.units) == {"micrometer"}


@pytest.mark.parametrize("unit", ["", "pixel", "furlong"])
def test_imagej_s_depth_of_a_voxel_counts_without_a_known_unit(tmp_path, unit):
    said = {"axes": "ZYX", "spacing": 6.0, **({"unit": unit} if unit else {})}
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, ramp(3, 6, 7), imagej=True, resolution=(2, 2), metadata=said)
    opened = open_image(path)
    assert (opened.spacing, set(opened.units)) == ((6.0, 0.5, 0.5), {"pixel"})


def test_units_written_as_character_references(tmp_path):
    xml = tifffile.OmeXml()
    sizes = {f"PhysicalSize{a}": 0.5 for a in "XY"}
    units = {f"PhysicalSize{a}Unit": "?" for a in "XY"}
    xml.addimage(np.uint8, (6, 7), (1, 1, 1, 6, 7, 1), axes="YX", **sizes, **units)
    said = xml.tostring().replace('"?"', '"&#181;m"').encode()
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, ramp(6, 7), description=said, metadata=None)
    opened = open_image(path)
    assert (opened.spacing, set(opened.units)) == ((0.5, 0.5), {"micrometer"})


@pytest.mark.parametrize("scale", [[6, np.nan, 1], [np.inf, 1, 1], ["6", "1", "1"]])
def test_sizes_that_are_none_are_left_out(tmp_path, scale):
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    said = ome("0.4", "zyx")
    steps = [{"type": "scale", "scale": scale}]
    said["multiscales"][0]["datasets"][0]["coordinateTransformations"] = steps
    group.attrs.update(said)
    group.create_array("0", data=ramp(3, 6, 7))
    assert open_image(tmp_path / "a.zarr").spacing is None


@pytest.mark.parametrize("name", ["stack", "stack.flex", "stack.png", "stack.tf2"])
@pytest.mark.parametrize("options", [{}, {"bigtiff": True}, {"byteorder": ">"}])
def test_a_tiff_of_another_name_has_all_its_planes(tmp_path, name, options):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, ramp(5, 6, 7), photometric="minisblack", **options)
    opened = open_image(path.rename(tmp_path / name))
    np.testing.assert_array_equal(opened.read(), ramp(5, 6, 7))


def test_a_pyramid_of_another_name_has_its_levels_and_axes(tmp_path):
    path = tmp_path / "slide.dat"
    with tifffile.TiffWriter(path) as file:
        file.write(ramp(64, 96), tile=(16, 16), subifds=1)
        file.write(ramp(32, 48), tile=(16, 16), subfiletype=1)
    assert open_image(path, level=1).shape == (32, 48)
    assert count_levels(path) == 2
    assert axes_in(path) == (("y", "x"), (64, 96))


def test_a_person_names_the_axes():
    from napari_cfrseg.io.named_axes import OpenImage

    opened = OpenImage(ramp(1, 3, 6, 7), ("t", "z", "y", "x"), (1.0, 2.0, 3.0, 4.0))
    for axes in ("TCYX", "cyx"):
        found = opened.named(axes).arranged()
        assert found.axes == ("y", "x", "c")
        assert found.spacing == (3.0, 4.0)
        assert not found.is_rgb
    assert opened.named("SYX").arranged().is_rgb
    for wrong in ("YX", "CCYX", "TZAB", ""):
        with pytest.raises(ImageError, match="axes"):
            opened.named(wrong)


def test_channels_are_chosen_without_reading_the_others(tmp_path):
    path = tmp_path / "a.tif"
    data = ramp(6, 6, 7)
    tifffile.imwrite(
        path, data, ome=True, photometric="minisblack", metadata={"axes": "CYX"}
    )
    opened = open_image(path).arranged()
    np.testing.assert_array_equal(opened.with_channels([4]).read(), data[4])
    two = opened.with_channels([5, 0])
    np.testing.assert_array_equal(two.array[2:4, 1], data[[5, 0], 2:4, 1].T)
    with pytest.raises(ImageError, match="the image has 6"):
        opened.with_channels([6])


def several_files(folder, planes=4, **options):
    """Write an OME-TIFF of one file per plane; return the files."""
    paths = [folder / f"z{z}.ome.tif" for z in range(planes)]
    parts = "".join(
        f'<TiffData FirstZ="{z}" PlaneCount="1" IFD="0">'
        f'<UUID FileName="{path.name}">urn:uuid:{z}</UUID></TiffData>'
        for z, path in enumerate(paths)
    )
    for z, path in enumerate(paths):
        said = (
            '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/'
            f'OME/2016-06" UUID="urn:uuid:{z}"><Image ID="Image:0"><Pixels '
            'DimensionOrder="XYZCT" ID="Pixels:0" SizeC="1" SizeT="1" SizeX="48" '
            f'SizeY="32" SizeZ="{planes}" Type="uint8"><Channel ID="Channel:0:0"/>'
            f"{parts}</Pixels></Image></OME>"
        )
        plane = np.full((32, 48), z + 1, np.uint8)
        options |= {"description": said.encode(), "metadata": None}
        tifffile.imwrite(path, plane, **options)
    return paths


@pytest.mark.parametrize("options", [{}, {"tile": (16, 16), "compression": "zlib"}])
@pytest.mark.parametrize(("small", "whole"), [(1 << 25, 1 << 28), (9, 1 << 28), (9, 9)])
def test_an_image_of_several_files_is_read(
    tmp_path, monkeypatch, options, small, whole
):
    from napari_cfrseg.io import tiff

    monkeypatch.setattr(tiff, "_SMALL_PAGE_BYTES", small)
    monkeypatch.setattr(tiff, "_WHOLE_PAGE_BYTES", whole)
    for path in several_files(tmp_path, **options):
        array = open_image(path).array
        assert [int(array[z, 9, 9]) for z in range(4)] == [1, 2, 3, 4]


def test_an_image_of_several_files_needs_all_of_them(tmp_path):
    paths = several_files(tmp_path)
    paths[2].unlink()
    with pytest.raises(ImageError, match=r"1 of the 4 files .* \(z2\.ome\.tif\): put"):
        open_image(paths[1])
    alone = several_files(tmp_path, 1)[0].rename(tmp_path / "renamed.ome.tif")
    assert open_image(alone).read().max() == 1


def test_planes_that_were_never_written_are_said(tmp_path):
    path = tmp_path / "stopped.ome.tif"
    xml = tifffile.OmeXml()
    xml.addimage(np.uint8, (9, 6, 7), (9, 1, 1, 6, 7, 1), axes="ZYX")
    options = {"description": xml.tostring().encode(), "metadata": None}
    with tifffile.TiffWriter(path) as file:
        for plane in ramp(4, 6, 7, dtype=np.uint8):
            file.write(plane, contiguous=False, **options)
            options = {"metadata": None}
    assert open_image(path).read().any((1, 2)).tolist() == [True] * 4 + [False] * 5
    assert left_out(path).endswith("5 of 9 planes are not in it: shown as zeros.")


def micromanager_file(path, frames, of):
    """Write frames (numbers of time points) of a MicroManager series of so many."""
    summary = {"MicroManagerVersion": "2.0", "Frames": of, "Slices": 1, "Channels": 1}
    said = json.dumps({**summary, "Positions": 1, "Prefix": "run"}).encode()
    tags = [(256, 4, 7), (257, 4, 6), (258, 3, 8), (259, 3, 1), (262, 3, 1)]
    tags += [(273, 4, 0), (274, 3, 1), (277, 3, 1), (278, 4, 6), (279, 4, 42)]
    tags += [(296, 3, 1), (305, 3, 0), (51123, 2, 0)]
    first = 40 + len(said) + len(said) % 2
    each = 2 + 12 * len(tags) + 4 + 42
    entries = struct.pack("<II", 3453623, len(frames))
    pages = b""
    for number, frame in enumerate(frames):
        place = first + number * each
        entries += struct.pack("<IIIII", 0, 0, frame, 0, place)
        pages += struct.pack("<H", len(tags))
        for tag, kind, value in tags:
            value = place + each - 42 if tag == 273 else value
            text = (2, len(said), 40) if tag == 51123 else (kind, 1, value)
            pages += struct.pack("<HHII", tag, *text)
        ends = number == len(frames) - 1
        pages += (
            struct.pack("<I", 0 if ends else place + each) + bytes([frame + 1]) * 42
        )
    head = b"II*\0" + struct.pack("<III", first, 54773648, first + len(pages))
    head += struct.pack("<IIIIII", 483765892, 0, 99384722, 0, 2355492, len(said))
    path.write_bytes((head + said).ljust(first, b" ") + pages + entries)
    return path


def test_a_micromanager_series_says_what_is_missing_of_it(tmp_path):
    names = [f"run_MMStack_Pos0{end}.ome.tif" for end in ("", "_1", "_2")]
    paths = [
        micromanager_file(tmp_path / name, (2 * i, 2 * i + 1), 6)
        for i, name in enumerate(names)
    ]
    assert open_image(paths[0]).read()[:, 3, 3].tolist() == [1, 2, 3, 4, 5, 6]
    assert left_out(paths[0]) == ""
    paths[1].unlink()
    assert open_image(paths[0]).read()[:, 3, 3].tolist() == [1, 2, 0, 0, 5, 6]
    said = "of its 6 planes are in no file beside it: the recording ended early, or"
    assert f": 2 {said}" in left_out(paths[0])
    paths[2].unlink()
    assert open_image(paths[0]).read()[:, 3, 3].tolist() == [1, 2]
    assert f": 4 {said}" in left_out(paths[0])


def test_one_file_of_several_says_so(tmp_path):
    path = tmp_path / "z1.ome.tif"
    xml = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        '<BinaryOnly MetadataFile="z0.companion.ome" UUID="urn:uuid:1"/></OME>'
    )
    tifffile.imwrite(path, ramp(6, 7, dtype=np.uint8), description=xml, metadata=None)
    assert open_image(path).shape == (6, 7)
    assert "one file of several (z0.companion.ome knows all)" in left_out(path)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "jpeg"])
@pytest.mark.parametrize("mode", ["CMYK", "LAB", "YCbCr"])
def test_colours_that_are_no_rgb_are_refused(tmp_path, mode, compression):
    path = tmp_path / "a.tif"
    colours = np.zeros((32, 48, 3), np.uint8)
    colours[:16], colours[16:] = (200, 30, 60), (20, 180, 240)
    picture = Image.fromarray(colours).convert(mode)
    if mode == "LAB" and compression == "jpeg":
        return
    picture.save(path, compression=compression)
    if mode == "YCbCr" and compression == "jpeg":  # decoded to RGB
        assert np.abs(open_image(path).read() - colours.astype(int)).max() < 4
        return
    said = {"LAB": "CIELab"}.get(mode, mode)
    with pytest.raises(ImageError, match=f"its colours are {said}: save it as RGB"):
        open_image(path)


def test_inks_of_other_names_are_channels(tmp_path):
    path = tmp_path / "a.tif"
    inks, inkset = ramp(6, 7, 4, dtype=np.uint8), [(332, "H", 1, 2, True)]
    tifffile.imwrite(path, inks, photometric="separated", extratags=inkset)
    opened = open_image(path)
    assert not opened.is_rgb
    np.testing.assert_array_equal(opened.read(), inks)


def test_pyramid_levels(tmp_path):
    path = tmp_path / "a.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as writer:
        options = {"tile": (16, 16), "metadata": {"axes": "YX", "PhysicalSizeX": 0.5}}
        options["metadata"]["PhysicalSizeY"] = 0.5
        writer.write(ramp(64, 96), subifds=1, **options)
        writer.write(ramp(32, 48), subfiletype=1, tile=(16, 16))
    assert open_image(path, 1).shape == (32, 48)
    assert open_image(path, 1).spacing == (1.0, 1.0)
    with pytest.raises(ImageError, match="no pyramid level 2"):
        open_image(path, 2)
    named = open_image(path, levels=2, axes="XY")
    assert named.axes == ("x", "y")
    assert [level.shape for level in named.array.levels] == [(64, 96), (32, 48)]


def test_large_pages_are_read_tile_by_tile(tmp_path, monkeypatch):
    from napari_cfrseg.io import tiff

    monkeypatch.setattr(tiff, "_WHOLE_PAGE_BYTES", 1000)
    path = tmp_path / "a.tif"
    data = ramp(3, 64, 96)
    tifffile.imwrite(
        path, data, tile=(16, 16), compression="zlib", photometric="minisblack"
    )
    array = open_image(path).array
    plane = plane_of(array, (1,))
    np.testing.assert_array_equal(plane[5:20, 30:50], data[1, 5:20, 30:50])
    np.testing.assert_array_equal(turned(array, (1, 0, 2))[7], data[:, 7])
    del array  # the view keeps the file open
    np.testing.assert_array_equal(np.asarray(plane), data[1])


def header(width: int, height: int) -> bytes:
    """Return a TIFF that promises far more pixels than it has."""
    data = zlib.compress(bytes(1000))
    entries = [
        (256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, 8), (262, 3, 1),
        (273, 4, 122), (277, 3, 1), (278, 4, height), (279, 4, len(data)),
    ]  # fmt: skip
    body = b"II*\0" + struct.pack("<IH", 8, len(entries))
    for tag, kind, value in entries:
        packed = struct.pack("<I", value) if kind == 4 else struct.pack("<HH", value, 0)
        body += struct.pack("<HHI", tag, kind, 1) + packed
    return body + struct.pack("<I", 0) + data


def bomb(width: int, height: int) -> bytes:
    """Return a PNG that promises far more pixels than it has."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + crc

    size = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(bytes(100)))
    return b"\x89PNG\r\n\x1a\n" + chunks + chunk(b"IEND", b"")


def test_files_that_lie_about_their_size_are_refused(tmp_path):
    (tmp_path / "a.tif").write_bytes(header(200_000, 200_000))
    with pytest.raises(ImageError, match=r"pieces of 40\.0 GB"):
        open_image(tmp_path / "a.tif")
    (tmp_path / "a.png").write_bytes(bomb(14_000, 14_000))
    with pytest.raises(ImageError, match=r"truncated|broken"):
        open_image(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes(bomb(2_000_000, 2_000_000))
    with pytest.raises(ImageError, match="half of this machine's memory: save it as"):
        open_image(tmp_path / "a.png")


def test_planes_that_no_file_can_hold_are_refused_at_once(tmp_path):
    path = tmp_path / "a.ome.tif"
    xml = tifffile.OmeXml()
    xml.addimage(np.uint8, (6, 7), (1, 1, 1, 6, 7, 1), axes="YX")
    said = xml.tostring().replace('SizeZ="1"', 'SizeZ="1000000000"').encode()
    tifffile.imwrite(path, ramp(6, 7), description=said, metadata=None)
    with pytest.raises(ImageError, match=r"says it has .*1000000000.* planes"):
        open_image(path)


def test_damaged_files_end_in_one_line(tmp_path):
    """A list of pages that leads back to itself, half a piece, an endless header."""
    pages = tmp_path / "a.tif"
    tifffile.imwrite(pages, np.zeros((3, 8, 8), np.uint8), photometric="minisblack")
    with tifffile.TiffFile(pages) as file:
        last = file.pages[2].offset
        start = last + 2 + 12 * len(file.pages[2].tags)
    content = bytearray(pages.read_bytes())
    content[start : start + 4] = struct.pack("<I", last)
    pages.write_bytes(content)
    with pytest.raises(ImageError, match="list of pages is damaged"):
        open_image(pages)
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    codec = numcodecs.Blosc(cname="lz4")
    group.create_array(
        "0", data=np.arange(4096, dtype="u2").reshape(64, 64), compressors=codec
    )
    group.attrs["multiscales"] = [{"axes": ["y", "x"], "datasets": [{"path": "0"}]}]
    assert read_image(tmp_path / "a.zarr")[1, 1] == 65
    piece = tmp_path / "a.zarr" / "0" / "0.0"
    piece.write_bytes(piece.read_bytes()[:30])
    with pytest.raises(ImageError, match="damaged: 30 bytes of a Blosc piece"):
        read_image(tmp_path / "a.zarr")
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (2, 2), }".ljust(
        20_000
    )
    size = struct.pack("<H", len(header))
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00" + size + header + bytes(4))
    with pytest.raises(
        ImageError, match=r"a\.npy is no array of numbers, or its header"
    ):
        open_image(tmp_path / "a.npy")


def test_a_picture_above_pillow_s_limit_is_read(tmp_path):
    pixels = np.zeros((13_400, 13_400), np.uint8)
    pixels[13_000, 12_000] = 255
    limit = Image.MAX_IMAGE_PIXELS
    Image.fromarray(pixels).save(tmp_path / "a.png", compress_level=1)
    found = open_image(tmp_path / "a.png")
    assert found.shape == pixels.shape
    assert found.array[13_000, 11_999:12_002].tolist() == [0, 255, 0]
    assert limit == Image.MAX_IMAGE_PIXELS


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_only_regular_files_are_opened(tmp_path):
    for name in ("a.tif", "a.png", "a.npy"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(ImageError, match="no regular file"):
            open_image(tmp_path / name)
    (tmp_path / "a.zarr").mkdir()
    os.mkfifo(tmp_path / "a.zarr" / "zarr.json")
    with pytest.raises(ImageError, match="no regular file"):
        open_image(tmp_path / "a.zarr")


@pytest.mark.parametrize("name", ["a.tif", "a.png", "a.npy", "a.jpg", "a.xyz"])
def test_what_is_no_image_is_named(tmp_path, name):
    with pytest.raises(ImageError, match="no such image"):
        open_image(tmp_path / name)
    (tmp_path / name).write_bytes(b"no image at all")
    with pytest.raises(ImageError, match=name):
        open_image(tmp_path / name)


def test_python_objects_and_numbers_that_are_no_pixels_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{}, 1]), allow_pickle=True)
    with pytest.raises(ImageError) as raised:
        open_image(tmp_path / "a.npy")
    assert "allow_pickle" not in str(raised.value)
    np.save(tmp_path / "c.npy", np.zeros((4, 5), complex))
    with pytest.raises(ImageError, match="complex128"):
        open_image(tmp_path / "c.npy")


def test_labels_saved_as_floats_or_masks_are_numbers(tmp_path):
    numbers = np.array([[0, 3], [70_000, 1]])
    tifffile.imwrite(tmp_path / "f.tif", numbers.astype(np.float32))
    assert read_labels(tmp_path / "f.tif").tolist() == numbers.tolist()
    np.save(tmp_path / "m.npy", numbers > 0)
    assert read_labels(tmp_path / "m.npy").dtype == np.uint8
    tifffile.imwrite(tmp_path / "h.tif", numbers / np.float32(2))
    with pytest.raises(ImageError, match="fractions"):
        read_labels(tmp_path / "h.tif")
    tifffile.imwrite(tmp_path / "z.tif", np.zeros((1, 4, 5), np.uint8), ome=True)
    assert open_labels(tmp_path / "z.tif").shape == (4, 5)


@pytest.mark.parametrize(
    ("axes", "shape", "labels", "fits"),
    [
        ("CYX", (3, 6, 7), (6, 7), True),
        ("ZYX", (3, 6, 7), (6, 7), False),  # a stack is no image of three channels
        ("ZCYX", (5, 2, 6, 7), (5, 6, 7), True),
        ("CZYX", (2, 5, 6, 7), (5, 6, 7), True),
        ("CYX", (7, 6, 7), (6, 7), True),  # of many named channels a few are used
        ("QYX", (7, 6, 7), (6, 7), False),
        ("QYX", (3, 6, 7), (6, 7), True),
        ("QYX", (3, 6, 7), (3, 6, 7), True),
    ],
)
def test_an_image_is_arranged_as_its_labels_are(tmp_path, axes, shape, labels, fits):
    path = tmp_path / "a.tif"
    plain = axes.startswith("Q")
    tifffile.imwrite(
        path,
        ramp(*shape, dtype=np.uint8),
        photometric="minisblack",
        ome=not plain,
        metadata=None if plain else {"axes": axes},
    )
    opened = open_image(path)
    if not fits:
        with pytest.raises(ImageError, match="expected the same"):
            opened.fitted(labels, "a")
        return
    found = opened.fitted(labels, "a")
    assert found.shape[: len(labels)] == labels
    plane = found.plane(*(0,) * (len(labels) - 2))
    # channels are told from colours by their type
    assert plane.dtype == (np.uint16 if found.has_channels else np.uint8)


def test_a_folder_lists_each_stem_once(tmp_path):
    for name in ("b.png", "a.ome.tif", "b.tif", "c.npy", "d.txt"):
        (tmp_path / name).touch()
    (tmp_path / "e.zarr").mkdir()
    found = image_files(tmp_path)
    assert {stem: path.name for stem, path in found.items()} == {
        "a": "a.ome.tif", "b": "b.tif", "c": "c.npy", "e": "e.zarr",
    }  # fmt: skip


def test_pixels_that_cannot_be_decoded_are_an_error_when_they_are_read(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, ramp(3, 64, 64), compression="zlib", photometric="minisblack"
    )
    with tifffile.TiffFile(path) as file:
        start = file.pages[1].dataoffsets[0]
    content = bytearray(path.read_bytes())
    content[start : start + 20] = bytes(20)
    path.write_bytes(content)
    array = open_image(path).array
    assert array[0].shape == (64, 64)
    with pytest.raises(CfrSegError, match=r"a\.tif cannot be decoded"):
        array[1]
