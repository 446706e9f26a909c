"""Let a robot click objects with any segmenter, in one process or many; measure clicks.

Needs NumPy, SciPy and scikit-image only (and what the segmenter needs), so it runs
inside training and on machines without the package's other dependencies.
"""

from __future__ import annotations

import math
import os
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, NoReturn, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from napari_cfrseg.clicks import Click
from napari_cfrseg.errors import DatasetError
from napari_cfrseg.evaluation import datasets, metrics
from napari_cfrseg.evaluation.datasets import AnnotatedPlane, BenchmarkObject
from napari_cfrseg.evaluation.robots import ExactRobot, HumanRobot
from napari_cfrseg.evaluation.scores import MAX_CLICKS, ResultRow, pack_mask
from napari_cfrseg.geometry.windows import mask_box, shape_of
from napari_cfrseg.processes import spread


class AnySegmenter(Protocol):
    """A segmenter that can be measured: two methods.

    One that also has ``set_hint(object_px)`` gets the longer side of each object's
    bounding box before its first click (classical tools need a crop); reports name the
    segmenters that got it.
    """

    def set_image(self, image: NDArray[Any]) -> object:
        """Take the (Y, X) or (Y, X, C) image that the next clicks are on."""

    def predict(self, clicks: list[Click], /, *, previous: Any) -> Any:
        """Return a (Y, X) bool mask, or an object with one as ``.mask``.

        ``clicks`` are all clicks on the object in order; ``previous`` is what
        the last call for this object returned, None at its first click.
        """


@runtime_checkable
class TakesHint(Protocol):
    """A segmenter that gets the size of the next object."""

    def set_hint(self, object_px: float) -> object:
        """Take the longer side of the next object's bounding box, in pixels."""


SegmenterFactory = Callable[[], AnySegmenter]


@dataclass(frozen=True, slots=True)
class RunSettings:
    """How the robot works."""

    max_clicks: int = MAX_CLICKS  #: most clicks per object
    target: float = 0.90  #: the robot stops once the IoU reaches it …
    #: … but not before this many clicks, so that IoU@1, @3 and @5 exist; a prediction
    #: without any error always stops it
    min_clicks: int = 5
    human: bool = False  #: False: the papers' exact robot. True: the human-like one.
    #: of the human-like robot; each object draws from (seed, its key), independent of
    #: the objects' order
    seed: int = 0
    surfaces: bool = False  #: True: boundary IoU and ASSD after each click too (slower)
    published: bool = False  #: True: surface metrics as published, faults included
    #: (y, x) size of a pixel in micrometres: ASSD is given in micrometres too
    spacing_um: tuple[float, float] | None = None
    #: True: instead of a click the robot may take the first click's next candidate, or
    #: move the outline tighter or wider. Each is one action, taken only where it gives
    #: the best mask of all (at the target, else acceptable, else the highest IoU); the
    #: outline is moved only to get there. The limits above then count actions.
    actions: bool = False

    def __post_init__(self) -> None:
        if self.spacing_um is not None:
            y, x = self.spacing_um
            if not (y > 0 and x > 0):
                msg = f"spacing_um={self.spacing_um} must be two positive numbers"
                raise ValueError(msg)
            object.__setattr__(self, "spacing_um", (float(y), float(x)))
        if not 1 <= self.min_clicks <= self.max_clicks:
            raise ValueError(
                f"min_clicks={self.min_clicks} must lie between 1 and "
                f"max_clicks={self.max_clicks}"
            )


def evaluate_plane(
    segmenter: AnySegmenter, objects: Sequence[BenchmarkObject], settings: RunSettings
) -> Iterator[ResultRow]:
    """Click the objects of one plane; the image is read and set once."""
    first = objects[0]
    plane = first.source.read_plane(first.image_name, first.plane)
    start = time.perf_counter()
    segmenter.set_image(plane.image)
    set_image_s = time.perf_counter() - start
    for item in objects:
        yield evaluate_object(segmenter, plane, item, settings, set_image_s=set_image_s)


