"""The papers' evaluation settings, by name.

==============  ====================================================================
``ritm``        Zoom-In to 400 px (DAVIS: 600) from click 2, flip, stop at IoU 0.90
``simpleclick`` Zoom-In to exactly 448×448 (DAVIS: 672×672) from click 1, flip, 0.90
``paper-cfr``   as SimpleClick, plus CFR; stop at 0.95. The released evaluator cascades
                on the first click only, the paper on every click (the default)
``paper-fcfi``  Zoom-In per data set and backbone, moved by negative clicks too and
                computed from M^u; all 20 clicks always made
``micro``       the product: automatic focus, no flip, threshold 0.5
==============  ====================================================================

All threshold the probability at 0.49 but ``micro``.

Zoom-In: the ROI is the bounding box of {previous probability > 0.5} ∪ positive clicks,
expanded about its centre to max(ratio · extent, 200) px, kept from click to click
unless a positive click leaves it or the new box overlaps it by less than 0.5. The crop
is resampled to the target size (bilinear, corners aligned), the answer resampled back
and pasted into zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_cfrseg.clicks import Click
from napari_cfrseg.geometry.windows import mask_box
from napari_cfrseg.model.blocks import resize

PAPER_THRESHOLD = 0.49
#: no IoU reaches it: all clicks are made
NEVER_STOP = 1.01
#: (target size, expansion ratio) of FCFI's released configurations
FCFI_ZOOM = {
    ("hrnet18s", "grabcut"): (700, 3.0),
    ("hrnet18s", "berkeley"): (720, 2.8),
    ("hrnet18s", "davis"): (720, 3.5),
    ("hrnet18s", "sbd"): (480, 2.3),
    ("resnet101", "grabcut"): (600, 3.2),
    ("resnet101", "berkeley"): (720, 2.5),
    ("resnet101", "davis"): (640, 3.0),
    ("resnet101", "sbd"): (480, 2.3),
}


Roi = tuple[int, int, int, int]
"""(first row, last row, first column, last column), both ends inside."""


@dataclass(frozen=True, slots=True)
class ZoomIn:
    """Settings of Zoom-In."""

    #: longest side of the crop after resampling, or its exact (height, width): the
    #: aspect is then not kept
    target_size: int | tuple[int, int] = 400
    #: up to this many clicks the whole image is used. 0: the first click is predicted
    #: again if its mask is small. −1: a window from the first click on, the whole image
    #: where there is no mask.
    skip_clicks: int = 1
    expansion_ratio: float = 1.4  #: how much larger than the object the window is
    min_crop_size: int = 200  #: least side of the window in pixels
    #: the window moves when it overlaps the newly wished one by less
    recompute_iou: float = 0.5
    #: probability above which a pixel belongs to the previous mask
    threshold: float = 0.5
    #: True: negative clicks extend and move the window too (FCFI)
    negatives_too: bool = False

    def choose_roi(
        self,
        shape: tuple[int, int],
        clicks: Sequence[Click],
        previous: NDArray[np.floating] | None,
        roi: Roi | None,
    ) -> Roi | None:
        """Choose the next evaluation's window; None: the whole image at its own size.

        ``shape`` is the image's (Y, X), ``clicks`` are all; ``previous``, (Y, X)
        probability, and ``roi`` are those of the evaluation before.
        """
        if len(clicks) <= self.skip_clicks:
            return None
        wished: Roi | None = None
        if previous is not None and (previous > self.threshold).any():
            wished = self._object_roi(previous > self.threshold, clicks)
        elif self.skip_clicks < 0:
            wished = (0, shape[0] - 1, 0, shape[1] - 1)
        if wished is None:
            return None
        if roi is None or not self._holds(roi, clicks):
            return wished
        return wished if box_iou(wished, roi) < self.recompute_iou else roi

    def predicts_again(
        self, previous: NDArray[np.floating] | None, roi: Roi | None
    ) -> bool:
        """Whether the click is to be predicted again (``skip_clicks=0`` only).

        So it is when the whole image was used and the object's window is small in it.
        """
        if previous is None or roi is not None or self.skip_clicks > 0:
            return False
        mask = previous > self.threshold
        if not mask.any():
            return False
        whole = (0, mask.shape[0] - 1, 0, mask.shape[1] - 1)
        return box_iou(self._object_roi(mask, ()), whole) < 0.5

    def _counts(self, click: Click) -> bool:
        return click.is_positive or self.negatives_too

    def _holds(self, roi: Roi, clicks: Sequence[Click]) -> bool:
        # the last row and column count as outside, as published
        return all(
            roi[0] <= click.yx[0] < roi[1] and roi[2] <= click.yx[1] < roi[3]
            for click in clicks
            if self._counts(click)
        )

    def _object_roi(self, mask: NDArray[np.bool_], clicks: Sequence[Click]) -> Roi:
        y0, x0, y1, x1 = mask_box(mask) or (0, 0, 0, 0)
        rows, columns = [y0, y1 - 1], [x0, x1 - 1]
        for click in clicks:
            if self._counts(click):
                rows.append(int(click.yx[0]))
                columns.append(int(click.yx[1]))
        ends: list[int] = []
        for used, length in zip((rows, columns), mask.shape, strict=True):
            first, last = min(used), max(used)
            size = max(self.expansion_ratio * (last - first + 1), self.min_crop_size)
            centre = 0.5 * (first + last)
            ends.append(max(0, round(centre - 0.5 * size)))
            ends.append(min(length - 1, round(centre + 0.5 * size)))
        return ends[0], ends[1], ends[2], ends[3]

    def crop_size(self, roi: Roi) -> tuple[int, int]:
        """(height, width) of the window after resampling."""
        if not isinstance(self.target_size, int):
            return self.target_size
        height, width = roi[1] - roi[0] + 1, roi[3] - roi[2] + 1
        scale = self.target_size / max(height, width)
        return round(height * scale), round(width * scale)

    def crop(self, planes: Tensor, roi: Roi) -> Tensor:
        """(B, C, Y, X) → (B, C, h, w): cut the window out and resample it."""
        window = planes[:, :, roi[0] : roi[1] + 1, roi[2] : roi[3] + 1]
        return resize(window, self.crop_size(roi))

    def to_crop(self, clicks: Sequence[Click], roi: Roi) -> list[Click]:
        """Move clicks into the resampled window; those outside stay outside."""
        (height, width), moved = self.crop_size(roi), []
        for click in clicks:
            y = height * (click.yx[0] - roi[0]) / (roi[1] - roi[0] + 1)
            x = width * (click.yx[1] - roi[2]) / (roi[3] - roi[2] + 1)
            moved.append(Click((y, x), click.is_positive))
        return moved


def paste_roi(values: Tensor, roi: Roi, shape: tuple[int, int]) -> Tensor:
    """(B, C, h, w) → (B, C, Y, X): resample back and paste into zeros."""
    size = (roi[1] - roi[0] + 1, roi[3] - roi[2] + 1)
    plane = values.new_zeros(*values.shape[:2], *shape)
    plane[:, :, roi[0] : roi[1] + 1, roi[2] : roi[3] + 1] = resize(values, size)
    return plane


def box_iou(first: Roi, second: Roi) -> float:
    """Product of the two 1-D overlaps of the boxes' rows and columns, ends included."""
    product = 1.0
    for axis in (0, 2):
        a, b = first[axis : axis + 2], second[axis : axis + 2]
        both = min(a[1], b[1]) - max(a[0], b[0]) + 1
        either = max(a[1], b[1]) - min(a[0], b[0]) + 1
        product *= max(both, 0) / max(either, 1e-6)
    return product


