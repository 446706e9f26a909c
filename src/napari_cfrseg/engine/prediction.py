"""An object's mask after a click, and how it was computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cfrseg.clicks import Click, effective_clicks
from napari_cfrseg.engine.corrections import Affinity, honour
from napari_cfrseg.engine.focus import border_cells, clicked_component
from napari_cfrseg.engine.probability_patch import FLOOR, Patch, put_back
from napari_cfrseg.geometry.windows import Box, Window, mask_box
from napari_cfrseg.io.plane_image import Scaling


@dataclass(frozen=True, slots=True)
class StageSeconds:
    """Wall time of one click's round by stage, in seconds."""

    crop: float = 0.0  #: read and resample
    embed_image: float = 0.0
    embed_clicks: float = 0.0
    refine: float = 0.0
    paste: float = 0.0  #: put back and honour the clicks

    @property
    def network(self) -> float:
        """Sum over the network's stages."""
        return self.embed_image + self.embed_clicks + self.refine

    @property
    def total(self) -> float:
        """Sum over the stages."""
        return self.crop + self.network + self.paste


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """One of the masks among which the automatic focus chose at a first click."""

    window: Window
    cells: Box  #: of the window's grid, outside which the probability is next to zero
    values: NDArray[np.float32]  #: (h, w), the probability inside
    affinity: Affinity | None = None
    quality: float | None = None

    @classmethod
    def of(
        cls,
        probability: NDArray[np.float32],
        window: Window,
        affinity: Affinity | None,
        quality: float | None,
    ) -> Candidate:
        """Keep a (grid, grid) probability where it is not next to zero."""
        cells = mask_box(probability >= FLOOR) or (0, 0, 0, 0)
        y0, x0, y1, x1 = cells
        return cls(window, cells, probability[y0:y1, x0:x1].copy(), affinity, quality)

    @property
    def probability(self) -> NDArray[np.float32]:
        """(grid, grid) float32."""
        out = np.zeros((self.window.grid, self.window.grid), dtype=np.float32)
        y0, x0, y1, x1 = self.cells
        out[y0:y1, x0:x1] = self.values
        return out


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """An object's probability after a click, kept only where it is not zero."""

    #: probability at the plane's resolution, every click honoured; 0 outside its box
    patch: Patch
    clicks: tuple[Click, ...] = ()  #: all of the object up to this round
    #: of this round; None where the network was not run (no mask and no positive click,
    #: or a mask that came from outside)
    window: Window | None = None
    steps: int = 0  #: of refinement, 1 for standard inference
    quality: float | None = None  #: IoU that the network expects; None if it gives none
    #: the object runs into a border of the window that is not the plane's: the next
    #: click looks wider
    touches_border: bool = False
    corrected: tuple[Click, ...] = ()  #: ignored by the network, honoured by correction
    #: negative ones far from the mask of their time: they took nothing away, and no
    #: window is widened to hold them
    aside: tuple[Click, ...] = ()
    #: wall time of the round, and the same by stage
    seconds: float = 0.0
    stages: StageSeconds = StageSeconds()
    scaling: Scaling | None = None  #: the image's, as it was set
    threshold: float = 0.5  #: where ``mask`` cuts: probability > threshold
    #: at a first click whose window the automatic focus chose: the different masks it
    #: found, best first, and which of them this is
    choices: tuple[Candidate, ...] = ()
    choice: int = 0

    @classmethod
    def empty(
        cls,
        shape: tuple[int, int],
        clicks: tuple[Click, ...] = (),
        threshold: float = 0.5,
    ) -> Prediction:
        """No mask yet."""
        return cls(Patch.empty(shape), tuple(clicks), threshold=threshold)

    @classmethod
    def from_mask(
        cls, mask: NDArray[Any], clicks: tuple[Click, ...] = ()
    ) -> Prediction:
        """Start from a (Y, X) mask: imported, painted, or from a neighbouring plane.

        ``clicks`` are those already made of the object: they are shown to the network
        with the next one, but not replayed.
        """
        if np.ndim(mask) != 2:
            raise ValueError(f"mask of shape {np.shape(mask)}: expected (Y, X)")
        return cls(Patch.from_mask(np.asarray(mask) != 0), tuple(clicks))

    @property
    def candidates(self) -> tuple[Prediction, ...]:
        """The different masks found at a first click, best first.

        Each can be the ``previous`` of the next click. After other clicks, or where
        only one window was tried, this prediction alone.
        """
        return tuple(self.choose(k) for k in range(len(self.choices))) or (self,)

    def choose(self, candidate: int) -> Prediction:
        """Return another of the masks found at this click, without the network.

        Candidate 0 is the best; beyond the last one the last is meant.
        """
        if candidate < 0:
            raise ValueError(f"candidate {candidate}: expected 0 (the best) or more")
        candidate = min(candidate, max(len(self.choices) - 1, 0))
        if candidate == self.choice:
            return self
        chosen = self.choices[candidate]
        clicks, window = effective_clicks(self.clicks), chosen.window
        probability = chosen.probability
        patch, corrected = honour(
            put_back(Patch.empty(self.shape), probability, window),
            clicks,
            threshold=self.threshold,
            px_per_cell=window.px_per_cell,
            affinity=chosen.affinity,
        )
        mask = probability > self.threshold
        return replace(
            self,
            patch=patch,
            window=window,
            steps=1,
            quality=chosen.quality,
            touches_border=touches_border(mask, window, clicks, self.shape),
            corrected=corrected,
            choice=candidate,
        )

    @property
    def shape(self) -> tuple[int, int]:
        """(Y, X) of the plane."""
        return self.patch.plane

    @property
    def has_mask(self) -> bool:
        """Whether there is a mask to feed back: the network ran, or one was given."""
        return self.window is not None or self.patch.probability.size > 0

    @property
    def mask(self) -> NDArray[np.bool_]:
        """(Y, X) bool, built at each access."""
        return self.mask_at(self.threshold)

    @property
    def mask_box(self) -> Box | None:
        """(y0, x0, y1, x1) of the mask, ends exclusive; None if empty."""
        return self._honoured(self.threshold).mask_box(self.threshold)

    @property
    def probability(self) -> NDArray[np.float32]:
        """(h, w) float32: the probability in the part of the window in the plane.

        Without a window, the probability in the mask's box.
        """
        if self.window is None:
            return self.patch.probability
        return self.patch.read(self.window.clipped(self.shape))

    def probability_plane(self) -> NDArray[np.float32]:
        """(Y, X) float32, built at each call."""
        return self.patch.read((0, 0, *self.shape))

    def with_threshold(self, threshold: float) -> Prediction:
        """Cut the same probability elsewhere; the network is not run."""
        _check_threshold(threshold)
        return replace(self, threshold=threshold)

    def mask_at(self, threshold: float) -> NDArray[np.bool_]:
        """(Y, X) bool, probability > threshold; clicks stay honoured at any threshold.

        The network is not run.
        """
        out = np.zeros(self.shape, dtype=bool)
        y0, x0, mask = self.mask_patch(threshold)
        out[y0 : y0 + mask.shape[0], x0 : x0 + mask.shape[1]] = mask
        return out

    def mask_patch(
        self, threshold: float | None = None
    ) -> tuple[int, int, NDArray[np.bool_]]:
        """Return ``(y0, x0, mask)``: the mask in its patch, false everywhere else.

        Painting it costs the object's size, not the plane's.
        """
        cut = self.threshold if threshold is None else threshold
        patch = self._honoured(cut)
        return patch.y0, patch.x0, patch.probability > cut

    def _honoured(self, threshold: float) -> Patch:
        """Honour the clicks at a threshold other than the round's own, too."""
        _check_threshold(threshold)
        if self.window is None:
            return self.patch
        patch, _ = honour(
            self.patch,
            effective_clicks(self.clicks),
            threshold=threshold,
            px_per_cell=self.window.px_per_cell,
        )
        return patch


