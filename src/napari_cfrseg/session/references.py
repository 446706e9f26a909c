"""The image and the model of a session: described, found again, and checked."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cfrseg.errors import CfrSegError, CheckpointError, ImageError, SessionError
from napari_cfrseg.io.addresses import address_of
from napari_cfrseg.io.atomic import encode
from napari_cfrseg.io.axes import (
    Order,
    Pyramid,
    channels_of,
    put,
    select_from,
    turned,
    view_of,
)
from napari_cfrseg.io.images import fingerprint, open_image
from napari_cfrseg.io.named_axes import OpenImage, axis_names
from napari_cfrseg.model import weights_file as checkpoint
from napari_cfrseg.session.format import (
    ImageReference,
    ModelReference,
    SessionContent,
    SessionSettings,
)

if TYPE_CHECKING:
    from napari_cfrseg.engine.backends import Backend
    from napari_cfrseg.engine.segmenter import Segmenter


def reference_of(
    array: Any,
    *,
    path: str | os.PathLike[str] | None = None,
    folder: str | os.PathLike[str] | None = None,
    axes: tuple[str, ...] | None = None,
    rgb: bool = False,
    spacing: tuple[float, ...] | None = None,
    units: tuple[str, ...] | None = None,
    level: int = 0,
    select: tuple[tuple[int, int], ...] = (),
    channels: tuple[int, tuple[int, ...]] | None = None,
    order: Order = (),
) -> ImageReference:
    """Describe an image, (…, Y, X) or (…, Y, X, C), for a session.

    ``path`` is the file that it was read from, written relative to the session's
    folder. ``channels`` are the axis and indices of the file's array that became C;
    ``order`` says in which order the array's axes, and all that is given of them,
    already are.
    """
    shape = tuple(int(n) for n in array.shape)
    axis, chosen = (None, ()) if channels is None else channels
    if axes is None:
        axes = put(axis_names(len(shape), rgb or channels is not None), order)
    return ImageReference(
        path=None if path is None else relative_path(Path(path), folder),
        shape=shape,
        dtype=np.dtype(array.dtype).name,
        axes=axes,
        fingerprint=fingerprint(array, axes[-1] == "c"),
        spacing=spacing,
        units=units,
        level=level,
        levels=len(array.levels) if isinstance(array, Pyramid) else 1,
        select=select,
        channel_axis=axis,
        channels=chosen,
        order=order,
    )


def relative_path(path: Path, folder: str | os.PathLike[str] | None) -> str | None:
    """Return a path as a session in a folder writes it; None: there is no way to.

    An address is written as it is.
    """
    address = address_of(path)
    if address is not None:
        return address
    found = path.resolve()
    try:
        if folder is not None:
            found = Path(os.path.relpath(found, Path(folder).resolve()))
        return found.as_posix().encode().decode()
    except ValueError:  # another drive of Windows, or a name that is no UTF-8
        return None


def find_image(reference: ImageReference, folder: Path) -> Path:
    """Return where a session's image is: as written, else by its name beside it.

    An address of a server is returned unasked.

    A SessionError says that it is in no file, or at neither place.
    """
    if reference.path is None:
        raise SessionError(
            "the session's image was in no file: give one of the same pixels (--image "
            "PATH, or apply(image=…)); in the window open it first, then the session"
        )
    if address_of(Path(reference.path)) is not None:
        return Path(reference.path)
    written = PurePosixPath(reference.path.replace("\\", "/"))
    for candidate in (folder / written, folder / written.name):
        try:
            if candidate.is_file() or candidate.is_dir():
                return candidate
        except (OSError, ValueError):  # a name no file can have
            continue
    raise SessionError(
        f"the image {reference.path[:200]} is not there: put it back, or say where it "
        "is (--image PATH)"
    )


def open_reference(reference: ImageReference, path: Path) -> OpenImage:
    """Open a file as a session's image: the same level, selection, channels and order.

    Sizes and units are the file's. Axes of length 1 that the session's image does not
    have are left out. A file that cannot be read, or with other axes, is an ImageError.
    """
    found = open_image(path, reference.level, levels=reference.levels)
    whole = _as_shown(reference, found)
    if whole.array is found.array and not (reference.order or reference.channels):
        return found
    try:
        array = as_clicked(reference, whole)
    except ValueError as error:
        raise ImageError(f"{path}: {error}") from error
    origin = whole.origin
    if origin is not None:
        counted = [i for i, name in enumerate(whole.axes) if name != "c"]
        origin = put([origin[i] for i in counted], reference.order)
    sizes, units = _sizes_in(found, reference.axes)
    return OpenImage(array, reference.axes, sizes, units, origin=origin)


def _sizes_in(
    found: OpenImage, axes: Sequence[str]
) -> tuple[tuple[float, ...] | None, tuple[str, ...] | None]:
    """Return what a file says of pixel sizes and units along some axes."""
    if found.spacing is None or found.units is None:
        return None, None
    sizes = dict(zip(found.axes, found.spacing, strict=False))
    units = dict(zip(found.axes, found.units, strict=False))
    names = [axis for axis in axes if axis != "c"]
    return (
        tuple(sizes.get(axis, 1.0) for axis in names),
        tuple(units.get(axis, "pixel") for axis in names),
    )


def open_as_shown(reference: ImageReference, path: Path) -> OpenImage:
    """Open a session's file with all channels, its axes as in the file, as a layer."""
    return _as_shown(
        reference, open_image(path, reference.level, levels=reference.levels)
    )


