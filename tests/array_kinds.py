"""Fifty kinds of arrays as napari layers, and the same pixels as files for the shell.

Axes, type, channels, place and storage vary; a disc lies at one place of the plane that
is clicked on, in the first and the last channel that is used, and elsewhere on others.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import tifffile
import zarr

SHAPE, CENTRE, RADIUS = (64, 96), (26, 60), 11
ELSEWHERE = (40, 24)
SIZES = {"t": 3, "z": 4, "s": 3, "y": SHAPE[0], "x": SHAPE[1]}
#: dark and bright of each type
LEVELS = {"b": (0, 1), "u1": (20, 200), "i1": (-90, 90), "f": (-1.5, 7.25)}
#: the plane that is clicked on, along every axis
PLANE = 1


def disc(centre: tuple[int, int] = CENTRE) -> np.ndarray:
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= RADIUS**2


def turn(degrees: float) -> np.ndarray:
    """Return a rotation of y and x."""
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.array([[c, -s], [s, c]])


@dataclass(frozen=True)
class ArrayKind:
    """One kind of array.

    Attributes
    ----------
    axes
        "c" for channels, "s" for colours.
    channels
        How many; the first three of more than four are used.
    split
        Whether each channel is a layer of its own.
    place
        Which transform the layer has: "", "scale", "translate", "rotate", "affine",
        "flip" (a negative scale) or "shear".
    store
        numpy, dask, zarr, sharded (Zarr 3), memmap or pyramid.
    file
        What the shell gets: tif, imagej (a hyperstack), zarr, sharded or npy.
    has_holes
        Whether some pixels are not a number, or infinite.
    """

    axes: str
    dtype: str = "u2"
    channels: int = 2
    split: bool = False
    place: str = ""
    store: str = "numpy"
    file: str = "tif"
    has_holes: bool = False

    @property
    def name(self) -> str:
        parts = [self.axes, self.dtype]
        if "c" in self.axes:
            parts.append(f"{self.channels}{'split' if self.split else 'ch'}")
        parts += ["holes"] if self.has_holes else []
        return "-".join([*parts, *filter(None, [self.place, self.store, self.file])])

    @property
    def leading(self) -> str:
        return "".join(a for a in self.axes if a not in "yxcs")

    def array(self) -> np.ndarray:
        sizes = {**SIZES, "c": self.channels}
        mask = np.zeros([sizes[a] for a in self.axes], bool)
        order = [*self.leading, *(a for a in "cs" if a in self.axes), "y", "x"]
        planes = mask.transpose([self.axes.index(a) for a in order])
        planes[...] = disc(ELSEWHERE)
        planes[(PLANE,) * len(self.leading)] = disc()
        if "c" in self.axes:
            used = self.channels if self.channels <= 4 else 3
            planes[..., 1 : used - 1, :, :] = False
            planes[..., used:, :, :] = ~disc((CENTRE[0], CENTRE[1] + 8))
        dtype = np.dtype(self.dtype)
        key = dtype.kind if dtype.kind in "bf" else dtype.str[1:]
        low, high = LEVELS.get(key, (300, 30_000))
        values = np.where(mask, high, low).astype(dtype)
        if self.has_holes:
            values[..., :6, :] = np.nan
            values[..., 60:, :30] = np.inf
        if "s" in self.axes and self.channels == 4:  # opaque colours
            values = np.concatenate([values, np.full_like(values[..., :1], 255)], -1)
        return values

    def transform(self, ndim: int) -> dict[str, Any]:
        linear = np.eye(ndim + 1)
        linear[-3:-1, -3:-1] = 0.5 * turn(30)
        linear[:-1, -1] = 4
        sheared = np.eye(ndim + 1)
        sheared[-3, -2] = 0.4
        turned = np.eye(ndim)
        turned[-2:, -2:] = turn(40)
        return {
            "": {},
            "scale": {"scale": (*(3.0,) * (ndim - 2), 0.25, 0.25)},
            "translate": {"translate": (*(7.0,) * (ndim - 2), -40, 12)},
            "rotate": {"rotate": turned},
            "affine": {"affine": linear},
            "flip": {"scale": (*(1.0,) * (ndim - 2), -0.5, 0.5)},
            "shear": {"affine": sheared},
        }[self.place]

    def stored(self, folder: Path) -> Any:
        array = self.array()
        small = tuple(max(n // 2, 1) if n > 4 else n for n in array.shape)
        match self.store:
            case "dask":
                return da.from_array(array, chunks=small)
            case "zarr":
                return zarr.array(array, chunks=small)
            case "sharded":
                shards = tuple(2 * n for n in small)
                return zarr.create_array({}, data=array, chunks=small, shards=shards)
            case "memmap":
                np.save(folder / "layer.npy", array)
                return np.load(folder / "layer.npy", mmap_mode="r")
            case "pyramid":
                steps = [2 if a in "yx" else 1 for a in self.axes]
                return [array, array[tuple(slice(None, None, s) for s in steps)]]
        return array

    def add(self, viewer: Any, folder: Path) -> None:
        """Add the array to a viewer as a person would."""
        split = self.axes.index("c") if self.split else None
        names = tuple(a for i, a in enumerate(self.axes) if a != "s" and i != split)
        options = {
            "name": "specimen",
            "rgb": "s" in self.axes,
            "multiscale": self.store == "pyramid",
            "axis_labels": names,
            **self.transform(len(names)),
        }
        if split is not None:
            options["channel_axis"] = split
        viewer.add_image(self.stored(folder), **options)
        # napari selects the last channel, and the selected one is always used
        viewer.layers.selection.active = viewer.layers[0]

    def write(self, folder: Path) -> list[str]:
        """Write the array as a file; return it and the options the shell needs."""
        array, axes = self.array(), self.axes.upper()
        path = folder / f"specimen.{self.file}"
        sides = [SIZES[a] for a in self.leading]
        plane = np.ravel_multi_index((PLANE,) * len(sides), sides) if sides else 0
        more = ["--plane", str(plane)] if sides else []
        if self.file == "npy":
            np.save(path, array)
            return [str(path), "--axes", axes, *more]
        if self.file == "imagej":
            path = path.with_suffix(".tif")
            tifffile.imwrite(path, array, imagej=True, metadata={"axes": axes})
            return [str(path), *more]
        if self.file in ("zarr", "sharded"):
            path = path.with_suffix(".zarr")
            group = zarr.open_group(path, mode="w", zarr_format=3)
            kinds = {"t": "time", "c": "channel", "s": "channel"}
            listed = [{"name": a, "type": kinds.get(a, "space")} for a in self.axes]
            scales = [{"axes": listed, "datasets": [{"path": "0"}]}]
            group.attrs.update({"ome": {"version": "0.5", "multiscales": scales}})
            cut: dict[str, Any] = {}
            if self.file == "sharded":
                chunks = tuple(max(n // 4, 1) for n in array.shape)
                both = zip(array.shape, chunks, strict=True)
                cut = {
                    "chunks": chunks,
                    "shards": tuple(-(-n // c) * c for n, c in both),
                }
            group.create_array("0", data=array, **cut)
            named = ["--axes", axes] if "s" in self.axes else []
            return [str(path), *named, *more]
        colours = "rgb" if "s" in self.axes else "minisblack"
        tifffile.imwrite(path, array, photometric=colours, metadata={"axes": axes})
        return [str(path), *more]


def _(*given: Any, **said: Any) -> ArrayKind:
    return ArrayKind(*given, **said)


KINDS = [
    # the default set: each axis order, storage and transform once
    _("yx", "u1"),
    _("zyx", "u2", place="scale", store="dask"),
    _("tyx", "f4", store="zarr", file="zarr"),
    _("cyx", "u2", 2, place="rotate"),
    _("cyx", "u1", 3, split=True),
    _("cyx", "u2", 8, split=True, store="dask", file="zarr"),
    _("yxc", "f4", 2, place="scale", file="npy"),
    _("zcyx", "u1", 3, place="affine", store="zarr"),
    _("tczyx", "u2", 2, store="dask", file="zarr"),
    _("yxs", "u1", place="translate", store="pyramid"),
    # the others
    _("yx", "?"),
    _("yx", "i1", place="rotate", file="npy"),
    _("yx", "u4", place="affine"),
    _("yx", "i2", store="memmap", file="npy"),
    _("yx", "f2", place="translate"),
    _("yx", "f8", store="pyramid", file="zarr"),
    _("yx", "i4", store="zarr", file="zarr"),
    _("zyx", "u1", store="memmap", file="npy"),
    _("zyx", "f4", place="rotate", store="pyramid"),
    _("zyx", "i2", place="affine"),
    _("zyx", "?", store="zarr", file="zarr"),
    _("tyx", "u1", place="translate", store="dask"),
    _("tyx", "u2", place="scale"),
    _("tzyx", "u2", place="scale", store="dask", file="zarr"),
    _("ztyx", "u1", file="npy"),
    _("cyx", "f4", 4, store="dask", file="zarr"),
    _("cyx", "u1", 4, place="translate", store="memmap", file="npy"),
    _("cyx", "u1", 32, store="zarr", file="zarr"),
    _("cyx", "i2", 5, place="affine", store="pyramid"),
    _("cyx", "f4", 2, split=True, place="rotate"),
    _("cyx", "u2", 32, split=True, place="scale", file="npy"),
    _("yxc", "u2", 4, store="memmap", file="npy"),
    _("czyx", "u2", 2, place="scale"),
    _("czyx", "u1", 3, split=True, store="dask", file="zarr"),
    _("zcyx", "f4", 2, store="memmap", file="npy"),
    _("tcyx", "u2", 5, store="dask"),
    _("ctzyx", "u1", 2, file="npy"),
    _("tzcyx", "u2", 3, place="translate", store="zarr", file="zarr"),
    _("zyxs", "u1", place="scale", store="dask"),
    _("tyxs", "u1", store="zarr", file="zarr"),
    # types, places and stores that are met less often
    _("yx", "f8", place="flip", has_holes=True),
    _("zyx", "f4", place="shear", store="dask", file="npy", has_holes=True),
    _("yx", ">u2", file="npy"),
    _("zyx", ">f4", store="memmap", file="npy"),
    _("yx", "i8", store="sharded", file="sharded"),
    _("yx", "u8", place="shear", file="npy"),
    _("zyx", "u2", place="flip", store="sharded", file="sharded"),
    _("yxc", "u2", 3, store="dask", file="npy"),
    _("yxs", "u1", 4, place="flip", store="dask"),
    _("tzcyx", "u2", 2, place="scale", store="memmap", file="imagej"),
    _("zyx", "u1", place="rotate", file="imagej"),
]  # fmt: skip
DEFAULT = 10