def start_from(
    previous: Prediction | NDArray[Any] | None,
    shape: tuple[int, int],
    clicks: tuple[Click, ...],
) -> Prediction:
    """Return the Prediction that an object's further clicks start from.

    One of another shape or of other clicks raises ValueError.
    """
    if previous is None:
        return Prediction.empty(shape)
    start = previous
    if not isinstance(start, Prediction):
        start = Prediction.from_mask(np.asarray(previous))
    if start.shape != shape:
        raise ValueError(f"previous mask of shape {start.shape}; the image has {shape}")
    known = start.clicks
    if clicks[: len(known)] != known:
        raise ValueError(
            f"the previous prediction was made from {len(known)} clicks that are not "
            f"the first of these {len(clicks)}: pass the prediction before the click "
            "that changed, or None"
        )
    return start


def touches_border(
    mask: NDArray[np.bool_],
    window: Window,
    clicks: Sequence[Click],
    plane: tuple[int, int],
) -> bool:
    """Whether the clicked part of a grid mask runs into the window's border."""
    component = clicked_component(mask, window, clicks)
    body = mask if component is None else component
    return bool(border_cells(body, window, plane).any())


def _check_threshold(threshold: float) -> None:
    if not 0 < threshold < 1:
        raise ValueError(f"threshold {threshold!r}: expected a number between 0 and 1")
