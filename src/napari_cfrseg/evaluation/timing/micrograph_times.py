"""What a click costs, by stage: the measurements behind ``cfrseg bench``.

Real micrographs are tiled to the sizes asked for (mirrored at the seams, so that no
new edges appear); clicks fall on labelled objects, seeded. Every refinement sees the
same clicks from the same first mask, so their times compare.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_cfrseg.clicks import Click
from napari_cfrseg.engine.refinement import Refinement

if TYPE_CHECKING:
    from napari_cfrseg.engine.prediction import Prediction
    from napari_cfrseg.engine.segmenter import Segmenter

SIDES = (512, 2048, 8192)
REFINEMENTS = (Refinement.standard(), Refinement.cfr(4), Refinement.adaptive(4))
STAGES = ("crop", "embed_image", "embed_clicks", "refine", "paste")


@dataclass(frozen=True, slots=True)
class BenchRow:
    """Times of one kind of click on one size of image, in milliseconds.

    Attributes
    ----------
    side_px
        The image is this many pixels high and wide.
    click
        "first" (automatic focus) or "next".
    refinement
        Its name.
    clicks
        How many were timed.
    median_ms, p95_ms
        Of the whole click.
    stages_ms
        Median by stage: crop, embed_image, embed_clicks, refine, paste.
    mean_steps
        Mean refinement steps (1 for standard inference).
    ratio_to_standard
        Median over clicks of this click's time over standard inference's time on the
        very same click; 1 for standard itself.
    set_image_ms
        Median time to set the image.
    """

    side_px: int
    click: str
    refinement: str
    clicks: int
    median_ms: float
    p95_ms: float
    stages_ms: dict[str, float]
    mean_steps: float
    ratio_to_standard: float
    set_image_ms: float

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values, for JSON."""
        return asdict(self)


def tiled(image: NDArray[Any], side: int) -> NDArray[Any]:
    """Mirror and repeat an image to ``side`` × ``side`` pixels."""
    rows, columns = (_mirrored(n, side) for n in image.shape[:2])
    return image[rows][:, columns]


def _mirrored(length: int, side: int) -> NDArray[np.intp]:
    there_and_back = np.concatenate([np.arange(length), np.arange(length)[::-1]])
    return np.resize(there_and_back, side)


def trials(
    labels: NDArray[Any], side: int, count: int, seed: int
) -> Iterator[tuple[Click, Click]]:
    """Yield first and next clicks on objects of the tiled image, seeded.

    The first falls on the object's innermost pixel, the next (positive) halfway to
    its rim, as if a part had been missed.
    """
    from scipy import ndimage

    rng = np.random.default_rng(seed)
    visible = labels[:side, :side]
    ids = np.unique(visible[visible != 0])
    if ids.size == 0:
        msg = "the labels hold no object to click on"
        raise ValueError(msg)
    # the image as it is recurs every two lengths, mirrored copies lie between
    periods = np.array([2 * n for n in labels.shape])
    repeats = [max(1, -(-side // int(p))) for p in periods]
    for _ in range(count):
        mask = visible == rng.choice(ids)
        inner = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
        first = np.array(np.unravel_index(int(inner.argmax()), mask.shape))
        halfway = np.argwhere(mask & (inner <= max(inner.max() / 2, 1)))
        pair = np.stack([first, halfway[rng.integers(len(halfway))]])
        moved = pair + periods * [rng.integers(n) for n in repeats]
        at, then = moved if moved.max() < side else pair
        yield Click((at[0], at[1])), Click((then[0], then[1]))


def run_bench(
    segmenter: Segmenter,
    image: NDArray[Any],
    labels: NDArray[Any],
    *,
    sides: Sequence[int] = SIDES,
    refinements: Sequence[Refinement] = REFINEMENTS,
    clicks: int = 20,
    warm_up: int = 2,
    seed: int = 0,
) -> list[BenchRow]:
    """Time first and next clicks.

    Parameters
    ----------
    segmenter
        What to time.
    image, labels
        (Y, X[, C]) pixels and (Y, X) ids of a real micrograph.
    sides
        Sizes to tile the image to, in pixels.
    refinements
        The first is what the others' ratios refer to.
    clicks
        Objects clicked per size; each gives one first and one next click for every
        refinement.
    warm_up
        Objects clicked before that and not counted.
    seed
        Chooses the objects.

    Returns
    -------
    One row per size, kind of click and refinement, in this order.
    """
    rows: list[BenchRow] = []
    for side in sides:
        field = tiled(image, side)
        chosen = list(trials(labels, side, clicks + warm_up, seed))
        firsts: dict[str, list[Prediction]] = {str(r): [] for r in refinements}
        nexts: dict[str, list[Prediction]] = {str(r): [] for r in refinements}
        setting: list[float] = []
        for index, (first, following) in enumerate(chosen):
            for refinement in refinements:
                setting.append(_set_image(segmenter, field))
                one = segmenter.predict([first], refinement=refinement)
                base = segmenter.predict([first])
                two = segmenter.predict(
                    [first, following], previous=base, refinement=refinement
                )
                if index >= warm_up:
                    firsts[str(refinement)].append(one)
                    nexts[str(refinement)].append(two)
        pause = 1000 * statistics.median(setting)
        rows += _rows(side, "first", firsts, pause)
        rows += _rows(side, "next", nexts, pause)
    return rows


def _set_image(segmenter: Segmenter, field: NDArray[Any]) -> float:
    """Set the image anew, so that nothing is left from the click before."""
    start = time.perf_counter()
    segmenter.set_image(field)
    return time.perf_counter() - start


def _rows(
    side: int, kind: str, found: dict[str, list[Prediction]], set_image_ms: float
) -> list[BenchRow]:
    reference = [p.seconds for p in next(iter(found.values()))]
    rows = []
    for name, predictions in found.items():
        seconds = [p.seconds for p in predictions]
        ratios = [t / r for t, r in zip(seconds, reference, strict=True)]
        stages = {
            stage: 1000
            * statistics.median(getattr(p.stages, stage) for p in predictions)
            for stage in STAGES
        }
        rows.append(
            BenchRow(
                side_px=side,
                click=kind,
                refinement=name,
                clicks=len(predictions),
                median_ms=1000 * statistics.median(seconds),
                p95_ms=1000 * float(np.percentile(seconds, 95)),
                stages_ms=stages,
                mean_steps=statistics.fmean(p.steps for p in predictions),
                ratio_to_standard=statistics.median(ratios),
                set_image_ms=set_image_ms,
            )
        )
    return rows
