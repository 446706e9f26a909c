"""Measure objects on each plane: area, perimeter and mean intensity of each channel."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cfrseg.annotation.state import ObjectState
from napari_cfrseg.geometry.masks import BoolMask
from napari_cfrseg.geometry.windows import slices
from napari_cfrseg.io.tiled_labels import AnyLabels, label_runs
from napari_cfrseg.session.format import ImageReference


def measure(
    labels: AnyLabels,
    objects: Sequence[ObjectState],
    image: ImageReference,
    pixels: Any = None,
) -> dict[str, list[Any]]:
    """Return a table by columns, a row for each object and plane it is on.

    Parameters
    ----------
    labels
        (…, Y, X) integers.
    objects
        Has an object for every label.
    image
        Says what the axes are, and how large a pixel is.
    pixels
        The image, (…, Y, X) or (…, Y, X, C), with the labels' leading axes; read plane
        by plane. None: intensities are not measured.

    Returns
    -------
    ``object``, ``name``, ``class``, a column for each leading axis, ``area_px``,
    ``perimeter_px`` (scikit-image's estimate); with a known pixel size ``area_UNIT2``
    and, where pixels are square, ``perimeter_UNIT``; ``mean`` or ``mean_0``, …
    """
    known = {found.object_id: found for found in objects}
    table: dict[str, list[Any]] = {}
    for plane in np.ndindex(*labels.shape[:-2]):
        for number, mask in sorted(label_runs(labels, plane).masks().items()):
            found, seen = known[number], None
            if pixels is not None:
                seen = np.asarray(pixels[plane][slices(mask.box)])
            row = _row(mask.mask, seen)
            names = {"name": found.name, "class": found.object_class}
            where = dict(zip(image.axes, plane, strict=False))
            whole = {"object": found.object_id, **names, **where, **row}
            for name, value in (whole | _in_units(row, image)).items():
                table.setdefault(name, []).append(value)
    return table


def _row(mask: BoolMask, pixels: NDArray[Any] | None) -> dict[str, Any]:
    from skimage.measure import regionprops

    (region,) = regionprops(mask.astype(np.uint8), intensity_image=pixels)
    row: dict[str, Any] = {
        "area_px": int(region.area),
        "perimeter_px": round(float(region.perimeter), 3),
    }
    if pixels is not None:
        means = np.atleast_1d(region.intensity_mean)
        for channel, mean in enumerate(means):
            name = f"mean_{channel}" if len(means) > 1 else "mean"
            row[name] = round(float(mean), 3)
    return row


def _in_units(row: Mapping[str, Any], image: ImageReference) -> dict[str, float]:
    """Return area and perimeter in the unit of Y and X, where they have one."""
    ndim = len(image.leading) + 2
    spacing, units = image.spacing, image.units
    if spacing is None or units is None or ndim > min(len(spacing), len(units)):
        return {}
    (y, x), (unit, other) = spacing[ndim - 2 : ndim], units[ndim - 2 : ndim]
    if unit != other or unit.startswith("pixel"):
        return {}
    sizes = {f"area_{unit}2": round(row["area_px"] * y * x, 6)}
    if np.isclose(y, x):
        sizes[f"perimeter_{unit}"] = round(row["perimeter_px"] * y, 6)
    return sizes


def table_csv(table: Mapping[str, Sequence[Any]]) -> str:
    """Return a table as CSV with a header."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(table)
    writer.writerows(zip(*table.values(), strict=True))
    return out.getvalue()
