"""One object's row of results, and scores of its clicks: NoC, NoF, IoU@N, regressions.

A *run* is one object's list of IoUs, the n-th after click n. The robot stops once its
target is reached, so runs differ in length; a stopped run keeps its last IoU.
"""

from __future__ import annotations

import base64
import math
import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cfrseg.errors import DatasetError
from napari_cfrseg.evaluation.metrics import is_acceptable
from napari_cfrseg.geometry.windows import mask_box, shape_of, slices

#: clicks a robot may make (all papers)
MAX_CLICKS = 20
#: sets with fewer objects are reported but not pooled
MIN_POOLED_OBJECTS = 30
#: a first click fails below this IoU
FAILING_IOU = 0.5
#: a click that lowers the IoU by more than this is a drop
DROP_IOU = 0.01
#: a click that costs more than this much IoU …
REGRESSION_IOU = 0.005
#: … and adds more than this many wrong pixels is a regression
REGRESSION_PX = 2


@dataclass(frozen=True, slots=True)
class ResultRow:
    """One object's run of clicks."""

    key: str  #: the object's name (:attr:`BenchmarkObject.key`)
    #: where it is
    set_name: str
    image_name: str
    plane: int | None
    area_px: int  #: annotated pixels
    shape: tuple[int, int]  #: (Y, X) of the plane
    #: (row, column, 1 positive / 0 negative) in order
    clicks: tuple[tuple[int, int, int], ...]
    ious: tuple[float, ...]  #: IoU after each click, in [0, 1]
    error_px: tuple[int, ...]  #: missed plus wrong pixels after each click
    #: seconds of ``predict`` for each click, the mask's reading included
    seconds: tuple[float, ...]
    surface_dices: tuple[float, ...]  #: normalised surface dice after each click
    #: pixels that each click made right and wrong, and the wrong ones beyond the
    #: clicked error's reach (:func:`~napari_cfrseg.evaluation.metrics.click_effect`)
    mended_px: tuple[int, ...]
    spoilt_px: tuple[int, ...]
    spoilt_far_px: tuple[int, ...]
    #: network steps of each click; empty if the segmenter does not report them
    steps: tuple[int, ...] = ()
    #: after each click; empty when not measured (micrometres: when the spacing is
    #: unknown). NaN: no mask, no distance.
    boundary_ious: tuple[float, ...] = ()
    assds_px: tuple[float, ...] = ()
    assds_um: tuple[float, ...] = ()
    set_image_s: float = 0.0  #: seconds of ``set_image`` for the object's plane
    seed: int = 0  #: of the robot; 0 for the exact one
    #: the last mask: (first row, first column, height, width) of its bounding box, and
    #: its pixels there (:func:`pack_mask`); for pictures in reports
    mask_box: tuple[int, ...] = (0, 0, 0, 0)
    mask_bits: str = ""
    #: ``"click"``, ``"candidate"`` or ``"outline"`` for each value above, where the
    #: robot could do more than click; else empty
    actions: tuple[str, ...] = ()

    def last_mask(self) -> NDArray[np.bool_]:
        """(Y, X) bool: the mask after the last click."""
        mask = np.zeros(self.shape, bool)
        y, x, height, width = self.mask_box
        if height and width:
            packed = zlib.decompress(base64.b64decode(self.mask_bits))
            bits = np.unpackbits(np.frombuffer(packed, np.uint8), count=height * width)
            mask[y : y + height, x : x + width] = bits.reshape(height, width)
        return mask

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ResultRow:
        """Make a row of its fields as JSON has them.

        Raises DatasetError if a field is missing or unknown.
        """
        try:
            return cls(**{name: _freeze(value) for name, value in values.items()})
        except TypeError as error:
            msg = f"a result row has missing or unknown fields ({error}): run it again"
            raise DatasetError(msg) from error


def _freeze(value: Any) -> Any:
    return tuple(_freeze(v) for v in value) if isinstance(value, list) else value


def pack_mask(mask: NDArray[np.bool_]) -> tuple[tuple[int, ...], str]:
    """Pack a (Y, X) bool mask: its bounding box, and base64 of its deflated bits."""
    box = mask_box(mask)
    if box is None:
        return (0, 0, 0, 0), ""
    bits = np.packbits(mask[slices(box)])
    packed = base64.b64encode(zlib.compress(bits.tobytes(), 6)).decode("ascii")
    return (*box[:2], *shape_of(box)), packed


