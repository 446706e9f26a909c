"""A controller on the spot: napari's viewer model, no display, no thread."""

from __future__ import annotations

import numpy as np
from closed_form import FloodNetwork
from napari.components import ViewerModel
from sync_runner import HeldRunner

from napari_cfrseg.engine.segmenter import Segmenter
from napari_cfrseg.gui.segment.click_layer import Gesture
from napari_cfrseg.gui.segment.controller import Controller

PLACEMENT = {"scale": (0.5, 0.25), "translate": (7, -3), "units": ("um", "um")}


def squares(shape=(80, 100)) -> np.ndarray:
    pixels = np.zeros(shape, np.uint8)
    pixels[..., 10:30, 10:30] = 200
    pixels[..., 10:30, 60:80] = 200
    return pixels


class Bench:
    """A viewer with an image and a controller, and what it told the person."""

    def __init__(self, pixels=None, load=None, **placement) -> None:
        self.viewer = ViewerModel()
        self.image = self.viewer.add_image(
            squares() if pixels is None else pixels, name="cells", **placement
        )
        self.told: list[tuple[str, str]] = []
        self.network = FloodNetwork()
        self.runner = HeldRunner()
        self.controller = Controller(
            self.viewer,
            self.image,
            self.runner,
            load or (lambda: Segmenter(self.network, device="cpu")),
            lambda level, text: self.told.append((level, text)),
        )
        self.points = self.controller.clicks.layer
        self.labels = self.controller.labels.layer

    @property
    def view(self):
        return self.controller.view

    def click(self, *index: float, right: bool = False) -> None:
        if right:
            self.controller.clicks._gesture = Gesture.OTHER
        self.points.add(np.array(index, float))

    def area(self, label: int) -> int:
        return int((self.labels.data == label).sum())

    def agrees(self) -> bool:
        """Layers show what the annotator holds."""
        annotator = self.controller.annotator
        leading = self.labels.data.shape[:-2]
        clicks = {
            (e.click_id, p, e.click.yx, e.click.is_positive)
            for o in annotator.objects.values()
            for p, e in o.clicks()
        }
        rows = {
            (r.click_id, r.plane, r.yx, r.is_positive)
            for r in self.controller.clicks.rows
        }
        places = [r.index for r in self.controller.clicks.rows]
        return (
            np.array_equal(self.labels.data, annotator.labels_array(leading))
            and clicks == rows
            and np.allclose(
                self.points.data, np.reshape(places, self.points.data.shape)
            )
            and list(self.points.features["click"])
            == [str(r.click_id) for r in self.controller.clicks.rows]
        )
