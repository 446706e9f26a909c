"""Read one's own labelled images, whatever they are kept in.

Folders of TIFF, PNG or OME-TIFF, stacks (planes sampled along z), OME-Zarr and click
sessions (with the clicks a person made). Everything is read once and checked before
anything is trained: what cannot be used is listed with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cfrseg_training.labelled import (
    MIN_AREA_PX,
    PLANES_PER_STACK,
    LabelledData,
    LabelledPlane,
    labelled,
)
from napari_cfrseg.errors import CfrSegError, DatasetError
from napari_cfrseg.evaluation.folders import read_image
from napari_cfrseg.evaluation.ome_zarr import OmeZarr
from napari_cfrseg.images import open_plane

IMAGE_SUFFIXES = (".tif", ".tiff", ".png")
SESSION_SUFFIX = ".cfrseg.json"


@dataclass(frozen=True, slots=True)
class DataRequest:
    """Where labelled images are.

    Attributes
    ----------
    images, labels
        Folders (or two files) whose files are paired by name without suffix.
    folders
        Folders with ``images/`` and ``labels/``, of ``*.zarr`` or of sessions; or one
        OME-Zarr image.
    sessions
        Click sessions.
    ignore
        "background": unlabelled is background. "sparse": unlabelled pixels away from
        the object may be anything. A number: pixels of that label do not count.
    planes_per_stack
        Labelled planes taken of each stack.
    """

    images: Path | None = None
    labels: Path | None = None
    folders: tuple[Path, ...] = ()
    sessions: tuple[Path, ...] = ()
    ignore: str | int = "background"
    planes_per_stack: int = PLANES_PER_STACK

    def __post_init__(self) -> None:
        if isinstance(self.ignore, str) and self.ignore not in ("background", "sparse"):
            msg = f"ignore={self.ignore!r}: expected background, sparse or a number"
            raise ValueError(msg)
        if (self.images is None) != (self.labels is None):
            msg = "images and labels go together: give both folders"
            raise ValueError(msg)


def read_data(request: DataRequest) -> LabelledData:
    """Read everything and say what cannot be used.

    Raises
    ------
    DatasetError
        Nothing is usable, or a folder is not there.
    """
    jobs: list[tuple[str, Callable[[], Iterator[LabelledPlane]]]] = []
    broken: dict[str, str] = {}
    if request.images is not None and request.labels is not None:
        jobs += _pairs(request.images, request.labels, request, broken)
    for folder in request.folders:
        jobs += _folder(folder, request, broken)
    for path in request.sessions:
        jobs.append((path.name, lambda path=path: _session(path, request)))  # type: ignore[misc]  # mypy sees no default in a lambda
    planes: list[LabelledPlane] = []
    for name, read in jobs:
        try:
            found = [_checked(plane) for plane in read()]
        except (CfrSegError, OSError, ValueError) as error:
            broken[name] = " ".join(str(error).split())
            continue
        usable = [plane for plane in found if plane is not None]
        if not usable:
            broken[name] = f"no labelled object of {MIN_AREA_PX} px or more"
        planes += usable
    if not planes:
        reasons = "; ".join(f"{k}: {v}" for k, v in list(broken.items())[:3])
        msg = f"no usable labelled image ({reasons or 'none was named'})"
        raise DatasetError(msg)
    return LabelledData(tuple(planes), broken)


def _checked(plane: LabelledPlane) -> LabelledPlane | None:
    """Return the plane if it has an object; complain about pixels nobody can read."""
    open_plane(plane.image)
    counts = np.bincount(plane.labels.ravel())
    return plane if (counts[1:] >= MIN_AREA_PX).any() else None


Jobs = list[tuple[str, Callable[[], Iterator[LabelledPlane]]]]


def _stem(path: Path) -> str:
    return path.stem.removesuffix(".ome")


def _files(folder: Path) -> dict[str, Path]:
    if folder.is_file():
        return {"": folder}
    if not folder.is_dir():
        msg = f"{folder}: no such folder"
        raise DatasetError(msg)
    found = sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
    return {_stem(path): path for path in reversed(found)}


def _pairs(
    images: Path, labels: Path, request: DataRequest, broken: dict[str, str]
) -> Jobs:
    mine, theirs = _files(images), _files(labels)
    for stem in sorted(mine.keys() - theirs.keys()):
        broken[mine[stem].name] = f"no labels {stem}.* in {labels.name}/"
    for stem in sorted(theirs.keys() - mine.keys()):
        broken[theirs[stem].name] = f"no image {stem}.* in {images.name}/"

    def read(stem: str) -> Iterator[LabelledPlane]:
        return labelled(
            stem or _stem(mine[stem]),
            read_image(mine[stem]),
            read_image(theirs[stem]),
            request.ignore,
            request.planes_per_stack,
        )

    common = sorted(mine.keys() & theirs.keys())
    return [(s or _stem(mine[s]), lambda s=s: read(s)) for s in common]  # type: ignore[misc]  # as above


def _folder(folder: Path, request: DataRequest, broken: dict[str, str]) -> Jobs:
    if (folder / "images").is_dir() or (folder / "labels").is_dir():
        return _pairs(folder / "images", folder / "labels", request, broken)
    if not folder.is_dir():
        msg = f"{folder}: no such folder"
        raise DatasetError(msg)
    sessions = sorted(folder.glob(f"*{SESSION_SUFFIX}"))
    jobs: Jobs = [(p.name, lambda p=p: _session(p, request)) for p in sessions]  # type: ignore[misc]  # as above
    zarrs = OmeZarr(folder, folder.name)
    try:
        names = zarrs.names()
    except DatasetError as error:
        if not jobs:
            msg = (
                f"{folder} holds neither images/ and labels/, nor *.zarr, nor "
                f"*{SESSION_SUFFIX}"
            )
            raise DatasetError(msg) from error
        return jobs
    for name in names:
        shown = folder.name if name == "." else name
        jobs.append((shown, lambda n=name, s=shown: _zarr(zarrs, n, s, request)))  # type: ignore[misc]  # as above
    return jobs


def _zarr(
    source: OmeZarr, name: str, shown: str, request: DataRequest
) -> Iterator[LabelledPlane]:
    source = replace(source, planes_per_stack=request.planes_per_stack)
    planes = dict.fromkeys(o.plane for o in source.objects() if o.image_name == name)
    for z in planes:
        found = source.read_plane(name, z)
        for plane in labelled(shown, found.image, found.labels[0], request.ignore):
            yield replace(plane, plane=z)


def _session(path: Path, request: DataRequest) -> Iterator[LabelledPlane]:
    """Yield the planes of a session that have objects, with the clicks made there.

    Only what was clicked is labelled, so other pixels count as unknown.
    """
    from napari_cfrseg.session.session import Session

    session = Session.open(path)
    image = np.asarray(session.open_image())
    labels = session.saved_labels()
    if labels is None:
        labels = session.apply(image)
    name = path.name.removesuffix(SESSION_SUFFIX)
    policy = "sparse" if request.ignore == "background" else request.ignore
    own = [(o.object_id, c) for o in session.objects() for c in o.clicks]
    leading = labels.shape[:-2]
    for plane in labelled(name, image, labels, policy, request.planes_per_stack):
        at = np.unravel_index(plane.plane or 0, leading) if leading else ()
        here = [(i, c.click) for i, c in own if tuple(map(int, at)) == tuple(c.plane)]
        clicks = tuple((i, *click.yx, click.is_positive) for i, click in here)
        yield replace(plane, clicks=clicks)
