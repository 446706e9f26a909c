"""Sixty kinds of image files with one bright disc, as microscopes and programs write.

Format, axes, type, compression and metadata vary; the disc is always in the same place,
in the last channel where there are channels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import zarr
from PIL import Image

SHAPE = (48, 64)
CENTRE, RADIUS = (22, 36), 9
SIZES = {"t": 2, "z": 4, "c": 3, "s": 3, "y": SHAPE[0], "x": SHAPE[1], "q": 5}
#: dark and bright of each type
LEVELS = {"b": (0, 1), "u1": (20, 200), "i2": (-200, 3000), "f": (-1.5, 7.25)}


def disc() -> np.ndarray:
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return (y - CENTRE[0]) ** 2 + (x - CENTRE[1]) ** 2 <= RADIUS**2


@dataclass(frozen=True)
class Kind:
    """One kind of file.

    Attributes
    ----------
    name
        With its ending.
    axes
        Of the array that is written; "s" for colours.
    arranged
        What they are once read.
    """

    name: str
    axes: str
    dtype: str
    arranged: str
    write: Callable[[Path, np.ndarray], None]
    sizes: dict[str, int] = field(default_factory=dict)
    voxel: tuple[float, ...] | None = None

    @property
    def is_rgb(self) -> bool:
        return "s" in self.axes

    @property
    def leading(self) -> tuple[int, ...]:
        """Shape of the planes' axes once read."""
        sizes = {**SIZES, **self.sizes}
        return tuple(sizes[a] for a in self.arranged if a not in "yxc")

    def array(self) -> np.ndarray:
        sizes = {**SIZES, **self.sizes}
        shape = tuple(sizes[a] for a in self.axes)
        dtype = np.dtype(self.dtype)
        key = dtype.kind if dtype.kind in "bf" else dtype.str[1:]
        low, high = LEVELS.get(key, (300, 30_000))
        mask = np.zeros(shape, bool)
        last = np.moveaxis(mask, [self.axes.index("y"), self.axes.index("x")], (-2, -1))
        last[...] = disc()
        if "c" in self.axes:  # in the last channel only
            channels = np.moveaxis(mask, self.axes.index("c"), 0)
            channels[: len(channels) - 1] = False
        return np.where(mask, high, low).astype(dtype)

    def make(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / self.name
        self.write(path, self.array())
        return path


def tiff(**options: Any) -> Callable[[Path, np.ndarray], None]:
    options = {"photometric": "minisblack", **options}
    return lambda path, array: tifffile.imwrite(path, array, **options)


def named(axes: str, **more: Any) -> dict[str, Any]:
    return {"metadata": {"axes": axes.upper(), **more}}


def pil(mode: str, **options: Any) -> Callable[[Path, np.ndarray], None]:
    def write(path: Path, array: np.ndarray) -> None:
        if mode == "1":
            picture = Image.fromarray(array.astype(np.uint8) * 255).convert("1")
        elif mode in ("P", "LA", "RGBA"):
            picture = Image.fromarray(array).convert(mode)
        else:
            picture = Image.fromarray(array)
        picture.save(path, **options)

    return write


def npy(path: Path, array: np.ndarray) -> None:
    np.save(path, array)


def npy_other_order(path: Path, array: np.ndarray) -> None:
    np.save(path, np.asfortranarray(array.astype(array.dtype.newbyteorder(">"))))


def ngff(
    axes: str, version: str, *, root: str = "", spacing: float | None = None
) -> Callable[[Path, np.ndarray], None]:
    def write(path: Path, array: np.ndarray) -> None:
        form = 3 if version == "0.5" else 2
        group = zarr.open_group(path, mode="w", zarr_format=form)
        if root:
            group.attrs["bioformats2raw.layout"] = 3
            group = group.create_group(root)
        kinds = {"t": "time", "c": "channel"}
        listed = [{"name": a, "type": kinds.get(a, "space")} for a in axes]
        dataset: dict[str, Any] = {"path": "0"}
        if spacing is not None:
            sizes = [spacing * (1 + (a == "z")) for a in axes]
            dataset["coordinateTransformations"] = [{"type": "scale", "scale": sizes}]
        said = {"multiscales": [{"axes": listed, "datasets": [dataset]}]}
        group.attrs.update({"ome": said} if version == "0.5" else said)
        group.create_array(
            "0", data=array, chunks=tuple(min(n, 32) for n in array.shape)
        )

    return write


def plain_zarr(path: Path, array: np.ndarray) -> None:
    zarr.create_array(path, data=array)


def palette(path: Path, array: np.ndarray) -> None:
    table = np.repeat(np.arange(256, dtype=np.uint16)[None] * 257, 3, axis=0)
    tifffile.imwrite(path, array, photometric="palette", colormap=table)


UM = {"spacing": 6.0, "unit": "um"}
OME = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5, "PhysicalSizeZ": 6.0}
CALIBRATED = (6.0, 0.5, 0.5)
IJ = {"imagej": True}

