"""Click on an object in a micrograph and get its mask.

The public names are imported when they are first used: importing the package loads
neither torch nor Qt.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_cfrseg.clicks import Click
    from napari_cfrseg.engine.focus import FocusHint, FocusSettings
    from napari_cfrseg.engine.prediction import Prediction
    from napari_cfrseg.engine.refinement import Refinement
    from napari_cfrseg.engine.segmenter import Segmenter
    from napari_cfrseg.errors import CfrSegError
    from napari_cfrseg.geometry.windows import Window
    from napari_cfrseg.io.plane_image import Scaling
    from napari_cfrseg.session.session import Session

__version__ = "0.1.0"

__all__ = [
    "CfrSegError",
    "Click",
    "FocusHint",
    "FocusSettings",
    "Prediction",
    "Refinement",
    "Scaling",
    "Segmenter",
    "Session",
    "Window",
    "__version__",
]

_HOMES = {
    "CfrSegError": "errors",
    "Click": "clicks",
    "FocusHint": "engine.focus",
    "FocusSettings": "engine.focus",
    "Prediction": "engine.prediction",
    "Refinement": "engine.refinement",
    "Scaling": "io.plane_image",
    "Segmenter": "engine.segmenter",
    "Session": "session.session",
    "Window": "geometry.windows",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