def evaluate_object(
    segmenter: AnySegmenter,
    plane: AnnotatedPlane,
    item: BenchmarkObject,
    settings: RunSettings,
    *,
    set_image_s: float = 0.0,
) -> ResultRow:
    """Click one object on the image that is set, until the target or the last click."""
    truth_mask, ignore_mask = item.mask_in(plane), plane.ignore_mask
    run = _Run(truth_mask, ignore_mask, settings)
    robot = ExactRobot(truth_mask, ignore_mask)
    if settings.human:
        rng = np.random.default_rng([settings.seed, zlib.crc32(item.key.encode())])
        robot = HumanRobot(truth_mask, ignore_mask, rng=rng)
    if isinstance(segmenter, TakesHint):
        segmenter.set_hint(max(shape_of(mask_box(truth_mask) or (0, 0, 0, 0))))
    clicks: list[Click] = []
    shown: Any = None
    mask: NDArray[np.bool_] | None = None
    while not run.is_over:
        click = robot.next_click(mask)
        start = time.perf_counter()
        result = segmenter.predict([*clicks, click], previous=shown)
        after = as_mask(result, truth_mask.shape)
        seconds, action = time.perf_counter() - start, "click"
        if settings.actions and mask is not None:
            action, result, after = _best_action(run, shown, mask, (result, after))
        if action == "click":
            clicks.append(click)
            if isinstance(taken := getattr(result, "steps", None), int):
                run.values["steps"].append(taken)
        else:
            robot.take_back(click)
            seconds = 0.0
        run.add(mask, after, seconds, click)
        if settings.actions:
            run.values["actions"].append(action)
        shown, mask = result, after
    box, bits = pack_mask(np.zeros_like(truth_mask) if mask is None else mask)
    return ResultRow(
        key=item.key,
        set_name=item.set_name,
        image_name=item.image_name,
        plane=item.plane,
        area_px=int(np.count_nonzero(truth_mask)),
        shape=(truth_mask.shape[0], truth_mask.shape[1]),
        clicks=tuple((*c.pixel, int(c.is_positive)) for c in clicks),
        set_image_s=set_image_s,
        seed=settings.seed if settings.human else 0,
        mask_box=box,
        mask_bits=bits,
        **{name: tuple(values) for name, values in run.values.items()},
    )


#: logits by which one gesture may move the outline
OUTLINE_LOGITS = tuple(step / 2 for step in range(-8, 9) if step)


def other_actions(shown: Any) -> Iterator[tuple[str, Any]]:
    """Yield what a key or the wheel would show instead, without the network.

    ``shown``, what the segmenter returned or one of these, needs what a ``Prediction``
    has: ``candidates`` and ``choice`` for the next candidate, ``with_threshold`` for
    the outline. Yields ``"candidate"`` or ``"outline"``, and what is then on show.
    """
    candidates = getattr(shown, "candidates", ())
    if candidates and shown.choice + 1 < len(candidates):
        yield "candidate", candidates[shown.choice + 1]
    if hasattr(shown, "with_threshold"):
        logit = math.log(shown.threshold / (1 - shown.threshold))
        for offset in OUTLINE_LOGITS:
            yield "outline", shown.with_threshold(1 / (1 + math.exp(-(logit + offset))))


def _best_action(
    run: _Run, shown: Any, mask: NDArray[np.bool_], clicked: tuple[Any, Any]
) -> tuple[str, Any, NDArray[np.bool_]]:
    """Return what is best after a mask on show: its kind, what shows it, the mask."""
    best, now, most = ("click", *clicked), run.merit(mask), run.merit(clicked[1])
    for kind, other in other_actions(shown):
        after = as_mask(other, mask.shape)
        merit = run.merit(after)
        helps = merit[0] > now[0] if kind == "outline" else merit > now
        if helps and merit > most:
            best, most = (kind, other, after), merit
    return best