KINDS = [
    *(
        Kind(f"plain_{dtype}.tif", "yx", dtype, "yx", tiff())
        for dtype in ("?", "u1", "u2", "u4", "i2", "i4", "f2", "f4", "f8")
    ),
    *(
        Kind(f"{name}.tif", "yx", "u1", "yx", tiff(compression=name))
        for name in ("lzw", "zlib", "packbits", "zstd", "lzma", "jpeg")
    ),
    Kind("predictor.tif", "yx", "u2", "yx", tiff(compression="lzw", predictor=2)),
    Kind("predictor_f.tif", "yx", "f4", "yx", tiff(compression="zlib", predictor=3)),
    Kind("big.tif", "yx", "u2", "yx", tiff(bigtiff=True)),
    Kind("motorola.tif", "yx", "u2", "yx", tiff(byteorder=">")),
    Kind("tiles.tif", "yx", "u2", "yx", tiff(tile=(16, 16), compression="zlib")),
    Kind("strips.TIFF", "yx", "u1", "yx", tiff(rowsperstrip=5, compression="lzw")),
    Kind("pages.tif", "qyx", "u1", "qyx", tiff()),
    Kind("pages_lzw.tif", "qyx", "u2", "qyx", tiff(compression="lzw")),
    Kind("three_pages.tif", "qyx", "u1", "qyx", tiff(), {"q": 3}),
    Kind("rgb.tif", "yxs", "u1", "yxc", tiff(photometric="rgb")),
    Kind("rgba.tif", "yxs", "u1", "yxc", tiff(photometric="rgb"), {"s": 4}),
    Kind("rgb16.tif", "yxs", "u2", "yxc", tiff(photometric="rgb", compression="lzw")),
    Kind(
        "rgb_jpeg.tif", "yxs", "u1", "yxc", tiff(photometric="rgb", compression="jpeg")
    ),
    Kind(
        "rgb_planar.tif", "syx", "u1", "yxc",
        tiff(photometric="rgb", planarconfig="separate"),
    ),
    Kind(
        "interleaved.tif", "yxc", "u1", "yxc",
        tiff(planarconfig="contig", extrasamples=["unspecified"] * 3), {"c": 4},
    ),
    Kind("palette.tif", "yx", "u1", "yxc", palette),
    Kind(
        "imagej_z.tif", "zyx", "u2", "zyx",
        tiff(**IJ, **named("zyx", **UM), resolution=(2.0, 2.0)), voxel=CALIBRATED,
    ),
    Kind("imagej_z_bytes.tif", "zyx", "u1", "zyx", tiff(**IJ, **named("zyx"))),
    Kind("imagej_c2.tif", "cyx", "u2", "yxc", tiff(**IJ, **named("cyx")), {"c": 2}),
    Kind("imagej_c4.tif", "cyx", "u1", "yxc", tiff(**IJ, **named("cyx")), {"c": 4}),
    Kind("imagej_zc.tif", "zcyx", "u2", "zyxc", tiff(**IJ, **named("zcyx"))),
    Kind("imagej_t.tif", "tyx", "u1", "tyx", tiff(**IJ, **named("tyx"))),
    Kind("imagej_tzc.tif", "tzcyx", "u1", "tzyxc", tiff(**IJ, **named("tzcyx"))),
    Kind("imagej_float.tif", "zyx", "f4", "zyx", tiff(**IJ, **named("zyx"))),
    Kind(
        "z.ome.tif", "zyx", "u2", "zyx", tiff(ome=True, **named("zyx", **OME)),
        voxel=CALIBRATED,
    ),
    Kind(
        "z_zlib.ome.tif", "zyx", "u1", "zyx",
        tiff(ome=True, compression="zlib", **named("zyx", **OME)), voxel=CALIBRATED,
    ),
    Kind("c4.ome.tif", "cyx", "u1", "yxc", tiff(ome=True, **named("cyx")), {"c": 4}),
    Kind("c3.ome.tif", "cyx", "u2", "yxc", tiff(ome=True, **named("cyx"))),
    Kind("cz.ome.tif", "czyx", "u1", "zyxc", tiff(ome=True, **named("czyx"))),
    Kind("single.ome.tif", "tczyx", "u2", "zyx",
         tiff(ome=True, **named("tczyx")), {"t": 1, "c": 1}),
    Kind("rgb.ome.tif", "yxs", "u1", "yxc",
         tiff(ome=True, photometric="rgb", **named("yxs"))),
    Kind("grey.png", "yx", "u1", "yx", pil("L")),
    Kind("bits.png", "yx", "?", "yx", pil("1")),
    Kind("grey16.png", "yx", "u2", "yx", pil("I;16")),
    Kind("rgb.png", "yxs", "u1", "yxc", pil("RGB")),
    Kind("rgba.png", "yxs", "u1", "yxc", pil("RGBA"), {"s": 4}),
    Kind("grey_alpha.png", "yx", "u1", "yx", pil("LA")),
    Kind("palette.png", "yx", "u1", "yxc", pil("P")),
    Kind("grey.jpg", "yx", "u1", "yx", pil("L", quality=95)),
    Kind("rgb.jpeg", "yxs", "u1", "yxc", pil("RGB", quality=95)),
    Kind("grey.bmp", "yx", "u1", "yx", pil("L")),
    Kind("bytes.npy", "yx", "u1", "yx", npy),
    Kind("float.npy", "yx", "f4", "yx", npy_other_order),
    Kind("stack.npy", "qyx", "u2", "qyx", npy),
    Kind("channels_last.npy", "yxc", "u1", "yxc", npy),
    Kind("yx04.zarr", "yx", "u1", "yx", ngff("yx", "0.4")),
    Kind("cyx04.zarr", "cyx", "u2", "yxc", ngff("cyx", "0.4")),
    Kind("zyx05.zarr", "zyx", "u2", "zyx", ngff("zyx", "0.5", spacing=0.5),
         voxel=(1.0, 0.5, 0.5)),
    Kind("all05.zarr", "tczyx", "u1", "zyx", ngff("tczyx", "0.5"), {"t": 1, "c": 1}),
    Kind("czyx05.zarr", "czyx", "f4", "zyxc", ngff("czyx", "0.5")),
    Kind("raw.zarr", "tczyx", "u2", "zyx", ngff("tczyx", "0.4", root="0"),
         {"t": 1, "c": 1}),
    Kind("array.zarr", "zyx", "u1", "zyx", plain_zarr),
]  # fmt: skip
