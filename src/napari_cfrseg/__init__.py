"""Click on an object in a micrograph and get its mask.

The public names are imported when they are first used: importing the package loads
neither torch nor Qt.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from napari_cfrseg.former_paths import install

if TYPE_CHECKING:  # the same names, for those who read types
    from napari_cfrseg.annotation.annotator import Annotator as Annotator
    from napari_cfrseg.annotation.event_fields import Event as Event
    from napari_cfrseg.annotation.events import CandidateChosen as CandidateChosen
    from napari_cfrseg.annotation.events import ClickAdded as ClickAdded
    from napari_cfrseg.annotation.events import ClickRefocused as ClickRefocused
    from napari_cfrseg.annotation.events import ClicksMoved as ClicksMoved
    from napari_cfrseg.annotation.events import ClicksRemoved as ClicksRemoved
    from napari_cfrseg.annotation.events import LabelsImported as LabelsImported
    from napari_cfrseg.annotation.events import MaskImported as MaskImported
    from napari_cfrseg.annotation.events import ModelChanged as ModelChanged
    from napari_cfrseg.annotation.events import ObjectClassified as ObjectClassified
    from napari_cfrseg.annotation.events import ObjectCreated as ObjectCreated
    from napari_cfrseg.annotation.events import ObjectDeleted as ObjectDeleted
    from napari_cfrseg.annotation.events import ObjectLocked as ObjectLocked
    from napari_cfrseg.annotation.events import ObjectRecoloured as ObjectRecoloured
    from napari_cfrseg.annotation.events import ObjectRenamed as ObjectRenamed
    from napari_cfrseg.annotation.events import ObjectReset as ObjectReset
    from napari_cfrseg.annotation.events import OverlapChanged as OverlapChanged
    from napari_cfrseg.annotation.events import OverlapRule as OverlapRule
    from napari_cfrseg.annotation.events import Painted as Painted
    from napari_cfrseg.annotation.events import PlaneConfirmed as PlaneConfirmed
    from napari_cfrseg.annotation.events import Propagated as Propagated
    from napari_cfrseg.annotation.events import Redone as Redone
    from napari_cfrseg.annotation.events import RefinementChanged as RefinementChanged
    from napari_cfrseg.annotation.events import ThresholdChanged as ThresholdChanged
    from napari_cfrseg.annotation.events import Undone as Undone
    from napari_cfrseg.clicks import Click as Click
    from napari_cfrseg.engine.focus import FocusHint as FocusHint
    from napari_cfrseg.engine.focus import FocusSettings as FocusSettings
    from napari_cfrseg.engine.prediction import Prediction as Prediction
    from napari_cfrseg.engine.refinement import Refinement as Refinement
    from napari_cfrseg.engine.segmenter import Segmenter as Segmenter
    from napari_cfrseg.engine.segmenter import segment as segment
    from napari_cfrseg.errors import CfrSegError as CfrSegError
    from napari_cfrseg.errors import CheckpointError as CheckpointError
    from napari_cfrseg.errors import DatasetError as DatasetError
    from napari_cfrseg.errors import DeviceError as DeviceError
    from napari_cfrseg.errors import ImageError as ImageError
    from napari_cfrseg.errors import LockedObjectError as LockedObjectError
    from napari_cfrseg.errors import SessionError as SessionError
    from napari_cfrseg.errors import TrainingError as TrainingError
    from napari_cfrseg.geometry.windows import Window as Window
    from napari_cfrseg.io.plane_image import Scaling as Scaling
    from napari_cfrseg.samples import load_sample as load_sample
    from napari_cfrseg.samples import sample_names as sample_names
    from napari_cfrseg.session.session import Session as Session

install()
__version__ = "0.1.0"

#: the public names by the module that defines them
_NAMES = {
    "annotation.annotator": "Annotator",
    "annotation.event_fields": "Event",
    "annotation.events": (
        "CandidateChosen ClickAdded ClickRefocused ClicksMoved "
        "ClicksRemoved LabelsImported MaskImported ModelChanged "
        "ObjectClassified ObjectCreated ObjectDeleted ObjectLocked "
        "ObjectRecoloured ObjectRenamed ObjectReset OverlapChanged "
        "OverlapRule Painted PlaneConfirmed Propagated Redone "
        "RefinementChanged ThresholdChanged Undone"
    ),
    "clicks": "Click",
    "engine.focus": "FocusHint FocusSettings",
    "engine.prediction": "Prediction",
    "engine.refinement": "Refinement",
    "engine.segmenter": "Segmenter segment",
    "errors": (
        "CfrSegError CheckpointError DatasetError DeviceError ImageError "
        "LockedObjectError SessionError TrainingError"
    ),
    "geometry.windows": "Window",
    "io.plane_image": "Scaling",
    "samples": "load_sample sample_names",
    "session.session": "Session",
}
_HOMES = {name: home for home, names in _NAMES.items() for name in names.split()}
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
