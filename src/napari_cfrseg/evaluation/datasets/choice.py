"""Open a data set by the name of its layout."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from napari_cfrseg.errors import DatasetError
from napari_cfrseg.evaluation.datasets.benchmark_objects import (
    MAX_OBJECTS_PER_SET,
    MIN_AREA_PX,
    BenchmarkObject,
    sample_objects,
)
from napari_cfrseg.evaluation.datasets.label_folders import LabelFolder
from napari_cfrseg.evaluation.datasets.ome_zarr_folder import OmeZarr
from napari_cfrseg.evaluation.datasets.split import micro_objects
from napari_cfrseg.evaluation.papers import published_sets
from napari_cfrseg.evaluation.papers.published_sets import CocoLvis


class ObjectList(Protocol):
    """A data set that lists its objects."""

    def objects(self) -> Iterator[BenchmarkObject]:
        """List every object that can be asked for."""


#: published layouts: all their objects are asked for
PUBLISHED: Mapping[str, Callable[[Path], ObjectList]] = {
    "grabcut": published_sets.grabcut,
    "berkeley": published_sets.berkeley,
    "davis": published_sets.davis,
    "coco-mval": published_sets.coco_mval,
    "sbd": published_sets.Sbd,
    "voc": published_sets.PascalVoc,
    "coco-lvis": CocoLvis,
}
LAYOUTS = ("auto", "folder", "ome-zarr", *PUBLISHED)


@dataclass(frozen=True, slots=True)
class DataChoice:
    """Which objects to ask for.

    Attributes
    ----------
    data
        The folder.
    layout
        One of ``LAYOUTS``; ``"auto"`` looks for what the folder holds.
    split
        A split file: ``data`` then holds one labelled folder per set.
    side
        Of the split.
    sets
        Only these sets of the split; None: all.
    max_objects
        Per set; None: all. Published layouts are asked whole unless it is given.
    seed
        Of the draw.
    min_area_px
        Smaller objects are not asked for (own folders and OME-Zarr).
    ignore_value
        Label of pixels that do not count (own folders and OME-Zarr).
    per_object
        Stacks: each 3-D object once, instead of plane by plane.
    """

    data: Path
    layout: str = "auto"
    split: Path | None = None
    side: str = "validation"
    sets: tuple[str, ...] | None = None
    max_objects: int | None = None
    seed: int = 0
    min_area_px: int = MIN_AREA_PX
    ignore_value: int | None = None
    per_object: bool = False


def draw_objects(choice: DataChoice) -> list[BenchmarkObject]:
    """Return the objects to ask for, in the order drawn.

    Raises
    ------
    DatasetError
        If the folder is missing or does not have the layout.
    ValueError
        For an unknown layout.
    """
    if not choice.data.is_dir():
        msg = f"no folder {choice.data}"
        raise DatasetError(msg)
    if choice.split is not None:
        per_set = choice.max_objects or MAX_OBJECTS_PER_SET
        return micro_objects(
            choice.data,
            choice.split,
            choice.side,
            max_per_set=per_set,
            sets=choice.sets,
            seed=choice.seed,
        )
    layout = choice.layout
    if layout == "auto":
        layout = guess_layout(choice.data)
    objects = list(_open(choice, layout).objects())
    if layout in PUBLISHED and choice.max_objects is None:
        return objects
    per_set = choice.max_objects or MAX_OBJECTS_PER_SET
    return sample_objects(objects, per_set, seed=choice.seed)


def _open(choice: DataChoice, layout: str) -> ObjectList:
    name = choice.data.resolve().name
    if layout == "folder":
        return LabelFolder(
            choice.data,
            name,
            ignore_value=choice.ignore_value,
            min_area_px=choice.min_area_px,
            per_object=choice.per_object,
        )
    if layout == "ome-zarr":
        return OmeZarr(
            choice.data,
            name,
            ignore_value=choice.ignore_value,
            min_area_px=choice.min_area_px,
        )
    if layout not in PUBLISHED:
        msg = f"no layout {layout!r}: choose one of {', '.join(LAYOUTS)}"
        raise ValueError(msg)
    return PUBLISHED[layout](choice.data)


def guess_layout(folder: Path) -> str:
    """Name the layout a folder has.

    Raises
    ------
    DatasetError
        If it has none of them, or one that two sets share.
    """
    marks = {
        "grabcut": "boundary_GT",
        "sbd": "inst",
        "voc": "SegmentationObject",
        "folder": "labels",
    }
    for layout, mark in marks.items():
        if (folder / mark).is_dir() and not _is_zarr(folder):
            return layout
    if (folder / "images-f-BRS").is_dir() or (folder / "masks").is_dir():
        return "berkeley"
    if (folder / "val" / "hannotation.pickle").is_file():
        return "coco-lvis"
    if _is_zarr(folder) or any(_is_zarr(path) for path in folder.glob("*.zarr")):
        return "ome-zarr"
    hint = ""
    if (folder / "gt").is_dir():
        hint = " (img/ and gt/ are DAVIS's and COCO-MVal's: --layout says which)"
    msg = (
        f"{folder} has no layout that is known{hint}: expected images/ and labels/, "
        f"*.zarr, or one of {', '.join(PUBLISHED)}; a folder of sets needs --split"
    )
    raise DatasetError(msg)


def _is_zarr(path: Path) -> bool:
    return any((path / name).is_file() for name in (".zgroup", "zarr.json"))
