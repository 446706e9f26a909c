"""Segment-anything-style predictors as segmenters.

Works with any object that has ``set_image(rgb)`` and
``predict(point_coords=…, point_labels=…, mask_input=…, multimask_output=…)`` returning
(masks, scores, low-resolution logits): SAM's ``SamPredictor``, MobileSAM's,
micro-sam's and SAM 2's image predictor. The best-scored mask is taken; its logits are
fed back with the next click, as those predictors' authors advise, and several masks
are asked for only at the first click, where one point is ambiguous.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cfrseg.clicks import Click
from napari_cfrseg.errors import CheckpointError
from napari_cfrseg.images import open_plane

MODEL_TYPES = ("vit_h", "vit_l", "vit_b", "vit_t")
#: packages with SAM's interface, the first one installed is used
PACKAGES = ("segment_anything", "mobile_sam")


@dataclass(frozen=True, slots=True, eq=False)
class SamPrediction:
    """A mask and what is fed back: (Y, X) bool and (1, h, w) float logits."""

    mask: NDArray[np.bool_]
    logits: NDArray[np.float32]


class SamSegmenter:
    """A segment-anything-style predictor behind ``set_image`` and ``predict``.

    Parameters
    ----------
    predictor
        The user's predictor, its weights loaded.
    """

    def __init__(self, predictor: Any) -> None:
        self._predictor = predictor

    @classmethod
    def load(
        cls, checkpoint: Path, *, model_type: str | None = None, device: str = "cpu"
    ) -> SamSegmenter:
        """Load a user's checkpoint with the package that made it.

        Parameters
        ----------
        checkpoint
            The ``.pth`` file; read by that package's own loader, so only load files
            you trust.
        model_type
            ``"vit_h"``, ``"vit_l"``, ``"vit_b"`` or ``"vit_t"``; None: from the name
            of the file.
        device
            Torch device.

        Raises
        ------
        CheckpointError
            If no package is installed, the file is missing, or its type unknown.
        """
        if not checkpoint.is_file():
            msg = f"no checkpoint {checkpoint}"
            raise CheckpointError(msg)
        if model_type is None:
            named = [t for t in MODEL_TYPES if t in checkpoint.name]
            if len(named) != 1:
                msg = (
                    f"{checkpoint.name} does not name its model: "
                    f"write sam:{'|'.join(MODEL_TYPES)}:{checkpoint}"
                )
                raise CheckpointError(msg)
            model_type = named[0]
        package = _import_package()
        if model_type not in package.sam_model_registry:
            msg = f"{package.__name__} has no model {model_type!r}"
            raise CheckpointError(msg)
        model = package.sam_model_registry[model_type](checkpoint=str(checkpoint))
        return cls(package.SamPredictor(model.to(device).eval()))

    def set_image(self, image: NDArray[Any]) -> None:
        """Scale to RGB bytes (uint8 as it is) and compute the embedding."""
        self._predictor.set_image(_as_rgb_bytes(image))

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
        return SamPrediction(
            np.asarray(masks[best]) > 0, np.asarray(logits[best : best + 1])
        )


def _as_rgb_bytes(image: NDArray[Any]) -> NDArray[np.uint8]:
    plane = open_plane(image)
    values = np.asarray(image)
    values = values[..., None] if values.ndim == 2 else values[..., : plane.channels]
    if values.dtype != np.uint8:
        values = (plane.scaling.apply(values) * 255).round().astype(np.uint8)
    if values.shape[2] == 2:
        values = np.concatenate([values, values[..., :1]], axis=2)
    if values.shape[2] == 1:
        values = np.repeat(values, 3, axis=2)
    return np.ascontiguousarray(values[..., :3])


def _import_package() -> Any:
    for name in PACKAGES:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    msg = f"no package of SAM is installed: pip install {PACKAGES[0].replace('_', '-')}"
    raise CheckpointError(msg)
