"""Models the dock offers. Imports torch only when one is loaded."""

from __future__ import annotations

from collections.abc import Callable

from napari_cfrseg.engine.rounds import SegmenterLike

DEFAULT_MODEL = "default"

SegmenterLoader = Callable[[str], SegmenterLike]


def load_segmenter(name: str) -> SegmenterLike:
    """Load a model by name or path on the best device there is (imports torch)."""
    from napari_cfrseg.engine.segmenter import Segmenter

    return Segmenter.load(name, device="auto")


def installed_models() -> tuple[str, ...]:
    """Return the names of the models there are (imports torch)."""
    from napari_cfrseg.checkpoint import list_models

    return tuple(list_models())
