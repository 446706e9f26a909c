"""A session's results: in other programs' formats, in words, and measured."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.measure import regionprops

from napari_cfrseg import __version__
from napari_cfrseg.annotation import events
from napari_cfrseg.annotation.state import ObjectState
from napari_cfrseg.clicks import Click
from napari_cfrseg.errors import SessionError, counted
from napari_cfrseg.geometry.masks import MaskPatch
from napari_cfrseg.geometry.windows import slices
from napari_cfrseg.io import object_exports as formats
from napari_cfrseg.io.atomic import check_spares, write_text, writing
from napari_cfrseg.io.axes import Order, back, put, turned
from napari_cfrseg.io.click_tables import TableClick, clicks_csv, csv_text
from napari_cfrseg.io.label_exports import write_ome_tiff, write_ome_zarr
from napari_cfrseg.io.object_exports import ExportedObject
from napari_cfrseg.io.tiled_labels import AnyLabels, label_runs
from napari_cfrseg.session.format import ImageReference, ModelReference, SessionContent

#: columns by name
Table = dict[str, list[Any]]
#: file endings and what they hold
FORMATS = {
    ".ome.tif": "OME-TIFF labels",
    ".tif": "OME-TIFF labels",
    ".zarr": "OME-Zarr labels",
    ".coco.json": "COCO JSON",
    ".geojson": "GeoJSON polygons",
    ".zip": "ImageJ ROIs",
    ".measurements.csv": "measurements as CSV",
    ".volumes.csv": "measurements of whole objects as CSV",
    ".csv": "clicks as CSV",
    ".txt": "methods paragraph",
}


def export(
    path: str | os.PathLike[str],
    content: SessionContent,
    objects: Sequence[ObjectState],
    labels: AnyLabels,
    pixels: Any = None,
    source: Path | None = None,
    origin: Sequence[float] | None = None,
) -> Path:
    """Write a session's results in the format that the file's ending says.

    The ending is one of :data:`FORMATS`, else SessionError. Labels are (…, Y, X)
    integers; ``pixels`` is the image with their leading axes, for intensities (None:
    none are measured). ``source`` is the image's file, which is never written to (None:
    the session's own, if that lies in the same folder). ``origin`` is where the first
    pixel's centre lies along the labels' axes, which OME-Zarr keeps. An OutputError
    says why nothing was written.
    """
    target = Path(path)
    ending = next((e for e in FORMATS if target.name.lower().endswith(e)), None)
    rows = tuple(
        ExportedObject(o.object_id, o.name, o.colour, o.object_class) for o in objects
    )
    image, own = content.image.in_the_file, back(content.image.order)
    labels = turned(labels, own)
    place: dict[str, Any] = {
        "axes": image.axes[: labels.ndim],
        "spacing": None if image.spacing is None else image.spacing[: labels.ndim],
        "units": None if image.units is None else image.units[: labels.ndim],
    }
    with writing(target):
        check_spares(target, source or target.parent / (content.image.path or ""))
        match ending:
            case ".ome.tif" | ".tif":
                write_ome_tiff(target, labels, **place)
            case ".zarr":
                place["origin"] = origin and put(origin, own)
                write_ome_zarr(target, labels, rows, **place)
            case ".coco.json":
                name = Path(image.path or "").name
                formats.write_coco(target, labels, rows, file_name=name)
            case ".geojson":
                formats.write_geojson(target, labels, rows, place["axes"])
            case ".zip":
                formats.write_imagej_rois(target, labels, rows, place["axes"])
            case ".measurements.csv" | ".volumes.csv":
                seen = None if pixels is None else turned(pixels, own)
                table = measure(labels, objects, image, seen)
                if ending == ".volumes.csv":
                    table = measure_whole(table, image)
                write_text(target, table_csv(table))
            case ".csv":
                clicks = _click_rows(objects, own)
                write_text(target, clicks_csv(clicks, labels.ndim - 2))
            case ".txt":
                write_text(target, methods_paragraph(content, objects) + "\n")
            case _:
                msg = f"{target.name}: expected one of the endings {', '.join(FORMATS)}"
                raise SessionError(msg)
    return target


def _click_rows(
    objects: Sequence[ObjectState], own: Order
) -> Iterator[tuple[int, TableClick]]:
    """Yield all clicks, object by object; places in the file's own order of axes."""
    for found in objects:
        for plane, made in found.clicks():
            *index, y, x = put((*plane, *made.click.yx), own)
            where = tuple(round(i) for i in index)
            click = Click((y, x), made.click.is_positive)
            row = TableClick(str(found.object_id), found.name, where, click)
            yield made.click_id, row


