"""One object, one plane: what the network sees there, weighed against a prior.

The network gets the mask of the plane before as its feedback (moved and reshaped as the
anchors say, where there are two) and carried clicks. Its answer is a logit map ``L``;
the prior is a shape with signed distance ``s`` and an outline uncertain by σ pixels::

    F = w · L + s / σ − f          mask = F > 0

A pixel within σ of the prior's outline is the network's to decide; one many σ away the
network alone cannot take or give. w is the trust the anchors give the network. f > 0
where a pixel has faded to the surround's grey, measured on the anchor: an object ends
where it is no longer to be seen, whatever is carried there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_cfrseg.clicks import Click
from napari_cfrseg.engine.masks import LabelArray, MaskPatch
from napari_cfrseg.engine.patch import Patch, union
from napari_cfrseg.engine.prediction import Prediction
from napari_cfrseg.engine.propagation import carried
from napari_cfrseg.engine.propagation.planes import Planes, px_sampling
from napari_cfrseg.engine.propagation.priors import Prior
from napari_cfrseg.engine.propagation.shapes import (
    Field,
    Floats,
    box_of,
    grown,
    mean_plane,
    signed_distance,
    slices,
)
from napari_cfrseg.engine.propagation.sharing import fits
from napari_cfrseg.engine.propagation.values import PropagationSettings
from napari_cfrseg.window import Box, Window

#: logits beyond this say no more
_MOST_LOGIT = 6.0
#: logit of a pixel that another object holds
TAKEN = -1e4


@dataclass(frozen=True, slots=True, eq=False)
class Running:
    """Where a run is.

    Attributes
    ----------
    index
        The plane.
    mask
        The object's mask on it.
    look
        What it looks like there.
    anchor_look
        What it looked like on the anchor the run began from.
    window
        The network's last focus window: kept while it fits.
    least_contrast
        The least share of the anchor's contrast it had on the way.
    """

    index: int
    mask: MaskPatch
    look: carried.Look
    anchor_look: carried.Look
    window: Window | None = None
    least_contrast: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """A plane's outcome before it is decided on.

    Attributes
    ----------
    logits
        F, the network and the prior together.
    network
        The network's mask alone; empty where it was not asked.
    asked
        Whether any carried click was supported, so that the network was run.
    agreement, certainty
        As in :class:`Evidence`.
    contrast
        Share of the anchor's contrast that the mask kept.
    window
        The focus window used.
    """

    logits: Field
    network: MaskPatch
    asked: bool
    agreement: float
    certainty: float
    contrast: float
    window: Window | None


def look_at(planes: Planes, index: int, mask: MaskPatch) -> carried.Look:
    """Measure what an object looks like on a plane."""
    found = box_of(mask)
    if found is None:
        return carried.Look(0.0, 0.0, 0.0)
    box = _with_room(found, planes.shape)
    grey = mean_plane(planes.read(index, box))
    return carried.Look.of(
        grey, signed_distance(mask.window(slices(box)), px_sampling(planes))
    )


def advance(
    planes: Planes,
    run: Running,
    index: int,
    object_id: int,
    settings: PropagationSettings,
    *,
    prior: Prior | None,
    sigma: float,
    trust: float,
    siblings: Callable[[Box], LabelArray] | None = None,
    windows: Sequence[Window] = (),
) -> Answer:
    """Look for the object on the next plane.

    Parameters
    ----------
    run
        Where it is now; ``index`` is the plane wanted.
    prior
        The interpolated shape of a plane between two anchors, None beyond the last.
    sigma
        How uncertain the prior's outline is, in pixels.
    trust
        The network's weight, 0 to 1.
    siblings
        Labels of objects on their way in the same run; to be kept away from.
    windows
        Focus windows that other objects use on that plane: the first that fits is
        used, too.
    """
    sampling = px_sampling(planes)
    found = _hull(box_of(run.mask), None if prior is None else prior.box(index))
    if found is None:
        return _nothing()
    box = _with_room(found, planes.shape)
    expected = signed_distance(run.mask.window(slices(box)), sampling)
    shape = expected
    if prior is not None:
        shape = prior.field(index, box).values
        expected = expected + shape - prior.field(run.index, box).values
        if not (expected > 0).any():
            expected = shape
    others = planes.taken(index, object_id, box)
    beside = others
    if siblings is not None:  # where they were a plane ago: clicks, but no verdict
        beside = np.where(others > 0, others, siblings(box))
        beside[(others == 0) & (expected > 0)] = 0
    grey = ndimage.uniform_filter(mean_plane(planes.read(index, box)), 3)
    clicks = _clicks(expected, grey, beside, run.look, box, settings)
    if not any(c.is_positive for c in clicks):
        values = shape / sigma
        values[others > 0] = TAKEN
        return Answer(Field(box, values), MaskPatch.empty(), False, 0.0, 0.0, 0.0, None)
    feedback = Patch(planes.shape, box[0], box[1], (expected > 0).astype(np.float32))
    shared = _shared(feedback, windows)
    if shared is not None:  # a neighbour's click beyond it would ask for another one
        clicks = [c for c in clicks if c.is_positive or _shows(shared, c)]
    window = run.window if shared is None else shared
    prediction = planes.carry(
        index, clicks, Prediction(feedback, window=window), settings.refinement
    )
    probability = _connected(prediction.patch.read(box), expected, clicks, box)
    logits = np.clip(_logit(probability), -_MOST_LOGIT, _MOST_LOGIT)
    values = trust * settings.network_weight * logits + shape / sigma
    kept = run.anchor_look.fading(grey)
    values -= settings.fading_weight * np.clip(1 - kept / settings.faded, 0, 1)
    values[others > 0] = TAKEN
    network = MaskPatch.from_mask(probability > 0.5, (box[0], box[1]))
    return Answer(
        Field(box, values),
        network,
        True,
        _iou(probability > 0.5, shape > 0),
        _certainty(probability, values > 0),
        float(kept[values > 0].mean()) if (values > 0).any() else 0.0,
        prediction.window,
    )


def _clicks(
    expected: Floats,
    grey: Floats,
    others: LabelArray,
    look: carried.Look,
    box: Box,
    settings: PropagationSettings,
) -> list[Click]:
    """Negatives first, then the positives."""
    negative = carried.sibling_negatives(others, expected, box, settings.most_negatives)
    room = min(settings.surround_negatives, settings.most_negatives - len(negative))
    negative += carried.surround_negatives(expected, grey, look, box, room)
    free = np.where(others > 0, np.minimum(expected, -1), expected)
    return negative + carried.positives(free, grey, look, box, settings.most_positives)


def _connected(
    probability: Floats, expected: Floats, clicks: list[Click], box: Box
) -> Floats:
    """Keep the parts of the answer that touch the mask carried here."""
    parts, count = ndimage.label(probability > 0.5)
    if count == 0:
        return probability
    kept = set(np.unique(parts[expected > 0]).tolist())
    for click in clicks:
        y, x = click.pixel
        if click.is_positive:
            kept.add(int(parts[y - box[0], x - box[1]]))
    kept.discard(0)
    stray = (parts > 0) & ~np.isin(parts, list(kept))
    out: Floats = np.where(stray, np.float32(0), probability)
    return out


def _hull(first: Box | None, second: Box | None) -> Box | None:
    if first is None or second is None:
        return second if first is None else first
    return union(first, second)


def _with_room(found: Box, plane: tuple[int, int]) -> Box:
    """Return a box with room to grow."""
    size = max(found[2] - found[0], found[3] - found[1])
    return grown(found, max(8, size // 2), plane)


def _shared(feedback: Patch, windows: Sequence[Window]) -> Window | None:
    """Return a window of others that shows the object well."""
    box = feedback.mask_box(0.5)
    if box is None:
        return None
    return next((window for window in windows if fits(window, box)), None)


def _shows(window: Window, click: Click) -> bool:
    y, x = click.pixel
    return window.holds((y, x, y + 1, x + 1))


def _nothing() -> Answer:
    field = Field((0, 0, 1, 1), np.full((1, 1), -1.0, np.float32))
    return Answer(field, MaskPatch.empty(), False, 1.0, 0.0, 0.0, None)


def _logit(probability: Floats) -> Floats:
    p = np.clip(probability, 1e-4, 1 - 1e-4)
    out: Floats = np.log(p / (1 - p)).astype(np.float32)
    return out


def _iou(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    union = int(np.count_nonzero(first | second))
    return float(np.count_nonzero(first & second) / union) if union else 1.0


def _certainty(probability: Floats, mask: NDArray[np.bool_]) -> float:
    if not mask.any():
        return 0.0
    return float(np.abs(2 * probability[mask] - 1).mean())
