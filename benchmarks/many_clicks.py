"""Time thousands of clicks on one object: whether the cost of a click grows.

    python benchmarks/many_clicks.py --clicks 3000

The clicks lie at random in and around an object of a bundled micrograph, and go through
the annotator as in the window and in a replay. Printed are the medians of the first and
the last hundred clicks, and their ratio, in seconds of the processor.

3,000 clicks on powder_sem, one thread, shipped weights: 82 s of the processor in all;
15 ms a click among the first hundred, 37 ms among the last (2.4 times): by then the
network ignores some sixty of the clicks at each round, and each of them is corrected.
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


def main() -> None:
    """Click and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clicks", type=int, default=3000)
    parser.add_argument("--sample", default="powder_sem")
    parser.add_argument("--refinement", default="standard")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    sample = load_sample(options.sample)
    segmenter = Segmenter.load("default", device="cpu", threads=options.threads)
    annotator = Annotator(lambda _: sample.image, sample.labels.shape, segmenter)
    annotator.apply(ev.ObjectCreated(1))
    seconds = []
    places = clicks_around(sample.labels, options.clicks, options.seed)
    for number, (yx, sign) in enumerate(places, 1):
        start = time.process_time()
        annotator.apply(ev.ClickAdded(1, (), yx, sign, number))
        seconds.append(time.process_time() - start)
    few = min(100, options.clicks // 4)
    first, last = (np.median(part) for part in (seconds[1 : few + 1], seconds[-few:]))
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