def methods_paragraph(content: SessionContent, objects: Sequence[ObjectState]) -> str:
    """Return what a paper's methods section should say of this annotation."""
    made = [on_plane for o in objects for on_plane in o.clicks()]
    clicks = [entry.click for _, entry in made]
    positive = sum(c.is_positive for c in clicks)
    settings = content.settings
    image = content.image
    size = " × ".join(str(n) for n in image.shape)
    backend = f", {settings.backend}" if settings.backend else ""
    planes = {plane for plane, _ in made}
    on_planes = f" on {len(planes)} planes" if len(planes) > 1 else ""
    mean = f"{len(clicks) / len(objects):.1f}" if objects else "0"
    return (
        f"Objects were segmented interactively with napari-cfrseg {__version__} using "
        f"{_weights(content)}, {_refinements(content)} inference, "
        f"{settings.precision} precision on {settings.device}{backend}. In an image of "
        f"{size} pixels "
        f"({image.dtype}), the outlines of {counted(len(objects), 'object')} were "
        f"made with {counted(len(clicks), 'click')} ({positive} positive, "
        f"{len(clicks) - positive} negative; {mean} per "
        f"object){on_planes}.{_propagations(content)}{_suggestions(objects)} The "
        "session file holds every act in order and reproduces the labels (cfrseg "
        "replay)."
    )


def _weights(content: SessionContent) -> str:
    """Name the models that computed the masks, in the order they came in."""
    used = [] if content.model is None else [content.model]
    used += [
        ModelReference(e.name, e.sha256)
        for e in content.events
        if isinstance(e, events.ModelChanged)
    ]
    named = [
        f"{model.name} (weights SHA-256 {model.sha256})" if model.sha256 else model.name
        for model in dict.fromkeys(used)
    ]
    if not named:
        return "an unnamed model"
    taught = [
        f", its first clicks adapted to {len(e.object_ids)} finished objects"
        for e in content.events
        if isinstance(e, events.ModelAdapted) and e.object_ids
    ]
    names = f"the model{'s' if len(named) > 1 else ''} {', then '.join(named)}"
    return names + "".join(taught[-1:])


def _refinements(content: SessionContent) -> str:
    """Name the refinements that clicks were made with, in the order they came in."""
    now = content.settings.refinement
    used = []
    for event in content.events:
        if isinstance(event, events.RefinementChanged):
            now = event.refinement
        elif isinstance(event, events.ClickAdded):
            used.append(str(now))
    return " and ".join(dict.fromkeys(used)) or str(now)


def _suggestions(objects: Sequence[ObjectState]) -> str:
    clicks = [[entry for _, entry in o.clicks()] for o in objects]
    found = [min(each, key=lambda e: e.click_id).given for each in clicks if each]
    kept = sum(o.is_as_suggested() for o in objects)
    carried = sum(entry.given for each in clicks for entry in each) - sum(found)
    text = ""
    if any(found):
        text += (
            f" Of the objects, {sum(found)} were suggested by their likeness to "
            f"finished ones and accepted, {kept} of them without correction."
        )
    if carried:
        text += (
            f" On {carried} further planes an object's mask was suggested from the "
            "plane beside it and accepted."
        )
    return text


def _propagations(content: SessionContent) -> str:
    count = sum(isinstance(event, events.Propagated) for event in content.events)
    times = "once" if count == 1 else f"{count} times"
    return f" Objects were carried to further planes {times}." if count else ""


# -- measurements --------------------------------------------------------------------


def measure(
    labels: AnyLabels,
    objects: Sequence[ObjectState],
    image: ImageReference,
    pixels: Any = None,
) -> Table:
    """Return a table by columns, a row for each object and plane it is on.

    Labels are (…, Y, X) integers, and every one has its object. ``image`` says what the
    axes are, and how large a pixel is; ``pixels`` are (…, Y, X) or (…, Y, X, C) with
    the labels' leading axes, read object by object (None: intensities are not
    measured).

    The columns are ``object``, ``name``, ``class``, one for each leading axis;
    ``area_px``, ``perimeter_px`` (scikit-image's estimate), the axes of the ellipse
    with the same moments, ``circularity`` (4π area / perimeter², at most 1; None where
    there is no perimeter), the centroid (``y_px``, ``x_px``); ``mean``, ``std``,
    ``min`` and ``max`` of the pixels, or ``mean_0``, … of each channel; with a known
    pixel size ``area_UNIT2`` and, where pixels are square, the lengths in that unit.
    """
    known = {found.object_id: found for found in objects}
    table: Table = {}
    for plane in np.ndindex(*labels.shape[:-2]):
        for number, mask in sorted(label_runs(labels, plane).masks().items()):
            found, row = known[number], _shape(mask)
            if pixels is not None:
                seen = np.asarray(pixels[(*plane, *slices(mask.box))])
                row |= _intensities(seen[mask.mask])
            names = {"name": found.name, "class": found.object_class}
            where = dict(zip(image.axes, plane, strict=False))
            whole = {"object": found.object_id, **names, **where, **row}
            for name, value in (whole | _in_units(row, image)).items():
                table.setdefault(name, []).append(value)
    return table