@dataclass(frozen=True, slots=True)
class _Run:
    """The measurements of one object while it is being clicked."""

    truth_mask: NDArray[np.bool_]
    ignore_mask: NDArray[np.bool_] | None
    settings: RunSettings
    #: one value for each click, by the fields of a row
    values: dict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))

    @property
    def is_over(self) -> bool:
        settings, ious = self.settings, self.values["ious"]
        done = len(ious)
        if done == 0:
            return False
        if done >= settings.max_clicks or self.values["error_px"][-1] == 0:
            return True
        reached = np.float32(max(ious)) >= np.float32(settings.target)
        return bool(reached) and done >= settings.min_clicks

    def merit(self, mask: NDArray[np.bool_]) -> tuple[int, float]:
        """Rank a mask: 2 at the target, 1 where acceptable, else 0; then by IoU."""
        masks = (mask, self.truth_mask, self.ignore_mask)
        iou = metrics.iou(*masks)
        if np.float32(iou) >= np.float32(self.settings.target):
            return 2, iou
        if iou < metrics.ACCEPTABLE_LOWER_IOU:
            return 0, iou
        return int(metrics.is_acceptable(iou, metrics.surface_dice(*masks))), iou

    def add(
        self,
        before: NDArray[np.bool_] | None,
        mask: NDArray[np.bool_],
        seconds: float,
        click: Click,
    ) -> None:
        masks = (mask, self.truth_mask, self.ignore_mask)
        if before is None:
            before = np.zeros_like(mask)
        measured = {
            **asdict(metrics.click_effect(before, *masks, click.pixel)),
            "ious": metrics.iou(*masks),
            "error_px": metrics.error_area(*masks),
            "surface_dices": metrics.surface_dice(*masks),
            "seconds": seconds,
        }
        if self.settings.surfaces:
            published, spacing = self.settings.published, self.settings.spacing_um
            assd = partial(metrics.assd, *masks, published=published)
            boundary = metrics.boundary_iou(*masks, published=published)
            measured |= {"boundary_ious": boundary, "assds_px": assd()}
            if spacing is not None:
                measured["assds_um"] = assd(spacing=spacing)
        for name, value in measured.items():
            self.values[name].append(value)


def as_mask(result: object, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Read a segmenter's mask; ValueError if it does not have the image's shape."""
    mask = np.asarray(getattr(result, "mask", result))
    if mask.shape != shape:
        raise ValueError(
            f"the segmenter returned a mask of shape {mask.shape} for a plane of "
            f"shape {shape}: predict() must return a (Y, X) mask, or an object with "
            "one as .mask"
        )
    return mask if mask.dtype == bool else mask > 0


Objects = Sequence[BenchmarkObject]
#: on a cluster
OBJECTS_PER_TASK = 4
#: a task whose workers on a cluster died this often is given up
TRIES = 5


def evaluate_objects(
    segmenter_factory: SegmenterFactory,
    objects: Iterable[BenchmarkObject],
    *,
    settings: RunSettings | None = None,
    workers: int = 1,
    scheduler: str | None = None,
) -> Iterator[ResultRow]:
    """Click every object and yield its row as soon as it is done, plane by plane.

    The factory is called once per process: 1 worker runs in this one; more are spawned,
    each with one OpenMP thread unless OMP_NUM_THREADS is set, and the factory must be
    picklable. ``scheduler``, the address of a Dask scheduler (``tcp://host:8786``),
    lets its workers do the work; the factory must then be hashable, too (a
    :class:`SegmenterSpec`). By default the robot is the papers' (20 clicks, target
    0.90). Raises CfrSegError if data, weights, packages or the scheduler are missing,
    RuntimeError with its traceback if a worker process fails or is killed.
    """
    make = _Clicker(segmenter_factory, settings or RunSettings())
    groups, tries = datasets.group_by_plane(objects), 1
    if scheduler is not None:
        tries = TRIES
        groups = [
            group[start : start + OBJECTS_PER_TASK]
            for group in groups
            for start in range(0, len(group), OBJECTS_PER_TASK)
        ]
    elif workers > 1:
        groups.sort(key=len, reverse=True)
    yield from spread(
        make, groups, _give_up, tries, workers=workers, scheduler=scheduler
    )


@dataclass(frozen=True, slots=True)
class _Clicker:
    """Makes what clicks the objects of one plane."""

    factory: SegmenterFactory
    settings: RunSettings

    def __call__(self, number: int | None) -> Callable[[Objects], Iterator[ResultRow]]:
        if number is not None:
            os.environ.setdefault("OMP_NUM_THREADS", "1")
        segmenter = self.factory()
        return lambda group: evaluate_plane(segmenter, group, self.settings)


def _give_up(_task: Objects, error: Exception) -> NoReturn:
    if type(error).__name__ == "KilledWorker":  # Dask's
        raise DatasetError(f"the cluster's workers keep dying: {error}") from error
    raise error
