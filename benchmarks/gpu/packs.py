"""Labelled images packed into one zip: PNGs and an index, bit-exact labels.

A pack is what travels to a machine without the original files: scaled 8-bit images
and 16-bit labels, one PNG each, and ``index.json`` with data set and source group. An
atlas made of packs can be kept in a file that several processes share.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Container, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from cfrseg_training.loop.atlas import Atlas, Sample
from napari_cfrseg.errors import DatasetError


def write_pack(samples: Iterable[Sample], path: Path) -> int:
    """Write samples into one pack, atomically; return its size in bytes."""
    partial = path.with_suffix(".partial")
    index = []
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
        for number, sample in enumerate(samples):
            grey = bool((sample.image == sample.image[..., :1]).all())
            pixels = sample.image[..., 0] if grey else sample.image
            archive.writestr(f"{number}.image.png", _png(pixels))
            archive.writestr(f"{number}.labels.png", _png(sample.labels))
            index.append(
                {
                    "dataset": sample.dataset,
                    "group": sample.group,
                    "sparse": sample.is_sparse,
                }
            )
        archive.writestr("index.json", json.dumps(index))
    partial.replace(path)
    return path.stat().st_size


def read_pack(path: Path) -> Iterator[Sample]:
    """Read what ``write_pack`` wrote.

    Raises
    ------
    DatasetError
        The file is no pack.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            index = json.loads(archive.read("index.json"))
            for number, entry in enumerate(index):
                image = _array(archive.read(f"{number}.image.png"))
                if image.ndim == 2:
                    image = np.repeat(image[..., None], 3, axis=2)
                labels = _array(archive.read(f"{number}.labels.png"))
                yield Sample(
                    image.astype(np.uint8),
                    labels.astype(np.int32),
                    entry["dataset"],
                    entry["group"],
                    entry["sparse"],
                )
    except (zipfile.BadZipFile, KeyError, json.JSONDecodeError) as error:
        msg = f"{path} is not a pack of labelled images: {error}"
        raise DatasetError(msg) from error


def read_side(packs: Path, side: str, without: Container[str] = ()) -> list[Sample]:
    """Read every pack of one side of the split, ``packs / SIDE-*.zip``.

    Images of the data sets ``without`` are left out.

    Raises
    ------
    DatasetError
        If one of them is damaged.
    """
    read = (s for p in sorted(packs.glob(f"{side}-*.zip")) for s in read_pack(p))
    return [s for s in read if s.dataset not in without]


def save_atlas(atlas: Atlas, path: Path) -> None:
    """Write an atlas; the file is whole or not there."""
    partial = path.with_suffix(".partial")
    kept = {k: v for k, v in vars(atlas).items() if isinstance(v, torch.Tensor)}
    torch.save(kept, partial)
    partial.replace(path)


def open_atlas(path: Path) -> Atlas:
    """Open what ``save_atlas`` wrote; its pixels stay on the disk until they are read.

    Every process that opens the file has the same pages in memory.
    """
    atlas = Atlas.__new__(Atlas)
    atlas.device = torch.device("cpu")
    atlas.object_real = None
    state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    for name, tensor in state.items():
        setattr(atlas, name, tensor)
    return atlas


def _png(pixels: NDArray[np.integer[Any]]) -> bytes:
    if pixels.dtype != np.uint8:
        low, high = int(pixels.min()), int(pixels.max())
        if low < 0 or high > np.iinfo(np.uint16).max:
            msg = f"labels from {low} to {high} do not fit 16 bits"
            raise ValueError(msg)
        pixels = pixels.astype(np.uint16)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", optimize=True)
    return stream.getvalue()


def _array(png: bytes) -> NDArray[np.generic]:
    return np.asarray(Image.open(io.BytesIO(png)))
