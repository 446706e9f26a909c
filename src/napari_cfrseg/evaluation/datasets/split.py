"""The project's own benchmark: open micrographs, split by source group.

``DATA/<set>/images|labels/NAME.tif`` as in
:mod:`~napari_cfrseg.evaluation.datasets.label_folders`,
and a split file (``benchmarks/split.json``)::

    {"seed": …, "sets": {set: {"train": [NAME, …], "validation": […], "test": […]}}}

The micro protocol: connected components from 40 px to half the plane, at most 40 per
set, the same number per set in pooled means, seeded; the whole image is given and no
hint of the object's size.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from napari_cfrseg.errors import DatasetError
from napari_cfrseg.evaluation.datasets.benchmark_objects import (
    MAX_OBJECTS_PER_SET,
    BenchmarkObject,
    sample_objects,
)
from napari_cfrseg.evaluation.datasets.label_folders import LabelFolder
from napari_cfrseg.evaluation.object_row import ObjectRow

SIDES = ("train", "validation", "test")
#: sets with fewer objects on a side are reported but not pooled
MIN_POOLED_OBJECTS = 30


def read_split(path: Path) -> dict[str, dict[str, list[str]]]:
    """Read ``{set: {side: [image name]}}`` from a split file.

    Raises
    ------
    DatasetError
        If it is not a split file.
    """
    try:
        sets = json.loads(path.read_text())["sets"]
        return {
            name: {side: [str(n) for n in images] for side, images in sides.items()}
            for name, sides in sets.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        msg = (
            f"{path} is not a split file "
            f'({{"sets": {{set: {{side: [names]}}}}}}): {error!r}'
        )
        raise DatasetError(msg) from error


def split_folders(data: Path, split: Path, side: str) -> list[LabelFolder]:
    """Return the data sets with images on one side of the split.

    Parameters
    ----------
    data
        Folder with one folder per set.
    split
        The split file.
    side
        ``"train"``, ``"validation"`` or ``"test"``.
    """
    if side not in SIDES:
        msg = f"side {side!r} must be one of {', '.join(SIDES)}"
        raise ValueError(msg)
    folders = []
    for name, sides in sorted(read_split(split).items()):
        if sides.get(side):
            folders.append(LabelFolder(data / name, name, tuple(sides[side])))
    return folders


def micro_objects(
    data: Path,
    split: Path,
    side: str = "validation",
    *,
    max_per_set: int = MAX_OBJECTS_PER_SET,
    sets: Sequence[str] | None = None,
    seed: int = 0,
) -> list[BenchmarkObject]:
    """Draw the micro protocol's objects.

    Parameters
    ----------
    data, split, side
        As for :func:`split_folders`.
    max_per_set
        Objects per set, at most; fewer are a prefix of more, in the sets' order.
    sets
        Names of the sets to use; None: all.
    seed
        Of the draw.

    Returns
    -------
    The objects, set by set, in the order drawn.

    Raises
    ------
    DatasetError
        If a set is missing or does not have its layout.
    """
    folders = split_folders(data, split, side)
    unknown = set(sets or ()) - {folder.name for folder in folders}
    if unknown:
        msg = f"no set {', '.join(sorted(unknown))} on the {side} side of {split}"
        raise DatasetError(msg)
    drawn: list[BenchmarkObject] = []
    for folder in folders:
        if sets is None or folder.name in sets:
            drawn += sample_objects(list(folder.objects()), max_per_set, seed=seed)
    return drawn


def pooled_rows(
    rows: Sequence[ObjectRow],
    order: Sequence[str],
    *,
    min_objects: int = MIN_POOLED_OBJECTS,
) -> list[ObjectRow]:
    """Keep the same number of rows of every set that has enough of them.

    Parameters
    ----------
    rows
        Results, in any order.
    order
        The objects' keys in the order drawn: the first of each set are kept.
    min_objects
        Sets with fewer rows are left out.
    """
    by_key = {row.key: row for row in rows}
    by_set: dict[str, list[ObjectRow]] = defaultdict(list)
    for key in order:
        if key in by_key:
            by_set[by_key[key].set_name].append(by_key[key])
    pools = [pool for pool in by_set.values() if len(pool) >= min_objects]
    same = min((len(pool) for pool in pools), default=0)
    return [row for pool in pools for row in pool[:same]]