#: clicks whose effects are averaged together: (first, last), both inclusive
CLICK_GROUPS: Mapping[str, tuple[int, int | None]] = {
    "1": (1, 1),
    "2": (2, 2),
    "3": (3, 3),
    "4+": (4, None),
}


@dataclass(frozen=True, slots=True)
class ClickShares:
    """Shares of the object's area that clicks change, on average."""

    #: becoming right, and wrong
    mended: float
    spoilt: float
    spoilt_far: float  #: the part of ``spoilt`` beyond the clicked error's reach


def pooled_rows(
    rows: Sequence[ResultRow],
    order: Sequence[str],
    *,
    min_objects: int = MIN_POOLED_OBJECTS,
) -> list[ResultRow]:
    """Keep the same number of rows of every set that has ``min_objects`` or more.

    The first of each set in ``order`` (keys in the order drawn) are kept; all rows
    where no set is large enough.
    """
    by_key = {row.key: row for row in rows}
    by_set: dict[str, list[ResultRow]] = defaultdict(list)
    for key in order:
        if key in by_key:
            by_set[by_key[key].set_name].append(by_key[key])
    pools = [pool for pool in by_set.values() if len(pool) >= min_objects]
    same = min((len(pool) for pool in pools), default=0)
    return [row for pool in pools for row in pool[:same]] or list(rows)


def clicks_to(
    ious: Sequence[float], target: float, max_clicks: int = MAX_CLICKS
) -> int:
    """Count the clicks until the IoU first reaches the target (NoC of one object).

    IoUs are compared as float32, as published (0.9 reached exactly is reached).
    An object that never gets there counts ``max_clicks``.
    """
    return _first(_reached(ious[:max_clicks], target)) or max_clicks


def clicks_to_ok(row: ResultRow, max_clicks: int = MAX_CLICKS) -> int:
    """Count the clicks until the outline is acceptable (NoC@ok of one object).

    ``max_clicks`` where it never is.
    """
    return _first(_is_ok(row)[:max_clicks]) or max_clicks


def clicks_among(row: ResultRow, count: int) -> int:
    """Count the clicks among the first actions of a row."""
    return row.actions[:count].count("click") if row.actions else count


def is_ok_within(row: ResultRow, max_clicks: int = MAX_CLICKS) -> bool:
    """Whether the outline becomes acceptable within the clicks."""
    return any(_is_ok(row)[:max_clicks])


def _is_ok(row: ResultRow) -> list[bool]:
    return [is_acceptable(*p) for p in zip(row.ious, row.surface_dices, strict=True)]


def _reached(ious: Sequence[float], target: float) -> list[bool]:
    return [bool(np.float32(iou) >= np.float32(target)) for iou in ious]


def _first(found: Sequence[bool]) -> int:
    """Return the number of the first click that is True, from 1; 0 for none."""
    return found.index(True) + 1 if any(found) else 0


#: what a click changes
EFFECTS = ("mended", "spoilt", "spoilt_far")


def shares(row: ResultRow, effect: str, group: str) -> list[float]:
    """Return the pixels that a group's clicks changed, over the object's area.

    ``effect`` is one of ``EFFECTS``, ``group`` of ``CLICK_GROUPS``.
    """
    first, last = CLICK_GROUPS[group]
    counts: tuple[int, ...] = getattr(row, f"{effect}_px")
    return [count / row.area_px for count in counts[first - 1 : last]]


def mean_effects(rows: Sequence[ResultRow]) -> dict[str, ClickShares]:
    """Average what clicks change over all clicks of each of ``CLICK_GROUPS``."""
    return {
        group: ClickShares(
            *(mean([s for row in rows for s in shares(row, e, group)]) for e in EFFECTS)
        )
        for group in CLICK_GROUPS
    }


def drops(ious: Sequence[float]) -> list[bool]:
    """For each click after the first, whether it lowers the IoU by more than 0.01."""
    return [b < a - DROP_IOU for a, b in pairwise(ious)]


def mean_clicks_to(
    runs: Sequence[Sequence[float]], target: float, max_clicks: int = MAX_CLICKS
) -> float:
    """NoC@target: :func:`clicks_to` averaged over objects; NaN without objects."""
    return mean([clicks_to(ious, target, max_clicks) for ious in runs])


def count_failures(
    runs: Sequence[Sequence[float]],
    target: float,
    max_clicks: int = MAX_CLICKS,
    *,
    published: bool = False,
) -> int:
    """NoF@target: the objects that did not reach the target within the clicks.

    ``published``: the papers' "≥20@target", which counts an object as failed when its
    NoC is ``max_clicks``, although its last click may just have succeeded.
    """
    if published:
        return sum(clicks_to(run, target, max_clicks) == max_clicks for run in runs)
    return sum(not any(_reached(run[:max_clicks], target)) for run in runs)


