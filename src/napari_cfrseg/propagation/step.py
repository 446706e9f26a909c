"""Find one object on one plane: the network's answer, weighed against a prior.

The network gets the mask of the plane before as its feedback (moved to where the
object's picture is found again, reshaped as the anchors say where there are two) and
carried clicks. Its answer is a logit map ``L``; the prior is a shape with signed
distance ``s`` and an outline uncertain by σ pixels::

    F = w · L + s / σ − f          mask = F > 0

A pixel within σ of the prior's outline is the network's to decide; one many σ away the
network alone cannot take or give. w is the trust the anchors give the network. f > 0
where a pixel has faded to the surround's grey, measured on the anchor: an object ends
where it is no longer to be seen, whatever is carried there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from napari_cfrseg.clicks import Click
from napari_cfrseg.engine.prediction import Prediction
from napari_cfrseg.engine.probability_patch import Patch, logits_of
from napari_cfrseg.geometry.distances import depth_in
from napari_cfrseg.geometry.masks import LabelArray, MaskPatch, box_of, overlap_iou
from napari_cfrseg.geometry.windows import Box, Window, overlap, shape_of, union
from napari_cfrseg.propagation.planes import SegmenterPlanes, fits
from napari_cfrseg.propagation.shapes import (
    Field,
    Floats,
    Prior,
    centre,
    grown,
    mean_plane,
    moved,
    signed_distance,
)
from napari_cfrseg.propagation.tracks import PropagationSettings

#: logits are cut at this
_MOST_LOGIT = 6.0
#: logit of a pixel that another object holds
TAKEN = -1e4

Shift = tuple[int, int]
"""(y, x) in whole pixels."""


@dataclass(frozen=True, slots=True, eq=False)
class Running:
    """Where a run is: a plane, the object's mask, picture and appearance on it."""

    index: int
    mask: MaskPatch
    picture: Field
    look: Look
    anchor_look: Look  #: its appearance on the anchor that the run began from
    anchor_area: int  #: of its largest anchor
    window: Window | None = None
    least_contrast: float = 1.0  #: least share of the anchor's contrast on the way
    strayed: Shift = (0, 0)  #: how far (y, x) it is from where the prior expects it


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """A plane's outcome before it is decided on."""

    logits: Field  #: F of the module's docstring
    carried: MaskPatch  #: the mask that was expected
    network: MaskPatch  #: the network's alone
    network_ran: bool  #: it does if the image supports a carried click
    agreement: float
    certainty: float
    contrast: float  #: the share of the anchor's that the mask kept
    window: Window | None
    strayed: Shift = (0, 0)