def as_probability_array(values: Tensor) -> NDArray[np.float32]:
    """(1, 1, Y, X) tensor → (Y, X) float32 array on the host."""
    return values[0, 0].detach().to("cpu", torch.float32).numpy()


@dataclass(frozen=True, slots=True)
class Protocol:
    """How a published predictor is run."""

    name: str
    zoom: ZoomIn | None  #: Zoom-In settings; None: always the whole image
    flip: bool = True  #: whether logits are averaged with those of the mirrored image
    #: a pixel belongs to the mask when its probability is greater
    threshold: float = PAPER_THRESHOLD
    extra_steps: int = 0  #: CFR-n's n; 0: one evaluation per click
    #: True: A-CFR, stop once a step changes at most ``stop_changed_px`` pixels
    adaptive: bool = False
    #: counted at the image's resolution, thresholded at ``threshold``
    stop_changed_px: int = 20
    #: CFR is applied while an object has at most this many clicks
    cascade_clicks: int = 20
    #: first clicks that are shown to the network; None: all
    clicks_limit: int | None = None
    #: True: windows follow M^u instead of the prediction (FCFI)
    roi_from_updated: bool = False
    target: float = 0.90  #: IoU at which the robot stops


def paper_protocol(
    name: str, *, dataset: str = "", backbone: str = "hrnet18s"
) -> Protocol:
    """Return a published protocol: ritm, simpleclick, paper-cfr or paper-fcfi.

    DAVIS has larger targets; FCFI has settings for GrabCut, Berkeley, DAVIS and SBD
    (used on other sets), on ``"hrnet18s"`` and ``"resnet101"``. Raises ValueError for
    an unknown name or backbone.
    """
    davis = dataset.lower().startswith("davis")
    if name == "ritm":
        return Protocol(name, ZoomIn(target_size=600 if davis else 400))
    if name in ("simpleclick", "paper-cfr"):
        side = 672 if davis else 448
        zoom = ZoomIn(target_size=(side, side), skip_clicks=-1)
        return Protocol(name, zoom, target=0.95 if name == "paper-cfr" else 0.90)
    if name == "paper-fcfi":
        return _fcfi(dataset.lower(), backbone)
    raise ValueError(
        f"no published protocol {name!r}: choose ritm, simpleclick, paper-cfr or "
        "paper-fcfi (micro is the product's own)"
    )


def _fcfi(dataset: str, backbone: str) -> Protocol:
    names = [d for b, d in FCFI_ZOOM if b == backbone]
    if not names:
        known = sorted({b for b, _ in FCFI_ZOOM})
        msg = f"FCFI has no backbone {backbone!r}: choose one of {', '.join(known)}"
        raise ValueError(msg)
    match = next((d for d in names if dataset.startswith(d)), "sbd")
    target_size, ratio = FCFI_ZOOM[backbone, match]
    zoom = ZoomIn(target_size, expansion_ratio=ratio, negatives_too=True)
    return Protocol("paper-fcfi", zoom, roi_from_updated=True, target=NEVER_STOP)
