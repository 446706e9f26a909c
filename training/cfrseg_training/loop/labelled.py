"""Labelled planes in memory, for training, the gate and the robot."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cfrseg_training.loop.atlas import RealClick, Sample
from napari_cfrseg.errors import CfrSegError, DatasetError, counted
from napari_cfrseg.evaluation.datasets import (
    AnnotatedPlane,
    BenchmarkObject,
    objects_of,
)
from napari_cfrseg.evaluation.datasets.label_folders import OmeZarr, spread_planes
from napari_cfrseg.io.images import (
    image_files,
    open_image,
    read_labels,
    stem_of,
    whole_numbers,
)
from napari_cfrseg.io.named_axes import MOST_CHANNELS, OpenImage
from napari_cfrseg.io.plane_image import open_plane

#: labelled planes taken of each stack, spread evenly along z
PLANES_PER_STACK = 16
#: smaller objects are neither trained on nor judged
MIN_AREA_PX = 30
#: larger ids are renumbered: tables are made by id
MOST_LABEL = 1_000_000


def to_uint8(image: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Scale an image as the segmenter would and keep 8 bits: (Y, X, 3) uint8."""
    return np.round(open_plane(image).read() * 255).astype(np.uint8)


@dataclass(frozen=True, slots=True, eq=False)
class LabelledPlane:
    """One plane with its labels and the clicks that a person made on it."""

    name: str  #: the image it is of: planes of one stack share it
    plane: int | None  #: index along the stack
    image: NDArray[Any]  #: (Y, X) or (Y, X, C), C ≤ 4, any dtype, as read
    labels: NDArray[np.int32]  #: (Y, X), 0 background and where ``ignore`` holds
    ignore: NDArray[np.bool_] | None = None  #: (Y, X), unknown pixels
    is_sparse: bool = False  #: whether unlabelled pixels may hold further objects
    clicks: tuple[RealClick, ...] = ()

    def sample(self) -> Sample:
        """Return the plane as an atlas takes it."""
        source = ("own", self.name, self.is_sparse, self.ignore, self.clicks)
        return Sample(to_uint8(self.image), self.labels, *source)


@dataclass(frozen=True, slots=True)
class LabelledData:
    """Planes with at least one object each, and files with why they cannot be used."""

    planes: tuple[LabelledPlane, ...] = ()
    broken: dict[str, str] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """Names of the images, each once, in order."""
        return list(dict.fromkeys(plane.name for plane in self.planes))

    def groups(self) -> list[set[str]]:
        """Names by image: two sessions on one image, or two copies, share its pixels.

        In order; what is trained on and what is judged on must not share a group.
        """
        groups = {name: {name} for name in self.names}
        first: dict[bytes, str] = {}
        for plane in self.planes:
            pixels = np.ascontiguousarray(plane.image)
            digest = hashlib.sha256(repr((pixels.shape, pixels.dtype)).encode())
            digest.update(pixels.tobytes())
            twin = first.setdefault(digest.digest(), plane.name)
            joined = groups[twin] | groups[plane.name]
            groups |= dict.fromkeys(joined, joined)
        return list({id(group): group for group in groups.values()}.values())

    def fingerprint(self) -> str:
        """SHA-256 of all pixels, labels and clicks."""
        digest = hashlib.sha256()
        for plane in self.planes:
            shape = (plane.image.shape, str(plane.image.dtype), plane.is_sparse)
            digest.update(repr((plane.name, plane.plane, shape, plane.clicks)).encode())
            digest.update(np.ascontiguousarray(plane.image).tobytes())
            digest.update(np.ascontiguousarray(plane.labels, "<i4").tobytes())
            if plane.ignore is not None:
                digest.update(np.packbits(plane.ignore).tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, slots=True, eq=False)
class MemorySource:
    """Planes in memory as the evaluation's robot reads them."""

    name: str
    planes: tuple[LabelledPlane, ...]

    def read_plane(self, image_name: str, plane: int | None) -> AnnotatedPlane:
        """Return one plane."""
        for item in self.planes:
            if (item.name, item.plane) == (image_name, plane):
                return AnnotatedPlane(item.image, item.labels[None], item.ignore)
        raise DatasetError(f"no plane {plane} of {image_name}")

    def objects(self) -> Iterator[BenchmarkObject]:
        """List the objects a robot can click."""
        for item in self.planes:
            annotated = AnnotatedPlane(item.image, item.labels[None], item.ignore)
            where = self, self.name, item.name, item.plane
            yield from objects_of(*where, annotated, MIN_AREA_PX)