def _as_shown(reference: ImageReference, found: OpenImage) -> OpenImage:
    array, axis = select_from(found.array, reference.select), reference.channel_axis
    origin = list(found.origin or ())
    origin += [0.0] * (len(found.shape) - len(origin))
    for selected, _ in reference.select:
        del origin[selected]
    ndim, shape = len(reference.shape), tuple(int(n) for n in array.shape)
    long = [i for i, n in enumerate(shape) if n > 1]
    if len(shape) > ndim == len(long):
        array = view_of(array, long)
        origin = [origin[i] for i in long]
        axis = long.index(axis) if axis in long else axis
    said = reference.in_the_file
    names, count = list(said.axes), ndim - reference.has_channels
    sizes = list(said.spacing or ()) or [1.0] * count
    units = list(said.units or ()) or ["pixel"] * count
    if axis is not None:
        names.insert(axis, names.pop())
        sizes.insert(axis, 1.0)
        units.insert(axis, "pixel")
    rgb = reference.has_channels and axis is None
    moved = tuple(origin[: len(sizes)]) if any(origin) else None
    return OpenImage(array, tuple(names), tuple(sizes), tuple(units), rgb, moved)


def as_clicked(reference: ImageReference, shown: OpenImage) -> Any:
    """Return the pixels of :func:`open_as_shown` as the session's clicks saw them."""
    array = shown.array
    if reference.channel_axis is not None:
        axis = shown.axes.index("c")
        if len(shown.shape) != len(reference.shape) or (
            max(reference.channels) >= shown.shape[axis]
        ):
            msg = f"shape {shown.shape} has no channels {list(reference.channels)}"
            raise ValueError(msg)
        array = channels_of(array, axis, reference.channels)
    return turned(array, reference.order)


def check_same(reference: ImageReference, array: Any, what: str) -> None:
    """Raise SessionError unless the pixels are those that were clicked on."""
    shape = tuple(int(n) for n in array.shape)
    dtype = np.dtype(array.dtype).name
    if (shape, dtype) != (reference.shape, reference.dtype):
        raise SessionError(
            f"{what} is {shape} {dtype}; the session was made on "
            f"{reference.shape} {reference.dtype}"
        )
    if fingerprint(array, reference.has_channels) != reference.fingerprint:
        raise SessionError(
            f"{what} has other pixels than the image the session was made on; to use "
            "it all the same, name it with --image"
        )


# -- models --------------------------------------------------------------------------


def model_reference(name_or_path: str | Path) -> ModelReference:
    """Describe a model for a session: by name, never by a path."""
    path = checkpoint.resolve(name_or_path)
    return ModelReference(_name(path), checkpoint.weights_sha256(path))


def described(name_or_path: str | Path) -> ModelReference:
    """Describe a model for a session, by its name alone if there are no weights."""
    try:
        return model_reference(name_or_path)
    except (CfrSegError, OSError):
        return ModelReference(_name(Path(name_or_path)))


def _name(weights: Path) -> str:
    """Return what a session calls a weights file; what is no UTF-8 becomes ``?``."""
    return encode(weights.stem).decode()


def find_weights(model: ModelReference | None) -> Path:
    """Return the weights file a session was made with.

    A CheckpointError says that the session names none, or that none is installed.
    """
    if model is None or model.sha256 is None:
        name = "no model" if model is None else f"the model {model.name[:80]!r}"
        msg = f"the session names {name} without its weights: choose one with --model"
        raise CheckpointError(msg)
    models = checkpoint.list_models()
    named = [models[model.name]] if model.name in models else []
    for path in (*named, *models.values()):
        with suppress(OSError):  # of a model beside it that cannot be read
            if checkpoint.weights_sha256(path) == model.sha256:
                return path
    raise CheckpointError(
        f"the session was made with {model.name[:80]!r}, weights "
        f"{model.sha256[:12]}…, which are not installed: install them (cfrseg models "
        "import FILE), or choose another model with --model"
    )


def load_segmenter(
    content: SessionContent, weights: Path | None = None, device: str | None = None
) -> Segmenter:
    """Load a segmenter as the session says; other weights or device on request.

    A CfrSegError says which of model and device does not exist.
    """
    from napari_cfrseg.engine.segmenter import Segmenter

    settings = content.settings
    return Segmenter.load(
        find_weights(content.model) if weights is None else weights,
        device=settings.device if device is None else device,
        threads=settings.threads,
        precision=settings.precision,  # type: ignore[arg-type]  # checked on reading
        backend=backend_of(settings, device),
    )


def backend_of(settings: SessionSettings, device: str | None = None) -> Backend:
    """Return the program that computed a session, where it is installed, else torch.

    Another device than the session's means torch.
    """
    recorded = settings.backend.startswith("OpenVINO")
    same = device in (None, settings.device)
    there = recorded and same and find_spec("openvino") is not None
    return "openvino" if there else "torch"