def iou_at(ious: Sequence[float], click: int) -> float:
    """Return the IoU after a click (from 1); a stopped run keeps its last IoU.

    Raises ValueError for an empty run or a click below 1.
    """
    if click < 1 or not ious:
        raise ValueError(f"IoU@{click} of a run of {len(ious)} clicks does not exist")
    return float(ious[min(click, len(ious)) - 1])


def mean_iou_at(runs: Sequence[Sequence[float]], click: int) -> float:
    """IoU@click averaged over objects; NaN without objects."""
    return mean([iou_at(ious, click) for ious in runs])


def mean_iou_curve(
    runs: Sequence[Sequence[float]], max_clicks: int = MAX_CLICKS
) -> NDArray[np.float64]:
    """Mean IoU after 1 … max_clicks clicks: (max_clicks,) float64; NaN without objects.

    Stopped runs keep their last IoU, so this is a lower bound of the curve without
    stopping.
    """
    return np.array([mean_iou_at(runs, n) for n in range(1, max_clicks + 1)])


def area_under_curve(
    runs: Sequence[Sequence[float]], max_clicks: int = MAX_CLICKS
) -> float:
    """Area under the mIoU–NoC curve, over its width: in [0, 1], higher is better.

    Trapezoids between clicks 1 and ``max_clicks``, divided by ``max_clicks − 1``; the
    IoU itself when only one click is allowed.
    """
    curve = mean_iou_curve(runs, max_clicks)
    if len(curve) == 1:
        return float(curve[0])
    return float((curve[:-1] + curve[1:]).sum() / 2 / (len(curve) - 1))


def seconds_per_click(seconds: Sequence[Sequence[float]]) -> tuple[float, float]:
    """SPC of the first click and of the later ones, each a mean over clicks.

    Only the segmenter is on the clock, not the robot, the metrics or the reading of
    files, which the papers' SPC includes. NaN where there is no such click.
    """
    first = [run[0] for run in seconds if run]
    later = [value for run in seconds for value in run[1:]]
    return mean(first), mean(later)


def count_regressions(ious: Sequence[float], error_px: Sequence[int]) -> int:
    """Count the clicks after the first that leave a worse mask.

    The IoU falls by more than 0.005 *and* the number of missed and wrong pixels rises
    by more than 2, so that one pixel on a tiny object does not count. Raises ValueError
    if the two lists differ in length.
    """
    if len(ious) != len(error_px):
        msg = f"{len(ious)} IoUs and {len(error_px)} error areas are not one run"
        raise ValueError(msg)
    clicks = pairwise(zip(ious, error_px, strict=True))
    return sum(
        before - after > REGRESSION_IOU and px_after - px_before > REGRESSION_PX
        for (before, px_before), (after, px_after) in clicks
    )


def regressions_per_100(
    runs: Sequence[Sequence[float]], error_px: Sequence[Sequence[int]]
) -> float:
    """Regressions per 100 clicks after the first; NaN if there are none."""
    later = sum(max(len(run) - 1, 0) for run in runs)
    if later == 0:
        return math.nan
    counts = (count_regressions(*run) for run in zip(runs, error_px, strict=True))
    return 100 * sum(counts) / later


def mean(values: Sequence[float]) -> float:
    """Average of values; NaN where there is none."""
    return float(np.mean(values)) if len(values) else math.nan


#: draws of a bootstrap
RESAMPLES = 10_000


def bootstrap_means(
    values: NDArray[np.float64],
    clusters: Sequence[str],
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
) -> NDArray[np.float64]:
    """Means of (N,) values over two-stage resamples: (resamples,) float64.

    Clusters (images, one per value) are drawn first, then members of each.
    """
    _, member = np.unique(np.asarray(clusters), return_inverse=True)
    count = int(member.max()) + 1
    drawn = rng.integers(0, count, (resamples, count))
    times = np.stack([(drawn == index).sum(axis=1) for index in range(count)])
    sums, sizes = np.zeros(resamples), np.zeros(resamples)
    for index in range(count):
        group = values[member == index]
        resample = np.repeat(np.arange(resamples), times[index])
        picks = rng.integers(0, len(group), (len(resample), len(group)))
        totals = group[picks].sum(axis=1)
        sums += np.bincount(resample, weights=totals, minlength=resamples)
        sizes += len(group) * times[index]
    return sums / sizes