def describe(planes: Sequence[LabelledPlane]) -> str:
    """Return the amounts in one line."""
    images = len({plane.name for plane in planes})
    objects = sum(len(np.unique(p.labels)) - 1 for p in planes)
    clicks = sum(len(p.clicks) for p in planes)
    amounts = [(images, "image"), (len(planes), "plane"), (objects, "label")]
    text = ", ".join(counted(n, what) for n, what in amounts)
    return text + (f", {counted(clicks, 'click')} a person made" if clicks else "")


def labelled(
    name: str,
    image: OpenImage | NDArray[Any],
    labels: NDArray[Any],
    ignore: str | int = "background",
    planes_per_stack: int = PLANES_PER_STACK,
) -> Iterator[LabelledPlane]:
    """Yield the labelled planes of one image.

    ``labels`` are (…, Y, X) integer ids, of which negative ones do not count; the image
    has their axes, and one of at most 4 channels more wherever it is. Raises
    CfrSegError where the shapes do not fit, or the labels are no ids.
    """
    if not isinstance(image, OpenImage):
        image = OpenImage.unnamed(image)
    labels = _ids(labels, image.shape, name)
    image = image.fitted(labels.shape, name)
    leading = labels.shape[:-2]
    stack = labels.reshape(-1, *labels.shape[-2:])
    with_labels = [z for z in range(len(stack)) if (stack[z] > 0).any()]
    count = min(planes_per_stack, len(with_labels))
    for index in spread_planes(len(with_labels), count):
        z = with_labels[index]
        unknown = stack[z] < 0
        if not isinstance(ignore, str):
            unknown |= stack[z] == ignore
        plane = map(int, np.unravel_index(z, leading)) if leading else ()
        yield LabelledPlane(
            name,
            z if labels.ndim > 2 else None,
            np.array(image.plane(*plane)),  # a copy: the file may change
            np.where(unknown, 0, stack[z]).astype(np.int32),
            unknown if unknown.any() else None,
            ignore == "sparse",
        )


def _ids(
    labels: NDArray[Any], image_shape: tuple[int, ...], name: str
) -> NDArray[np.int64]:
    colours = labels.ndim == 3 and labels.shape[-1] <= MOST_CHANNELS
    if labels.ndim < 2 or (colours and labels.shape[:2] == image_shape[:2]):
        what = f"{name}: labels of shape {labels.shape} are a picture in colours"
        raise DatasetError(f"{what}; expected one integer id per pixel")
    ids = whole_numbers(labels, name).astype(np.int64)
    if ids.max(initial=0) > MOST_LABEL:
        positive = ids > 0
        ids[positive] = 1 + np.unique(ids[positive], return_inverse=True)[1]
    return ids


SESSION_SUFFIX = ".cfrseg.json"


@dataclass(frozen=True, slots=True)
class DataRequest:
    """Where labelled images are."""

    #: folders (or two files) whose files are paired by name without suffix
    images: Path | None = None
    labels: Path | None = None
    #: folders with ``images/`` and ``labels/``, of ``*.zarr`` or of sessions; or one
    #: OME-Zarr image
    folders: tuple[Path, ...] = ()
    sessions: tuple[Path, ...] = ()
    #: "background": unlabelled is background. "sparse": unlabelled pixels away from the
    #: object may be anything. A number: pixels of that label do not count
    ignore: str | int = "background"
    planes_per_stack: int = PLANES_PER_STACK  #: labelled planes taken of each stack
    #: letters of the axes of images in pairs (Y, X, Z, T, C, S); None: the files'
    axes: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.ignore, str) and self.ignore not in ("background", "sparse"):
            msg = f"ignore={self.ignore!r}: expected background, sparse or a number"
            raise ValueError(msg)
        if (self.images is None) != (self.labels is None):
            raise ValueError("images and labels go together: give both folders")

    def under(self, folder: Path) -> DataRequest:
        """Return the request with relative paths joined to a folder."""
        return replace(
            self,
            images=None if self.images is None else folder / self.images,
            labels=None if self.labels is None else folder / self.labels,
            folders=tuple(folder / path for path in self.folders),
            sessions=tuple(folder / path for path in self.sessions),
        )


#: names, and the functions that read them
Jobs = list[tuple[str, Callable[[], Iterator[LabelledPlane]]]]


