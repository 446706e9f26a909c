"""Rivals for comparison: classical tools, and predictors like segment-anything's.

The three classical tools work on a square crop around the first click, three times as
wide as the object's longer side, so that it holds the whole object and its rim is
background. The runner gives them this size (``set_hint``), not the place; neither the
product nor a network gets it.

The crop is resampled to 128–256 px, and clicks are disks of radius 2 px there, of which
the later wins. Without a positive click the mask is empty.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage import filters, segmentation, transform

from napari_cfrseg.clicks import Click
from napari_cfrseg.errors import CheckpointError, DatasetError
from napari_cfrseg.evaluation.datasets import as_rgb

#: the crop's side over the object's longer side
CROP_PER_OBJECT = 3.0
#: the least side of a crop on the plane
MIN_SIDE_PX = 24
#: crops are enlarged or shrunk to a longer side in this range, so that a click's disk
#: is small against the object
LEAST_GRID_PX, MOST_GRID_PX = 128, 256
CLICK_RADIUS_PX = 2
UNKNOWN, OBJECT, BACKGROUND = 0, 1, 2


class CropSegmenter(ABC):
    """Segments a crop around the first click, from seeds."""

    def __init__(self) -> None:
        self._rgb: NDArray[np.float32] | None = None
        self._side_px: float | None = None

    def set_image(self, image: NDArray[Any]) -> None:
        """Scale the image to [0, 1] as the product does."""
        self._rgb = as_rgb(image)

    def set_hint(self, object_px: float) -> None:
        """Take the longer side of the next object's bounding box, in pixels."""
        self._side_px = CROP_PER_OBJECT * object_px

    def predict(self, clicks: Sequence[Click], previous: object) -> NDArray[np.bool_]:
        """Segment from all clicks; what was there before is not used."""
        del previous
        if self._rgb is None:
            raise ValueError("set_image must be called before predict")
        mask = np.zeros(self._rgb.shape[:2], bool)
        if not any(click.is_positive for click in clicks):
            return mask
        side = float(max(mask.shape)) if self._side_px is None else self._side_px
        half = round(max(side, MIN_SIDE_PX) / 2)
        rows, columns = (
            slice(max(0, at - half), min(length, at + half + 1))
            for at, length in zip(clicks[0].pixel, self._rgb.shape[:2], strict=True)
        )
        crop = self._rgb[rows, columns]
        longer = max(crop.shape[:2])
        scale = min(max(longer, LEAST_GRID_PX), MOST_GRID_PX) / longer
        size = tuple(max(1, round(scale * n)) for n in crop.shape[:2])
        seeds = draw_seeds(clicks, (rows.start, columns.start), scale, size)
        found = self.segment(_resize(crop, size), seeds)
        mask[rows, columns] = _resize(found[..., None], crop.shape[:2])[..., 0] > 0.5
        return mask

    @abstractmethod
    def segment(
        self, rgb: NDArray[np.float32], seeds: NDArray[np.uint8]
    ) -> NDArray[np.bool_]:
        """Segment one crop.

        ``rgb`` is (h, w, 3) float32 in [0, 1], ``seeds`` (h, w) uint8: 0 unknown, 1
        object, 2 background; the rim is background.
        """


class RandomWalker(CropSegmenter):
    """Grady's random walker between the seeds (scikit-image)."""

    def segment(
        self, rgb: NDArray[np.float32], seeds: NDArray[np.uint8]
    ) -> NDArray[np.bool_]:
        """Solve for the more probable seed."""
        how = {"beta": 200, "mode": "cg_j", "channel_axis": -1}
        labels = segmentation.random_walker(rgb, seeds.astype(np.int32), **how)
        return np.asarray(labels == OBJECT, bool)


class MarkerWatershed(CropSegmenter):
    """Flooding of the gradient from the seeds (scikit-image)."""

    def segment(
        self, rgb: NDArray[np.float32], seeds: NDArray[np.uint8]
    ) -> NDArray[np.bool_]:
        """Flood the largest channel gradient, lightly smoothed."""
        smooth = filters.gaussian(rgb, 1.0, channel_axis=-1)
        gradient = np.max([filters.sobel(smooth[..., c]) for c in range(3)], axis=0)
        labels = segmentation.watershed(gradient, seeds.astype(np.int32))
        return np.asarray(labels == OBJECT, bool)


