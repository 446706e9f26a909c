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
from itertools import chain
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
#: the layouts that an option of ``cfrseg evaluate`` is for
OFFERED_BY = {
    "--axes": ("folder",),
    "--per-object": ("folder",),
    "--ignore": ("folder", "ome-zarr"),
    "--min-area": ("folder", "ome-zarr"),
    "--set": ("split",),
    "--side": ("split",),
}


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

    Raises DatasetError if the folder is missing or does not have the layout, or for a
    choice that the layout does not offer; ValueError for an unknown layout or side.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"no layout {layout!r}: choose one of {', '.join(LAYOUTS)}")
    if not data.is_dir():
        raise DatasetError(f"no folder {data}")
    if split is not None:
        layout = "split"
    elif layout == "auto":
        layout = guess_layout(data)
    named = {
        "--axes": axes is not None,
        "--per-object": per_object,
        "--ignore": ignore_value is not None,
        "--min-area": min_area_px != MIN_AREA_PX,
        "--set": bool(sets),
        "--side": side != "validation",
    }
    _check_offered([option for option in named if named[option]], data, layout)
    most = max_objects or MAX_OBJECTS_PER_SET
    if split is not None:
        return micro_objects(data, split, side, max_per_set=most, sets=sets, seed=seed)
    if layout in PUBLISHED:
        objects = list(PUBLISHED[layout](data).objects())
        if max_objects is None:
            return objects
        return sample_objects(objects, max_objects, seed=seed)
    own = data, data.resolve().name, ignore_value, min_area_px
    source: ObjectList = OmeZarr(*own)
    if layout == "folder":
        source = LabelFolder(*own, per_object=per_object, axes=axes)
    return sample_objects(list(source.objects()), most, seed=seed)


def _check_offered(options: Sequence[str], data: Path, layout: str) -> None:
    for option in options:
        if layout not in OFFERED_BY[option]:
            kinds = " and ".join(OFFERED_BY[option])
            raise DatasetError(f"{option} is for {kinds} data: {data} is {layout}")


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
    chosen = (folder for folder in folders if sets is None or folder.name in sets)
    drawn = (sample_objects([*f.objects()], max_per_set, seed=seed) for f in chosen)
    return [*chain.from_iterable(drawn)]
