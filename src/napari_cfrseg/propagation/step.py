"""Find one object on one plane: the network's answer, weighed against a prior.

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
from napari_cfrseg.engine.prediction import Prediction
from napari_cfrseg.engine.probability_patch import Patch
from napari_cfrseg.geometry.masks import LabelArray, MaskPatch, box_of
from napari_cfrseg.geometry.windows import Box, Window, shape_of, union
from napari_cfrseg.propagation.planes import SegmenterPlanes, fits
from napari_cfrseg.propagation.shapes import (
    Field,
    Floats,
    Prior,
    grown,
    mean_plane,
    overlap_iou,
    signed_distance,
)
from napari_cfrseg.propagation.tracks import PropagationSettings

#: logits are cut at this
_MOST_LOGIT = 6.0
#: logit of a pixel that another object holds
TAKEN = -1e4


@dataclass(frozen=True, slots=True, eq=False)
class Running:
    """Where a run is: a plane, the object's mask and appearance on it.

    ``anchor_look`` is its appearance on the anchor that the run began from,
    ``least_contrast`` the least share of that contrast it had on the way.
    """

    index: int
    mask: MaskPatch
    look: Look
    anchor_look: Look
    window: Window | None = None
    least_contrast: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """A plane's outcome before it is decided on.

    ``logits`` is F, ``network`` the network's mask alone. It ran if the image supported
    a carried click. ``contrast`` is the share of the anchor's that the mask kept.
    """

    logits: Field
    network: MaskPatch
    network_ran: bool
    agreement: float
    certainty: float
    contrast: float
    window: Window | None


def look_at(planes: SegmenterPlanes, index: int, mask: MaskPatch) -> Look:
    """Measure an object's appearance on a plane."""
    own = box_of(mask)
    if own is None:
        return Look(0.0, 0.0, 0.0)
    box = _with_room(own, planes.shape)
    grey = mean_plane(planes.read(index, box))
    return Look.of(grey, signed_distance(mask.window(box), planes.px_sampling))


def advance(
    planes: SegmenterPlanes,
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
    """Look for the object on the next plane, ``index``.

    Parameters
    ----------
    prior
        The expected shape; None beyond the last anchor of an object of unknown end.
    sigma
        How uncertain the prior's outline is, in pixels.
    trust
        The network's weight, 0 to 1.
    siblings
        Labels of objects on their way in the same run; to be kept away from.
    windows
        Focus windows of other objects on that plane: the first that fits is used, too.
    """
    sampling = planes.px_sampling
    hulls = [box_of(run.mask), None if prior is None else prior.box(index)]
    known = [hull for hull in hulls if hull is not None]
    if not known:
        return _nothing()
    box = _with_room(union(*known), planes.shape)
    expected = signed_distance(run.mask.window(box), sampling)
    shape = expected
    if prior is not None:
        shape = prior.field(index, box).values
        expected = expected + shape - prior.field(run.index, box).values
        if not (expected > 0).any():
            expected = shape
    others = planes.taken(index, object_id, box)
    neighbours = others
    if siblings is not None:  # where they were a plane ago: for clicks only
        neighbours = np.where(others > 0, others, siblings(box))
        neighbours[(others == 0) & (expected > 0)] = 0
    grey = ndimage.uniform_filter(mean_plane(planes.read(index, box)), 3)
    free = np.where(neighbours > 0, np.minimum(expected, -1), expected)
    clicks = sibling_negatives(neighbours, expected, box, settings.most_negatives)
    clicks += positives(free, grey, run.look, box, settings.most_positives)
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
        overlap_iou(network, Field(box, shape).mask()),
        _certainty(probability, values > 0),
        float(kept[values > 0].mean()) if (values > 0).any() else 0.0,
        prediction.window,
    )


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


def _with_room(box: Box, plane: tuple[int, int]) -> Box:
    """Return a box with room to grow."""
    return grown(box, max(8, max(shape_of(box)) // 2), plane)


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


def _certainty(probability: Floats, mask: NDArray[np.bool_]) -> float:
    if not mask.any():
        return 0.0
    return float(np.abs(2 * probability[mask] - 1).mean())


#: parts of an object smaller than this share of its largest get no click
_SMALLEST_PART = 0.2
#: a click keeps at least this share of the part's greatest distance to its outline
_DEEP = 0.5


@dataclass(frozen=True, slots=True)
class Look:
    """An object's appearance on a plane: grey values.

    The means of its core and of a ring around it, and the standard deviation inside.
    """

    inside: float
    outside: float
    spread: float

    @property
    def limit(self) -> float:
        """Greatest difference from ``inside`` that still looks like the object."""
        return max(2.0 * self.spread, abs(self.inside - self.outside) / 2)

    @property
    def has_contrast(self) -> bool:
        """Whether the object stands out of its surround at all."""
        return abs(self.inside - self.outside) > self.spread

    def fading(self, grey: Floats) -> Floats:
        """Return how far pixels are from the surround's grey (0) to the object's (1).

        1 everywhere where the object never stood out.
        """
        if not self.has_contrast:
            return np.ones_like(grey)
        span = self.inside - self.outside
        out: Floats = ((grey - self.outside) / span).astype(np.float32)
        return out

    @classmethod
    def of(cls, grey: Floats, distance: Floats) -> Look:
        """Measure an object, given its signed distance over the same box."""
        core = distance > min(1.0, float(distance.max()) / 2)
        ring = (distance < -1.0) & (distance > -5.0)
        values = grey[core]
        inside = float(values.mean()) if values.size else 0.0
        spread = float(values.std()) if values.size else 0.0
        outside = float(grey[ring].mean()) if ring.any() else inside
        return cls(inside, outside, spread)


def positives(
    distance: Floats, grey: Floats, look: Look, box: Box, most: int
) -> list[Click]:
    """Choose an interior point of each larger part of a mask that looks like it.

    ``distance`` is that of the mask carried here, ``grey`` the smoothed pixels of this
    plane, ``look`` the appearance on the plane before. The largest part's point comes
    last: the newest click counts most.
    """
    parts, count = ndimage.label(distance > 0)
    if count == 0:
        return []
    areas = np.bincount(parts.ravel(), minlength=count + 1)[1:]
    order = [i for i in np.argsort(-areas) if areas[i] >= _SMALLEST_PART * areas.max()]
    clicks = []
    for index in order[:most]:
        inside = np.where(parts == index + 1, distance, 0)
        deepest = float(inside.max())
        off = np.abs(grey - look.inside) / max(look.limit, 1e-6)
        usable = (inside >= _DEEP * deepest) & (off <= 1)
        if not usable.any():
            continue
        merit = np.where(usable, inside / deepest - 0.5 * off, -np.inf)
        clicks.append(_click(merit, box, True))
    return clicks[::-1]


def sibling_negatives(
    others: LabelArray, distance: Floats, box: Box, most: int
) -> list[Click]:
    """Choose an interior point of each object beside the mask, nearest first."""
    nearest_first = []
    for label in np.unique(others[others > 0]):
        mask = others == label
        depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
        merit = np.where(mask & (distance < -1), depth, -np.inf)
        if np.isfinite(merit).any():
            nearest = float(-distance[mask].max())
            nearest_first.append((nearest, int(label), _click(merit, box, False)))
    nearest_first.sort(key=lambda entry: entry[:2])
    return [click for _, _, click in nearest_first[:most]]


def _click(merit: Floats, box: Box, is_positive: bool) -> Click:
    y, x = np.unravel_index(int(np.argmax(merit)), merit.shape)
    return Click((float(y + box[0]), float(x + box[1])), is_positive)
