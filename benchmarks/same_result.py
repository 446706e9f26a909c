"""How far a session's labels differ between threads, precisions and devices.

    python benchmarks/same_result.py [--objects 8] [--device cuda]

On each bundled micrograph a session is made by clicking the middle of some annotated
objects and once, negative, beside each. It is replayed with the settings of the first
row, which is the reference, and with others; printed is the share of all pixels whose
label differs, and of those that any object has, and the lowest IoU of an object.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator

import numpy as np
import torch
from scipy import ndimage

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.annotation.annotator import Annotator
from napari_cfrseg.clicks import Click
from napari_cfrseg.engine.segmenter import Segmenter
from napari_cfrseg.samples import Sample, load_sample, sample_names
from napari_cfrseg.session.replay_session import compare_labels


def clicks_on(sample: Sample, objects: int) -> list[ev.Event]:
    """Return events: for each object a click in its depth and one outside it."""
    sizes = np.bincount(sample.labels.ravel())
    sizes[0] = 0
    events: list[ev.Event] = []
    for number, label in enumerate(np.argsort(-sizes)[:objects], start=1):
        mask = sample.labels == label
        depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
        y, x = np.unravel_index(int(depth.argmax()), mask.shape)
        away = ndimage.distance_transform_edt(~mask)
        near = np.argwhere((away >= 3) & (away < 5))
        outside = near[len(near) // 3]
        events.append(ev.ObjectCreated(number))
        events.append(ev.ClickAdded(number, (), (y, x), True, 2 * number))
        second = Click((outside[0], outside[1]), False)
        events.append(
            ev.ClickAdded(number, (), second.yx, second.is_positive, 2 * number + 1)
        )
    return events


def variants(device: str | None) -> Iterator[tuple[str, str, int]]:
    """Yield (device, precision, threads); the first is the reference."""
    yield "cpu", "float32", 1
    yield "cpu", "float32", 2
    yield "cpu", "bfloat16", 1
    if device is not None:
        yield device, "float32", 1
        yield device, "bfloat16", 1


def main() -> None:
    """Measure and print one JSON value per variant."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=8)
    parser.add_argument("--device", help="another device to compare, for example cuda")
    parser.add_argument("--model", default="default")
    chosen = parser.parse_args()
    samples = [load_sample(name) for name in sample_names()]
    reference: list[np.ndarray] = []
    for device, precision, threads in variants(chosen.device):
        torch.set_num_threads(threads)
        segmenter = Segmenter.load(chosen.model, device=device, precision=precision)
        differing = pixels = owned = 0
        lowest = 1.0
        for number, sample in enumerate(samples):
            events = clicks_on(sample, chosen.objects)
            image = sample.image
            annotator = Annotator(lambda _, i=image: i, image.shape[:2], segmenter)
            for event in events:
                annotator.apply(event)
            labels = annotator.labels()
            if len(reference) < len(samples):
                reference.append(labels)
            before = reference[number]
            differing += int((labels != before).sum())
            pixels += labels.size
            owned += int(((labels > 0) | (before > 0)).sum())
            for changed in compare_labels(before, labels)[:1]:
                lowest = min(lowest, changed["iou"])
        said = {
            "device": device,
            "precision": precision,
            "threads": threads,
            "sessions": len(samples),
            "differing_px": differing,
            "share_of_all": round(differing / pixels, 7),
            "share_of_objects": round(differing / owned, 6),
            "lowest_iou": lowest,
        }
        print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main()