_LENGTHS = ("perimeter", "major_axis", "minor_axis")


def _shape(mask: MaskPatch) -> dict[str, Any]:
    (region,) = regionprops(mask.mask.astype(np.uint8))
    perimeter = float(region.perimeter)
    lengths = (perimeter, region.axis_major_length, region.axis_minor_length)
    named = zip(_LENGTHS, lengths, strict=True)
    roundness = 4 * np.pi * region.area / perimeter**2 if perimeter else None
    y, x = np.add(region.centroid, mask.offset)
    return {
        "area_px": int(region.area),
        **{f"{name}_px": round(float(px), 3) for name, px in named},
        "circularity": None if roundness is None else round(min(roundness, 1.0), 4),
        "y_px": round(float(y), 3),
        "x_px": round(float(x), 3),
    }


def _intensities(values: NDArray[Any]) -> dict[str, float]:
    """Return figures of an object's pixels, (N,) or (N, C)."""
    row = {}
    for name in ("mean", "std", "min", "max"):
        figures = np.atleast_1d(getattr(values.astype(np.float64), name)(axis=0))
        for channel, figure in enumerate(figures):
            column = f"{name}_{channel}" if len(figures) > 1 else name
            row[column] = round(float(figure), 3)
    return row


def _in_units(row: Mapping[str, Any], image: ImageReference) -> dict[str, float]:
    """Return area and lengths in the unit of Y and X, where they have one."""
    ndim = len(image.leading) + 2
    spacing, units = image.spacing, image.units
    if spacing is None or units is None or ndim > min(len(spacing), len(units)):
        return {}
    (y, x), (unit, other) = spacing[ndim - 2 : ndim], units[ndim - 2 : ndim]
    if unit != other or unit.startswith("pixel"):
        return {}
    sizes = {f"area_{unit}2": round(row["area_px"] * y * x, 6)}
    if np.isclose(y, x):
        for name in _LENGTHS:
            sizes[f"{name}_{unit}"] = round(row[f"{name}_px"] * y, 6)
    return sizes


def measure_whole(table: Table, image: ImageReference) -> Table:
    """Return a row for each object, at each time, of what :func:`measure` found.

    The columns are ``object``, ``name``, ``class``, one for each leading axis but z;
    ``planes``, ``voxels``, the centroid (``z_px``, ``y_px``, ``x_px``); ``mean``,
    ``min`` and ``max`` of the voxels (``mean_0``, … of channels); with a known size in
    one unit ``volume_UNIT3``.
    """
    names = image.axes[: len(image.leading)]
    kept = ["object", "name", "class", *(name for name in names if name != "z")]
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for values in zip(*table.values(), strict=True):
        row = dict(zip(table, values, strict=True))
        groups.setdefault(tuple(row[name] for name in kept), []).append(row)
    whole: Table = {}
    for said, rows in groups.items():
        made = dict(zip(kept, said, strict=True)) | _together(rows)
        for name, one in _voxel_size(image, names).items():
            made[name] = round(made["voxels"] * one, 6)
        for name, value in made.items():
            whole.setdefault(name, []).append(value)
    return whole


def _together(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the figures of an object's planes as those of one body."""
    areas = [row["area_px"] for row in rows]
    made: dict[str, Any] = {"planes": len(rows), "voxels": sum(areas)}
    for name in rows[0]:
        values, kind = [row[name] for row in rows], name.split("_")[0]
        if kind in ("z", "y", "x", "mean"):
            column = "z_px" if name == "z" else name
            made[column] = round(float(np.average(values, weights=areas)), 3)
        elif kind in ("min", "max"):
            made[name] = {"min": min, "max": max}[kind](values)
    return made


def _voxel_size(image: ImageReference, names: Sequence[str]) -> dict[str, float]:
    """Return a voxel's volume by its column's name, where all sizes have one unit."""
    if "z" not in names or image.spacing is None or image.units is None:
        return {}
    at = [names.index("z"), len(names), len(names) + 1]
    if max(at) >= min(len(image.spacing), len(image.units)):
        return {}
    units = {image.units[i] for i in at}
    unit = units.pop()
    if units or unit.startswith("pixel"):
        return {}
    return {f"volume_{unit}3": float(np.prod([image.spacing[i] for i in at]))}


def table_csv(table: Mapping[str, Sequence[Any]]) -> str:
    """Return a table as CSV with a header."""
    return csv_text([list(table), *zip(*table.values(), strict=True)])
