"""The record beside replayed labels: what they were made from, to tell a change."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_cfrseg import __version__
from napari_cfrseg.engine.masks import LabelArray
from napari_cfrseg.session.image_files import OpenImage
from napari_cfrseg.session.models import weights_sha256
from napari_cfrseg.session.session import Session
from napari_cfrseg.session.values import SessionContent
from napari_cfrseg.session.writing import event_lines

if TYPE_CHECKING:
    from napari_cfrseg.session.replaying import ReplayTask


def record_of(
    task: ReplayTask, session: Session, opened: OpenImage, weights: Path, device: str
) -> dict[str, Any]:
    """Return all that the labels depend on, and where they came from."""
    from napari_cfrseg.session.fingerprint import fingerprint

    settings = session.content.settings
    pixels = session.image.fingerprint
    if task.image is not None:
        pixels = fingerprint(opened.array, session.image.has_channels)
    return {
        "session": session.path.name,
        "events_sha256": events_sha256(session.content),
        "image": {
            "fingerprint": pixels,
            "is_the_session_s": pixels == session.image.fingerprint,
            "name": (task.image or Path(session.image.path or "")).name,
        },
        "model": {"name": weights.stem, "sha256": weights_sha256(weights)},
        "device": device,
        "precision": settings.precision,
        "threads": settings.threads,
        "format": task.format,
        "version": __version__,
    }


def events_sha256(content: SessionContent) -> str:
    """Return a digest of all that was done, and how."""
    digest = hashlib.sha256(repr(content.settings).encode())
    for line in event_lines(content.events, content.scalings):
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()


def labels_sha256(labels: NDArray[np.integer]) -> str:
    """Return a digest of labels: shape and values, whatever their type."""
    whole = np.ascontiguousarray(labels, dtype="<i4")
    return hashlib.sha256(repr(whole.shape).encode() + whole.tobytes()).hexdigest()


def is_current(task: ReplayTask, record: dict[str, Any]) -> bool:
    """Return whether the results there are were made from exactly this."""
    if not task.labels_path.exists():
        return False
    try:
        there = json.loads(task.record_path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(there, dict) and all(there.get(k) == v for k, v in record.items())


def areas_of(labels: LabelArray) -> dict[str, int]:
    """Return each label's number of pixels; the background's is left out."""
    ids, counts = np.unique(labels, return_counts=True)
    return {str(i): int(n) for i, n in zip(ids, counts, strict=True) if i > 0}
