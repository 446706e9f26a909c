"""Where the time of an evaluation goes: the network, or our bookkeeping.

    python benchmarks/profile_evaluation.py DATA [--objects-per-set 4] [--refinement …]

Prints the share of each part of a single-process run on validation objects: the
network's stages (as the segmenter reports them), the rest of ``predict``, the robot,
the metrics, and what is left (reading files, cutting masks out).
"""

from __future__ import annotations

import argparse
import os
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from napari_cfrseg.evaluation import evaluate_objects as loop
from napari_cfrseg.evaluation.datasets.choice import micro_objects
from napari_cfrseg.evaluation.evaluate_objects import evaluate_objects
from napari_cfrseg.evaluation.segmenters import SegmenterSpec


class Clocks:
    """Seconds per part; a part inside another is taken off by the caller."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function with its CPU seconds added to a part."""

        def call(*args: Any, **kwargs: Any) -> Any:
            start = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds[name] += time.process_time() - start

        return call


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="?", default=os.environ.get("CFRSEG_DATA"))
    parser.add_argument("--objects-per-set", type=int, default=4)
    parser.add_argument("--segmenter", default="default")
    parser.add_argument("--refinement", default="standard")
    args = parser.parse_args()
    if args.data is None:
        parser.error("name the data folder, or set CFRSEG_DATA")
    split = Path(__file__).with_name("split.json")
    objects = micro_objects(Path(args.data), split, max_per_set=args.objects_per_set)

    import torch

    torch.set_num_threads(1)
    clocks = Clocks()
    spec = SegmenterSpec(args.segmenter, refinement=args.refinement, device="cpu")
    segmenter: Any = spec()
    product: Any = segmenter._segmenter  # noqa: SLF001 - its network's stages are timed
    for stage in ("embed_image", "embed_clicks", "refine"):
        network = product.network
        setattr(network, stage, clocks.timed("network", getattr(network, stage)))
    segmenter.predict = clocks.timed("predict", segmenter.predict)
    loop.ExactRobot.next_click = clocks.timed(  # type: ignore[method-assign]
        "robot", loop.ExactRobot.next_click
    )
    for name in ("iou", "error_area"):
        timed = clocks.timed("metrics", getattr(loop.metrics, name))
        setattr(loop.metrics, name, timed)

    start = time.process_time()
    rows = list(evaluate_objects(lambda: segmenter, objects))
    total = time.process_time() - start
    seconds = clocks.seconds
    seconds["rest of predict"] = seconds.pop("predict") - seconds["network"]
    seconds["files, masks, rest"] = total - sum(seconds.values())
    clicks = sum(len(row.ious) for row in rows)
    print(f"{len(rows)} objects, {clicks} clicks, {total:.1f} CPU s on one thread")
    for name, value in sorted(seconds.items(), key=lambda item: -item[1]):
        share = 100 * value / total
        print(f"{share:5.1f} %  {1000 * value / clicks:7.2f} ms/click  {name}")
    minutes = total / len(rows) * 1000 / 60
    print(f"1,000 objects: {minutes:.1f} CPU min, {minutes / 2:.1f} min on 2 cores")


if __name__ == "__main__":
    main()
