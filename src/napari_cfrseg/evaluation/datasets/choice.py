"""Choose the objects of a benchmark: by layout, or by a split of many sets.

A folder with one labelled folder per set is divided by a split file
(``benchmarks/split.json``)::

    {"seed": …, "sets": {set: {"train": [NAME, …], "validation": […], "test": […]}}}

The micro protocol: connected components from 40 px to half the plane, at most 40 per
set, seeded; the segmenter gets the whole image and no hint of the object's size.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from napari_cfrseg.errors import DatasetError
from napari_cfrseg.evaluation.datasets import (
    MAX_OBJECTS_PER_SET,
    MIN_AREA_PX,
    BenchmarkObject,
    published_sets,
    sample_objects,
)
from napari_cfrseg.evaluation.datasets.label_folders import LabelFolder, OmeZarr
from napari_cfrseg.io.ome_zarr import is_zarr


class ObjectList(Protocol):
    """A data set that lists its objects."""

    def objects(self) -> Iterator[BenchmarkObject]:
        """List every object to segment."""


#: published layouts: all their objects are used
PUBLISHED: Mapping[str, Callable[[Path], ObjectList]] = {
    "grabcut": published_sets.grabcut,
    "berkeley": published_sets.berkeley,
    "davis": published_sets.davis,
    "coco-mval": published_sets.coco_mval,
    "sbd": published_sets.Sbd,
    "voc": published_sets.PascalVoc,
    "coco-lvis": published_sets.CocoLvis,
}
LAYOUTS = ("auto", "folder", "ome-zarr", *PUBLISHED)
SIDES = ("train", "validation", "test")


def draw_objects(
    data: Path,
    layout: str = "auto",
    *,
    split: Path | None = None,
    side: str = "validation",
    sets: Sequence[str] | None = None,
    max_objects: int | None = None,
    seed: int = 0,
    min_area_px: int = MIN_AREA_PX,
    ignore_value: int | None = None,
    per_object: bool = False,
    axes: str | None = None,
) -> list[BenchmarkObject]:
    """Return the chosen objects of a folder, in the order drawn.

    ``layout`` is one of ``LAYOUTS``; ``"auto"`` looks for what the folder holds. With
    ``split``, a split file, the folder holds one labelled folder per set; ``side`` and
    ``sets`` choose among them (None: all sets). ``max_objects`` are per set, by default
    40, or all of a published layout; ``seed`` is of the draw.

    ``min_area_px``, the smallest object, and ``ignore_value``, the label of pixels that
    do not count, are for own folders and OME-Zarr; ``per_object``, each 3-D object of a
    stack once, and ``axes``, the letters of the images' axes (None: the files'), for
    own folders alone.

    Raises DatasetError if the folder is missing or does not have the layout, ValueError
    for an unknown layout or side.
    """
    if not data.is_dir():
        raise DatasetError(f"no folder {data}")
    if layout == "auto" and split is None:
        layout = guess_layout(data)
    if axes is not None and (split is not None or layout != "folder"):
        msg = "axes can be named for a folder with images/ and labels/ only"
        raise DatasetError(msg)
    if sets and split is None:
        msg = f"{data} is one set: sets are chosen from a split (--split FILE)"
        raise DatasetError(msg)
    most = max_objects or MAX_OBJECTS_PER_SET
    if split is not None:
        return micro_objects(data, split, side, max_per_set=most, sets=sets, seed=seed)
    source: ObjectList
    own = data, data.resolve().name, ignore_value, min_area_px
    if layout == "folder":
        source = LabelFolder(*own, per_object=per_object, axes=axes)
    elif layout == "ome-zarr":
        source = OmeZarr(*own)
    elif layout in PUBLISHED:
        source = PUBLISHED[layout](data)
    else:
        raise ValueError(f"no layout {layout!r}: choose one of {', '.join(LAYOUTS)}")
    objects = list(source.objects())
    if layout in PUBLISHED and max_objects is None:
        return objects
    return sample_objects(objects, most, seed=seed)


def guess_layout(folder: Path) -> str:
    """Name a folder's layout; DatasetError if it has none, or one two sets share."""
    marks = {
        "grabcut": "boundary_GT",
        "sbd": "inst",
        "voc": "SegmentationObject",
        "folder": "labels",
    }
    for layout, mark in marks.items():
        if (folder / mark).is_dir() and not is_zarr(folder):
            return layout
    if (folder / "images-f-BRS").is_dir() or (folder / "masks").is_dir():
        return "berkeley"
    if (folder / "val" / "hannotation.pickle").is_file():
        return "coco-lvis"
    if is_zarr(folder) or any(is_zarr(path) for path in folder.glob("*.zarr")):
        return "ome-zarr"
    hint = ""
    if (folder / "gt").is_dir():
        hint = " (img/ and gt/ are DAVIS's and COCO-MVal's: --layout says which)"
    raise DatasetError(
        f"{folder} has no known layout{hint}: expected images/ and labels/, "
        f"*.zarr, or one of {', '.join(PUBLISHED)}; a folder of sets needs --split"
    )


def read_split(path: Path) -> dict[str, dict[str, list[str]]]:
    """Read ``{set: {side: [image name]}}`` from a split file, or raise DatasetError."""
    try:
        sets = json.loads(path.read_text())["sets"]
        return {
            name: {side: [str(n) for n in images] for side, images in sides.items()}
            for name, sides in sets.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DatasetError(
            f"{path} is not a split file "
            f'({{"sets": {{set: {{side: [names]}}}}}}): {error!r}'
        ) from error


def micro_objects(
    data: Path,
    split: Path,
    side: str = "validation",
    *,
    max_per_set: int = MAX_OBJECTS_PER_SET,
    sets: Sequence[str] | None = None,
    seed: int = 0,
) -> list[BenchmarkObject]:
    """Draw the micro protocol's objects, set by set.

    ``data`` holds one folder per set; ``max_per_set`` objects are drawn per set, fewer
    being a prefix of more. Raises DatasetError if a set is missing or does not have its
    layout, ValueError for an unknown side.
    """
    if side not in SIDES:
        raise ValueError(f"side {side!r} must be one of {', '.join(SIDES)}")
    folders = [
        LabelFolder(data / name, name, image_names=tuple(sides[side]))
        for name, sides in sorted(read_split(split).items())
        if sides.get(side)
    ]
    unknown = set(sets or ()) - {folder.name for folder in folders}
    if unknown:
        msg = f"no set {', '.join(sorted(unknown))} on the {side} side of {split}"
        raise DatasetError(msg)
    drawn: list[BenchmarkObject] = []
    for folder in folders:
        if sets is None or folder.name in sets:
            drawn += sample_objects(list(folder.objects()), max_per_set, seed=seed)
    return drawn