def read_data(request: DataRequest) -> LabelledData:
    """Read everything; list what cannot be used.

    Raises DatasetError if nothing is usable, or a folder does not exist.
    """
    jobs: Jobs = []
    broken: dict[str, str] = {}
    if request.images is not None and request.labels is not None:
        jobs += _pairs(request.images, request.labels, request, broken)
    for folder in request.folders:
        jobs += _folder(folder, request, broken)
    jobs += [(path.name, partial(_session, path, request)) for path in request.sessions]
    planes: list[LabelledPlane] = []
    for name, read in jobs:
        try:
            usable = [plane for plane in read() if _is_usable(plane)]
        except (CfrSegError, OSError, ValueError) as error:
            broken[name] = " ".join(str(error).split()).removeprefix(f"{name}: ")
            continue
        if not usable:
            broken[name] = f"no labelled object of {MIN_AREA_PX} px or more"
            continue
        free = _free_name(usable[0].name, {plane.name for plane in planes})
        planes += [replace(plane, name=free) for plane in usable]
    if not planes:
        reasons = "; ".join(f"{k}: {v}" for k, v in list(broken.items())[:3])
        raise DatasetError(f"no usable labelled image ({reasons or 'none was given'})")
    return LabelledData(tuple(planes), broken)


def _free_name(name: str, taken: Set[str]) -> str:
    """Return a name no image has yet: two folders may both hold ``001.tif``."""
    numbered = (f"{name} ({number})" for number in itertools.count(2))
    return next(n for n in itertools.chain([name], numbered) if n not in taken)


def _is_usable(plane: LabelledPlane) -> bool:
    """Whether the plane has an object; raises where its pixels cannot be read."""
    open_plane(plane.image)
    return bool((np.bincount(plane.labels.ravel())[1:] >= MIN_AREA_PX).any())


def _files(folder: Path) -> dict[str, Path]:
    if folder.is_dir():
        return image_files(folder)
    if folder.exists():
        return {"": folder}
    raise DatasetError(f"{folder}: no such folder")


def _pairs(
    images: Path, labels: Path, request: DataRequest, broken: dict[str, str]
) -> Jobs:
    mine, theirs = _files(images), _files(labels)
    for stem in sorted(mine.keys() - theirs.keys()):
        broken[mine[stem].name] = f"no labels {stem}.* in {labels.name}/"
    for stem in sorted(theirs.keys() - mine.keys()):
        broken[theirs[stem].name] = f"no image {stem}.* in {images.name}/"

    def read(stem: str, name: str) -> Iterator[LabelledPlane]:
        image = open_image(mine[stem], axes=request.axes)
        ids = read_labels(theirs[stem])
        return labelled(name, image, ids, request.ignore, request.planes_per_stack)

    common = {s: s or stem_of(mine[s]) for s in sorted(mine.keys() & theirs.keys())}
    return [(name, partial(read, stem, name)) for stem, name in common.items()]


def _folder(folder: Path, request: DataRequest, broken: dict[str, str]) -> Jobs:
    if (folder / "images").is_dir() or (folder / "labels").is_dir():
        return _pairs(folder / "images", folder / "labels", request, broken)
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder")
    sessions = sorted(folder.glob(f"*{SESSION_SUFFIX}"))
    jobs: Jobs = [(p.name, partial(_session, p, request)) for p in sessions]
    zarrs = OmeZarr(folder, folder.name)
    try:
        names = zarrs.names()
    except DatasetError as error:
        if jobs:
            return jobs
        kinds = f"images/ and labels/, nor *.zarr, nor *{SESSION_SUFFIX}"
        raise DatasetError(f"{folder} holds neither {kinds}") from error
    for name in names:
        shown = folder.name if name == "." else name
        jobs.append((shown, partial(_zarr, zarrs, name, shown, request)))
    return jobs


def _zarr(
    source: OmeZarr, name: str, shown: str, request: DataRequest
) -> Iterator[LabelledPlane]:
    source = replace(source, planes_per_stack=request.planes_per_stack)
    planes = dict.fromkeys(item.plane for item in source.objects_in(name))
    for z in planes:
        read = source.read_plane(name, z)
        for plane in labelled(shown, read.image, read.labels[0], request.ignore):
            yield replace(plane, plane=z)


def _session(path: Path, request: DataRequest) -> Iterator[LabelledPlane]:
    """Yield a session's planes with objects and clicks; other pixels are unknown."""
    from napari_cfrseg.session.session import Session

    session = Session.open(path)
    image = np.asarray(session.open_image())
    labels = session.saved_labels()
    if labels is None:
        labels = session.apply(image)
    name = path.name.removesuffix(SESSION_SUFFIX)
    policy = "sparse" if request.ignore == "background" else request.ignore
    own = [(o.object_id, *c) for o in session.objects() for c in o.clicks()]
    leading = labels.shape[:-2]
    whole = np.asarray(labels)
    for plane in labelled(name, image, whole, policy, request.planes_per_stack):
        at = np.unravel_index(plane.plane or 0, leading) if leading else ()
        here = [(i, c.click) for i, on, c in own if tuple(map(int, at)) == on]
        clicks = tuple((i, *click.yx, click.is_positive) for i, click in here)
        yield replace(plane, clicks=clicks)
