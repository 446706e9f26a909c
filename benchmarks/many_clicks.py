"""Time thousands of clicks on one object: whether the cost of a click grows.

    python benchmarks/many_clicks.py --clicks 3000

The clicks lie at random in and around an object of a bundled micrograph, and go through
the annotator as in the window and in a replay. The last hundred alternate with the
first hundred of another, fresh object, so that a busy machine slows both. Printed are
the medians of both, and their ratio, in seconds of the processor.

3,000 clicks on powder_sem, one thread, shipped weights, on a shared x86-64 machine that
was idle otherwise: 58 s of the processor in all; 17 ms a click among the first hundred,
22 ms among the last (1.25 times): by then the network ignores some fifty of the clicks
at each round, and each of them is corrected.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
from scipy import ndimage

from napari_cfrseg import load_sample
from napari_cfrseg.annotation import events as ev
from napari_cfrseg.annotation.annotator import Annotator
from napari_cfrseg.engine.segmenter import Segmenter
from napari_cfrseg.samples import Sample


def clicks_around(
    labels: np.ndarray, count: int, seed: int
) -> list[tuple[tuple[float, float], bool]]:
    """Return places in the largest object (positive) and around it (negative)."""
    rng = np.random.default_rng(seed)
    mask = labels == np.bincount(labels[labels > 0]).argmax()
    near = ndimage.binary_dilation(mask, iterations=12)
    places = np.argwhere(near) + rng.uniform(-0.4, 0.4, (int(near.sum()), 2))
    places = places[rng.permutation(len(places))]
    inside = np.argwhere(mask)
    middle = tuple(np.median(inside, axis=0))
    made = [((float(middle[0]), float(middle[1])), True)]
    while len(made) < count:
        y, x = places[len(made) % len(places)]
        made.append(((float(y), float(x)), bool(mask[round(y), round(x)])))
    return made


class Clicking:
    """One object, clicked again and again."""

    def __init__(self, sample: Sample, options: argparse.Namespace) -> None:
        segmenter = Segmenter.load("default", device="cpu", threads=options.threads)
        self.annotator = Annotator(
            lambda _: sample.image, sample.labels.shape, segmenter
        )
        self.annotator.apply(ev.ObjectCreated(1))
        self.count = 0

    def click(self, yx: tuple[float, float], is_positive: bool) -> float:
        """Click; return the seconds of the processor it took."""
        self.count += 1
        start = time.process_time()
        self.annotator.apply(ev.ClickAdded(1, (), yx, is_positive, self.count))
        return time.process_time() - start


def main() -> None:
    """Click and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clicks", type=int, default=3000)
    parser.add_argument("--sample", default="powder_sem")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    sample = load_sample(options.sample)
    few = min(100, options.clicks // 4)
    places = clicks_around(sample.labels, options.clicks, options.seed)
    many, fresh = (Clicking(sample, options) for _ in range(2))
    seconds = [many.click(*place) for place in places[:-few]]
    fresh.click(*places[0])
    pairs = [
        (fresh.click(*early), many.click(*late))
        for early, late in zip(places[1 : few + 1], places[-few:], strict=True)
    ]
    seconds += [late for _, late in pairs]
    first, last = np.median(pairs, axis=0)
    print(
        json.dumps(
            {
                "clicks": options.clicks,
                "seconds": round(sum(seconds), 1),
                "first_ms": round(1e3 * first, 2),
                "last_ms": round(1e3 * last, 2),
                "ratio": round(last / first, 2),
            }
        )
    )


if __name__ == "__main__":
    main()