def look_at(planes: SegmenterPlanes, index: int, mask: MaskPatch) -> tuple[Look, Field]:
    """Measure an object's appearance on a plane; return its picture, too."""
    own = box_of(mask)
    if own is None:
        return Look(0.0, 0.0, 0.0), Field((0, 0, 0, 0), np.zeros((0, 0), np.float32))
    box = _with_room(own, planes.shape)
    grey = mean_plane(planes.read(index, box))
    look = Look.of(grey, signed_distance(mask.window(box), planes.px_sampling))
    return look, Field(box, grey)


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

    ``prior`` is the expected shape (None beyond the last anchor of an object of unknown
    end), ``sigma`` how uncertain its outline is in pixels, ``trust`` the network's
    weight, 0 to 1. ``siblings`` are labels of objects on their way in the same run, to
    be kept away from; ``windows`` the focus windows of other objects on that plane, of
    which the first that fits is used, too.
    """
    outlook = _followed(planes, run, index, prior, settings)
    if outlook is None:
        nowhere = Field((0, 0, 1, 1), np.full((1, 1), -1.0, np.float32))
        empty = MaskPatch.empty()
        return Answer(nowhere, empty, empty, False, 1.0, 0.0, 0.0, None)
    (prior_field, expected_field), strayed, step = outlook
    box, shape, expected = prior_field.box, prior_field.values, expected_field.values
    carried = expected_field.mask()
    sigma += settings.stray_sigma * math.hypot(*step)
    others = planes.taken(index, object_id, box)
    grey = ndimage.uniform_filter(mean_plane(planes.read(index, box)), 3)
    clicks = _clicks_on(expected_field, grey, run.look, others, siblings, settings)
    if not any(c.is_positive for c in clicks):
        values = shape / sigma
        values[others > 0] = TAKEN
        nothing = MaskPatch.empty()
        return Answer(Field(box, values), carried, nothing, False, 0.0, 0.0, 0.0, None)
    feedback = Patch(planes.shape, box[0], box[1], (expected > 0).astype(np.float32))
    own = feedback.mask_box(0.5)
    shared = next((window for window in windows if own and fits(window, own)), None)
    if shared is not None:  # a neighbour's click beyond it would ask for another one
        pixels = [(*c.pixel, c.pixel[0] + 1, c.pixel[1] + 1) for c in clicks]
        pairs = zip(clicks, pixels, strict=True)
        clicks = [c for c, pixel in pairs if c.is_positive or shared.holds(pixel)]
    window = run.window if shared is None else shared
    start = Prediction(feedback, window=window)
    prediction = planes.carry(index, clicks, start, settings.refinement)
    probability = _connected(prediction.patch.read(box), expected, clicks, box)
    logits = np.clip(logits_of(probability, 1e-4), -_MOST_LOGIT, _MOST_LOGIT)
    values = trust * settings.network_weight * logits + shape / sigma
    kept = run.anchor_look.fading(grey)
    values -= settings.fading_weight * np.clip(1 - kept / settings.faded, 0, 1)
    values[others > 0] = TAKEN
    network = MaskPatch.from_mask(probability > 0.5, (box[0], box[1]))
    agreement = overlap_iou(network, Field(box, shape).mask())
    certainty = contrast = 0.0
    if (inside := values > 0).any():
        certainty = float(np.abs(2 * probability[inside] - 1).mean())
        contrast = float(kept[inside].mean())
    measured = True, agreement, certainty, contrast
    seen = prediction.window, strayed
    return Answer(Field(box, values), carried, network, *measured, *seen)


def _followed(
    planes: SegmenterPlanes,
    run: Running,
    index: int,
    prior: Prior | None,
    settings: PropagationSettings,
) -> tuple[tuple[Field, Field], Shift, Shift] | None:
    """Return what is expected where the object's picture is found again.

    The fields of :func:`_expected`, how far the run has strayed then, and the last step
    of that way; None: nothing is expected.
    """
    outlook = _expected(planes, run, index, prior, run.strayed)
    if outlook is None:
        return None
    step = found_again(planes, run, index, outlook[1].mask(), settings)
    strayed = run.strayed[0] + step[0], run.strayed[1] + step[1]
    if step != (0, 0):
        shifted = replace(run, mask=moved(run.mask, step))
        outlook = _expected(planes, shifted, index, prior, strayed) or outlook
    return outlook, strayed, step


def _clicks_on(
    field: Field,
    grey: Floats,
    look: Look,
    others: LabelArray,
    siblings: Callable[[Box], LabelArray] | None,
    settings: PropagationSettings,
) -> list[Click]:
    """Choose clicks for a mask carried to a plane: in it, and in its neighbours."""
    expected, neighbours = field.values, others
    if siblings is not None:  # where they were a plane ago: for clicks only
        neighbours = np.where(others > 0, others, siblings(field.box))
        neighbours[(others == 0) & (expected > 0)] = 0
    free = np.where(neighbours > 0, np.minimum(expected, -1), expected)
    most = settings.most_negatives, settings.most_positives
    negatives = sibling_negatives(neighbours, expected, field.box, most[0])
    return negatives + positives(free, grey, look, field.box, most[1])


def _expected(
    planes: SegmenterPlanes,
    run: Running,
    index: int,
    prior: Prior | None,
    strayed: Shift,
) -> tuple[Field, Field] | None:
    """Return signed distances of prior and carried mask, moved as the run strayed."""
    hulls = [box_of(run.mask)]
    if prior is not None and (hull := prior.box(index)) is not None:
        hulls.append(_shift(hull, strayed))
    known = [hull for hull in hulls if hull is not None]
    if not known:
        return None
    box = _with_room(union(*known), planes.shape)
    expected = signed_distance(run.mask.window(box), planes.px_sampling)
    if prior is None:
        return Field(box, expected), Field(box, expected)
    back = _shift(box, (-strayed[0], -strayed[1]))
    shape = prior.field(index, back).values
    expected = expected + shape - prior.field(run.index, back).values
    if not (expected > 0).any():
        expected = shape
    return Field(box, shape), Field(box, expected)


def _shift(box: Box, by: Shift) -> Box:
    return box[0] + by[0], box[1] + by[1], box[2] + by[0], box[3] + by[1]


def found_again(
    planes: SegmenterPlanes,
    run: Running,
    index: int,
    carried: MaskPatch,
    settings: PropagationSettings,
) -> Shift:
    """Return how far (y, x) an object is from where its mask was carried to.

    (0, 0) where its picture on the plane before still correlates with what is there;
    otherwise the picture is looked for within ``reach`` of its radii.
    """
    own, target = box_of(run.mask), box_of(carried)
    if own is None or target is None or settings.reach <= 0:
        return 0, 0
    radius = math.sqrt(run.mask.area / math.pi)
    if radius < _LEAST_MATCHED_PX:
        return 0, 0
    coarse = max(1, int(radius / _MATCHED_PX))  # large objects are matched coarsely
    most = math.ceil(settings.reach * radius / coarse)
    frame = overlap(grown(own, round(0.3 * radius), planes.shape), run.picture.box)
    template = _sampled(run.picture.over(frame), coarse)
    (ya, xa), (yb, xb) = centre(run.mask), centre(carried)
    there = _shift(frame, (round(yb - ya), round(xb - xa)))
    room = most * coarse
    wide = there[0] - room, there[1] - room, there[2] + room, there[3] + room
    inside = overlap(wide, (0, 0, *planes.shape))
    if min(template.shape) < 3 or template.std() < 1e-6 or 0 in shape_of(inside):
        return 0, 0
    grey = mean_plane(planes.read(index, inside))
    missing = [(inside[i] - wide[i], wide[i + 2] - inside[i + 2]) for i in (0, 1)]
    around = _sampled(np.pad(grey, missing, mode="edge"), coarse)
    here = around[most:, most:][: template.shape[0], : template.shape[1]]
    if _correlation(here, template) >= settings.least_match:
        return 0, 0
    from skimage.feature import match_template  # slow to import, seldom needed

    match = match_template(around, template)[: 2 * most + 1, : 2 * most + 1]
    y, x = np.mgrid[: match.shape[0], : match.shape[1]] - most
    away = (y**2 + x**2) * (coarse / radius) ** 2
    best = np.unravel_index(int(np.argmax(match - settings.stray_cost * away)), y.shape)
    if match[best] < settings.least_match:
        return 0, 0
    return int(y[best]) * coarse, int(x[best]) * coarse


#: radius in pixels at which an object's picture is looked for; a picture smaller than
#: the other is found anywhere
_MATCHED_PX = 12
_LEAST_MATCHED_PX = 4


def _sampled(grey: Floats, step: int) -> Floats:
    """Return every step-th pixel of a smoothed picture."""
    return grey if step == 1 else ndimage.uniform_filter(grey, step)[::step, ::step]


def _correlation(first: Floats, second: Floats) -> float:
    a, b = first - first.mean(), second - second.mean()
    norm = math.sqrt(float((a * a).sum()) * float((b * b).sum()))
    return float((a * b).sum()) / norm if norm > 0 else 0.0


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
    return np.where(stray, np.float32(0), probability)


def _with_room(box: Box, plane: tuple[int, int]) -> Box:
    """Return a box with room to grow."""
    return grown(box, max(8, max(shape_of(box)) // 2), plane)


#: parts of an object smaller than this share of its largest get no click
_SMALLEST_PART = 0.2
#: a click keeps at least this share of the part's greatest distance to its outline
_DEEP = 0.5


@dataclass(frozen=True, slots=True)
class Look:
    """An object's appearance on a plane: grey values."""

    inside: float  #: mean of its core
    outside: float  #: mean of a ring around it
    spread: float  #: standard deviation inside

    @property
    def limit(self) -> float:
        """Greatest difference from ``inside`` that still looks like the object."""
        return max(2.0 * self.spread, abs(self.inside - self.outside) / 2)

    def fading(self, grey: Floats) -> Floats:
        """Return how far pixels are from the surround's grey (0) to the object's (1).

        1 everywhere where the object never stood out.
        """
        span = self.inside - self.outside
        if abs(span) <= self.spread:
            return np.ones_like(grey)
        return ((grey - self.outside) / span).astype(np.float32)

    @classmethod
    def of(cls, grey: Floats, distance: Floats) -> Look:
        """Measure an object, given its signed distance over the same box."""
        core = distance > min(1.0, float(distance.max()) / 2)
        ring = (distance < -1.0) & (distance > -5.0)
        values = grey[core]
        inside = float(values.mean()) if values.size else 0.0
        spread = float(values.std()) if values.size else 0.0
        return cls(inside, float(grey[ring].mean()) if ring.any() else inside, spread)


def positives(
    distance: Floats, grey: Floats, look: Look, box: Box, most: int
) -> list[Click]:
    """Choose an interior point of each larger part of a mask that looks like it.

    ``distance`` is that of the mask carried here, ``grey`` the plane's smoothed pixels,
    ``look`` the appearance before. The largest part's point is last and counts most.
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
        merit = np.where(mask & (distance < -1), depth_in(mask), -np.inf)
        if np.isfinite(merit).any():
            nearest = float(-distance[mask].max())
            nearest_first.append((nearest, int(label), _click(merit, box, False)))
    nearest_first.sort(key=lambda entry: entry[:2])
    return [click for _, _, click in nearest_first[:most]]


def _click(merit: Floats, box: Box, is_positive: bool) -> Click:
    y, x = np.unravel_index(int(np.argmax(merit)), merit.shape)
    return Click((float(y + box[0]), float(x + box[1])), is_positive)
