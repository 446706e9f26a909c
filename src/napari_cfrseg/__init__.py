"""Click on an object in a micrograph and get its mask.

The public names are imported when they are first used: importing the package loads
neither torch nor Qt.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from napari_cfrseg.former_paths import install

if TYPE_CHECKING:
    from napari_cfrseg.annotation.annotator import Annotator
    from napari_cfrseg.annotation.event_fields import Event
    from napari_cfrseg.annotation.events import (
        CandidateChosen,
        ClickAdded,
        ClickRefocused,
        ClicksMoved,
        ClicksRemoved,
        LabelsImported,
        MaskImported,
        ModelChanged,
        ObjectClassified,
        ObjectCreated,
        ObjectDeleted,
        ObjectLocked,
        ObjectRecoloured,
        ObjectRenamed,
        ObjectReset,
        OverlapChanged,
        OverlapRule,
        Painted,
        PlaneConfirmed,
        Propagated,
        Redone,
        RefinementChanged,
        ThresholdChanged,
        Undone,
    )
    from napari_cfrseg.clicks import Click
    from napari_cfrseg.engine.focus import FocusHint, FocusSettings
    from napari_cfrseg.engine.prediction import Prediction
    from napari_cfrseg.engine.refinement import Refinement
    from napari_cfrseg.engine.segmenter import Segmenter, segment
    from napari_cfrseg.errors import (
        CfrSegError,
        CheckpointError,
        DatasetError,
        DeviceError,
        ImageError,
        LockedObjectError,
        SessionError,
        TrainingError,
    )
    from napari_cfrseg.geometry.windows import Window
    from napari_cfrseg.io.plane_image import Scaling
    from napari_cfrseg.samples import load_sample, sample_names
    from napari_cfrseg.session.session import Session

install()
__version__ = "0.1.0"

__all__ = [
    "Annotator",
    "CandidateChosen",
    "CfrSegError",
    "CheckpointError",
    "Click",
    "ClickAdded",
    "ClickRefocused",
    "ClicksMoved",
    "ClicksRemoved",
    "DatasetError",
    "DeviceError",
    "Event",
    "FocusHint",
    "FocusSettings",
    "ImageError",
    "LabelsImported",
    "LockedObjectError",
    "MaskImported",
    "ModelChanged",
    "ObjectClassified",
    "ObjectCreated",
    "ObjectDeleted",
    "ObjectLocked",
    "ObjectRecoloured",
    "ObjectRenamed",
    "ObjectReset",
    "OverlapChanged",
    "OverlapRule",
    "Painted",
    "PlaneConfirmed",
    "Prediction",
    "Propagated",
    "Redone",
    "Refinement",
    "RefinementChanged",
    "Scaling",
    "Segmenter",
    "Session",
    "SessionError",
    "ThresholdChanged",
    "TrainingError",
    "Undone",
    "Window",
    "__version__",
    "load_sample",
    "sample_names",
    "segment",
]

#: Module of each public name that is neither an error nor an event.
_HOMES = {
    "Annotator": "annotation.annotator",
    "Click": "clicks",
    "FocusHint": "engine.focus",
    "FocusSettings": "engine.focus",
    "Prediction": "engine.prediction",
    "Refinement": "engine.refinement",
    "Scaling": "io.plane_image",
    "Segmenter": "engine.segmenter",
    "Session": "session.session",
    "Window": "geometry.windows",
    "load_sample": "samples",
    "sample_names": "samples",
    "segment": "engine.segmenter",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    is_error = name.endswith("Error")
    home = _HOMES.get(name, "errors" if is_error else "annotation.events")
    return getattr(import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
