"""The model a session names: found by name or by its weights, and checked."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from napari_cfrseg.errors import CfrSegError, CheckpointError
from napari_cfrseg.io.fingerprint import file_sha256
from napari_cfrseg.session.format import ModelReference, SessionContent

if TYPE_CHECKING:
    from napari_cfrseg.engine.segmenter import Segmenter


def weights_sha256(path: Path) -> str:
    """Return the SHA-256 of a weights file."""
    found = path.stat()
    return _hash(path, found.st_mtime_ns, found.st_size)


@lru_cache(maxsize=64)
def _hash(path: Path, _mtime_ns: int, _size: int) -> str:
    return file_sha256(path)


def model_reference(name_or_path: str | Path) -> ModelReference:
    """Describe a model for a session: by name, never by a path."""
    from napari_cfrseg.model import weights_file as checkpoint

    path = checkpoint.resolve(name_or_path)
    return ModelReference(path.stem, weights_sha256(path))


def described(name_or_path: str | Path) -> ModelReference:
    """Describe a model for a session, by its name alone if there are no weights."""
    try:
        return model_reference(name_or_path)
    except (CfrSegError, OSError):
        return ModelReference(Path(name_or_path).stem)


def find_weights(model: ModelReference | None) -> Path:
    """Return the weights file a session was made with.

    Raises
    ------
    CheckpointError
        The session names none, or no installed model has these weights.
    """
    from napari_cfrseg.model import weights_file as checkpoint

    if model is None or model.sha256 is None:
        name = "no model" if model is None else f"the model {model.name[:80]!r}"
        msg = f"the session names {name} without its weights: choose one with --model"
        raise CheckpointError(msg)
    models = checkpoint.list_models()
    named = [models[model.name]] if model.name in models else []
    for path in (*named, *models.values()):
        if weights_sha256(path) == model.sha256:
            return path
    msg = (
        f"the session was made with {model.name[:80]!r}, weights "
        f"{model.sha256[:12]}…, which are not installed: install them, or choose "
        "another model with --model"
    )
    raise CheckpointError(msg)


def installed_name(path: Path) -> str:
    """Return the name a weights file is installed under, else its path."""
    from napari_cfrseg.model import weights_file as checkpoint

    installed = checkpoint.list_models().get(path.stem)
    return path.stem if installed == path else str(path)


def load_segmenter(
    content: SessionContent,
    weights: Path | None = None,
    device: str | None = None,
) -> Segmenter:
    """Load a segmenter as the session says.

    Parameters
    ----------
    content
        The session: its model, precision, threads and device.
    weights
        Another weights file.
    device
        Another device.

    Raises
    ------
    CfrSegError
        Model or device is not there.
    """
    from napari_cfrseg.engine.segmenter import Segmenter

    settings = content.settings
    return Segmenter.load(
        find_weights(content.model) if weights is None else weights,
        device=settings.device if device is None else device,
        threads=settings.threads,
        precision=settings.precision,  # type: ignore[arg-type]  # one of three, checked on reading
    )
