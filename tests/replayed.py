"""Events applied to an image, one by one, for the tests."""

from __future__ import annotations

from typing import Any

from napari_cfrseg.annotation.annotator import Annotator


def replay(events, image, segmenter, **how: Any):
    """Return the labels, (leading axes, Y, X), after the events."""
    listed = list(events)
    depth = max((len(getattr(event, "plane", ())) for event in listed), default=0)
    shape = image.shape[depth : depth + 2]
    annotator = Annotator(lambda plane: image[plane], shape, segmenter, **how)
    for event in listed:
        annotator.apply(event)
    return annotator.labels_array(image.shape[:depth])
