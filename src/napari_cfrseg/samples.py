"""The bundled micrographs: small real images with labels, licence and attribution."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import as_file, files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cfrseg.clicks import Click
from napari_cfrseg.io.images import read_image

_FOLDER = files("napari_cfrseg") / "sample_data"


@dataclass(frozen=True, slots=True)
class Sample:
    """One bundled micrograph."""

    name: str
    title: str
    image: NDArray[np.uint8]  #: (Y, X) or (Y, X, 3) uint8
    #: (Y, X) uint16 instance numbers made or corrected by people, 0 = background
    labels: NDArray[np.uint16]
    #: side of a pixel in µm, None where the source does not say
    pixel_size_um: float | None
    licence: str  #: SPDX identifier of the image's licence
    attribution: str  #: the credit that must go wherever the image goes
    citation: str  #: the publication to cite
    source: str  #: address of the data set


@dataclass(frozen=True, slots=True)
class Demo:
    """The clicks of ``cfrseg demo``: each object's, in order, on a sample."""

    sample: str
    objects: tuple[tuple[Click, ...], ...]


def _entries() -> dict[str, dict[str, Any]]:
    entries = json.loads((_FOLDER / "samples.json").read_text(encoding="utf-8"))
    return {entry["name"]: entry for entry in entries}


def sample_names() -> tuple[str, ...]:
    """Return the names of the bundled micrographs."""
    return tuple(_entries())


def load_sample(name: str) -> Sample:
    """Read a bundled micrograph and its labels; ValueError for an unknown name.

    Examples
    --------
    >>> load_sample("powder_sem").image.shape
    (512, 512)
    """
    entries = _entries()
    if name not in entries:
        raise ValueError(f"no sample named {name!r}; there are: {', '.join(entries)}")
    return Sample(
        image=_read_tiff(f"{name}.image.tif"),
        labels=_read_tiff(f"{name}.labels.tif"),
        **entries[name],
    )


def load_demo() -> Demo:
    """Read the bundled list of clicks."""
    content = json.loads((_FOLDER / "demo.json").read_text(encoding="utf-8"))
    return Demo(
        sample=content["sample"],
        objects=tuple(
            tuple(Click((y, x), is_positive=sign == "+") for y, x, sign in clicks)
            for clicks in content["objects"]
        ),
    )


def _read_tiff(file_name: str) -> NDArray[Any]:
    with as_file(_FOLDER / file_name) as path:
        return read_image(path)
