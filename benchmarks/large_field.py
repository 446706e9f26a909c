"""Compare clicks and milliseconds for objects in their own image and a wide field.

    python benchmarks/large_field.py --data DATA [--model default] [--objects 6]

The same validation objects are clicked twice: in their own image, and in a field of
4096² pixels that continues the image by mirroring (so the neighbourhood stays real).
Objects at the image's edge are left out: mirrored, they would be other objects.
Prints clicks to 85 % and 90 % and the median milliseconds of first and later clicks.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from napari_cfrseg.engine.segmenter import Segmenter
from napari_cfrseg.evaluation.datasets import (
    AnnotatedPlane,
    BenchmarkObject,
    Source,
    group_by_plane,
)
from napari_cfrseg.evaluation.datasets.choice import micro_objects
from napari_cfrseg.evaluation.evaluate_objects import RunSettings, evaluate_plane
from napari_cfrseg.evaluation.scores import ResultRow, mean_clicks_to, mean_iou_at

SPLIT = Path(__file__).parent / "split.json"


@dataclass(frozen=True, slots=True)
class WideField:
    """A source whose planes are continued to ``size`` by mirroring."""

    inner: Source
    size: int

    def offset(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Return where the original plane starts: near the middle."""
        return (self.size - shape[0]) // 2, (self.size - shape[1]) // 2

    def read_plane(self, image_name: str, plane: int | None) -> AnnotatedPlane:
        """Read and continue one plane; the continuation is unlabelled."""
        found = self.inner.read_plane(image_name, plane)
        shape = found.labels.shape[-2:]
        pads = [
            (start, self.size - length - start)
            for start, length in zip(self.offset(shape), shape, strict=True)
        ]
        rest = [(0, 0)] * (found.image.ndim - 2)
        image = np.pad(found.image, [*pads, *rest], mode="symmetric")
        labels = np.pad(found.labels, [(0, 0), *pads])
        return AnnotatedPlane(image, labels)


def widened(item: BenchmarkObject, size: int) -> BenchmarkObject:
    """Return the same object in the wider field."""
    field = WideField(item.source, size)
    plane = item.source.read_plane(item.image_name, item.plane)
    start = field.offset(plane.labels.shape[-2:])
    anchor = item.anchor
    if anchor is not None:
        anchor = (anchor[0] + start[0], anchor[1] + start[1])
    return replace(item, source=field, anchor=anchor)


def is_whole(item: BenchmarkObject) -> bool:
    """Whether the object keeps off the image's edge."""
    mask = item.mask_in(item.source.read_plane(item.image_name, item.plane))
    rim = (mask[:2], mask[-2:], mask[:, :2], mask[:, -2:])
    return not any(edge.any() for edge in rim)


def measure(segmenter: Segmenter, objects: list[BenchmarkObject]) -> list[ResultRow]:
    """Click all objects."""
    settings = RunSettings(max_clicks=20, target=0.90)
    return [
        row
        for plane in group_by_plane(objects)
        for row in evaluate_plane(segmenter, plane, settings)
    ]


def line(name: str, rows: list[ResultRow]) -> str:
    """Format one line of the table."""
    runs = [row.ious for row in rows]
    first = 1e3 * float(np.median([row.seconds[0] for row in rows]))
    later = 1e3 * float(np.median([s for row in rows for s in row.seconds[1:]]))
    return (
        f"| {name} | {len(rows)} | {mean_clicks_to(runs, 0.85):.2f} | "
        f"{mean_clicks_to(runs, 0.90):.2f} | {mean_iou_at(runs, 1):.3f} | "
        f"{first:.0f} | {later:.0f} |"
    )


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("CFRSEG_DATA"))
    parser.add_argument("--model", default="default")
    parser.add_argument("--objects", type=int, default=6, help="per set")
    parser.add_argument("--field", type=int, default=4096)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    segmenter = Segmenter.load(options.model, device="cpu", threads=options.threads)
    objects = micro_objects(
        Path(options.data), SPLIT, "validation", max_per_set=options.objects
    )
    objects = [item for item in objects if is_whole(item)]
    print("| field | objects | NoC@85 | NoC@90 | IoU@1 | first ms | next ms |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    print(line("own image", measure(segmenter, objects)), flush=True)
    wide = [widened(item, options.field) for item in objects]
    print(line(f"{options.field}²", measure(segmenter, wide)))


if __name__ == "__main__":
    main()