class GrabCut(CropSegmenter):
    """OpenCV's GrabCut, five iterations.

    Pixels within a sixth of the crop of a positive click start as probable object
    (the object is a third of the crop), the others as probable background.
    """

    def segment(
        self, rgb: NDArray[np.float32], seeds: NDArray[np.uint8]
    ) -> NDArray[np.bool_]:
        """Cut between the colour models."""
        try:
            import cv2
        except ImportError as error:
            msg = 'GrabCut needs OpenCV: pip install "napari-cfrseg[peers]"'
            raise DatasetError(msg) from error
        near = ndimage.distance_transform_edt(seeds != OBJECT) <= max(seeds.shape) / 6
        codes = np.where(near, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
        codes[seeds == OBJECT] = cv2.GC_FGD
        codes[seeds == BACKGROUND] = cv2.GC_BGD
        image = np.ascontiguousarray((rgb * 255).round().astype(np.uint8))
        models = np.zeros((1, 65)), np.zeros((1, 65))
        cv2.setRNGSeed(0)
        cv2.grabCut(image, codes, None, *models, 5, cv2.GC_INIT_WITH_MASK)
        return np.isin(codes, (cv2.GC_FGD, cv2.GC_PR_FGD))


def draw_seeds(
    clicks: Sequence[Click],
    corner: tuple[int, int],
    scale: float,
    size: tuple[int, ...],
) -> NDArray[np.uint8]:
    """(h, w) uint8 seeds on a crop: its rim is background, clicks are disks.

    ``corner`` is the (row, column) of the crop's first pixel, ``scale`` its pixels per
    plane pixel, ``size`` its (h, w). A click off the crop leaves what of its disk is on
    it.
    """
    seeds = np.full(size, UNKNOWN, np.uint8)
    seeds[[0, -1], :] = BACKGROUND
    seeds[:, [0, -1]] = BACKGROUND
    ys, xs = np.ogrid[: size[0], : size[1]]
    for click in clicks:
        # a pixel's centre lies half a pixel from its corner, on both grids
        y, x = (
            (at - start + 0.5) * scale - 0.5
            for at, start in zip(click.yx, corner, strict=True)
        )
        disk = (ys - y) ** 2 + (xs - x) ** 2 <= CLICK_RADIUS_PX**2
        seeds[disk] = OBJECT if click.is_positive else BACKGROUND
    return seeds


def _resize(values: NDArray[Any], size: tuple[int, ...]) -> NDArray[np.float32]:
    """(h, w, C) → (*size, C) float32, averaging where it shrinks."""
    values = values.astype(np.float32)
    if values.shape[:2] == size:
        return values
    shape, shrinks = (*size, values.shape[2]), size[0] < values.shape[0]
    resized = transform.resize(values, shape, anti_aliasing=shrinks)
    return np.asarray(resized, np.float32)


MODEL_TYPES = ("vit_h", "vit_l", "vit_b", "vit_t")
#: packages with SAM's interface, the first one installed is used
PACKAGES = ("segment_anything", "mobile_sam")


@dataclass(frozen=True, slots=True, eq=False)
class SamPrediction:
    """A mask and what is fed back: (Y, X) bool and (1, h, w) float logits."""

    mask: NDArray[np.bool_]
    logits: NDArray[np.float32]


class SamSegmenter:
    """A segment-anything-style predictor, its weights loaded, as a segmenter."""

    def __init__(self, predictor: Any) -> None:
        self._predictor = predictor

    @classmethod
    def load(
        cls, checkpoint: Path, *, model_type: str | None = None, device: str = "cpu"
    ) -> SamSegmenter:
        """Load a user's checkpoint with the package that made it.

        The ``.pth`` file is read by that package's own loader: only load files you
        trust. The type is one of ``MODEL_TYPES``; None: from the file's name. Raises
        CheckpointError if no package or file is there, or the type unknown.
        """
        if not checkpoint.is_file():
            raise CheckpointError(f"no checkpoint {checkpoint}")
        if model_type is None:
            named = [t for t in MODEL_TYPES if t in checkpoint.name]
            if len(named) != 1:
                raise CheckpointError(
                    f"{checkpoint.name} does not name its model: "
                    f"write sam:{'|'.join(MODEL_TYPES)}:{checkpoint}"
                )
            model_type = named[0]
        package = _import_package()
        if model_type not in package.sam_model_registry:
            raise CheckpointError(f"{package.__name__} has no model {model_type!r}")
        model = package.sam_model_registry[model_type](checkpoint=str(checkpoint))
        return cls(package.SamPredictor(model.to(device).eval()))

    def set_image(self, image: NDArray[Any]) -> None:
        """Scale to RGB bytes (uint8 as it is) and compute the embedding."""
        rgb = as_rgb(image, keep_bytes=True)
        self._predictor.set_image((rgb * 255).round().astype(np.uint8))

    def predict(
        self, clicks: Sequence[Click], previous: SamPrediction | None
    ) -> SamPrediction:
        """Predict from all clicks and the logits of the mask before."""
        coordinates = np.array([click.yx[::-1] for click in clicks], np.float32)
        labels = np.array([int(click.is_positive) for click in clicks], np.int64)
        masks, scores, logits = self._predictor.predict(
            point_coords=coordinates,
            point_labels=labels,
            mask_input=None if previous is None else previous.logits,
            multimask_output=previous is None,
        )
        best = int(np.argmax(scores))
        fed_back = np.asarray(logits[best : best + 1])
        return SamPrediction(np.asarray(masks[best]) > 0, fed_back)


def _import_package() -> Any:
    for name in PACKAGES:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    msg = f"no package of SAM is installed: pip install {PACKAGES[0].replace('_', '-')}"
    raise CheckpointError(msg)
