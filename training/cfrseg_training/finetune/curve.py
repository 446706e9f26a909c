"""The windows of a fine-tuning's live curve."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from cfrseg_training.finetune.gate import Fold
from cfrseg_training.loop.atlas import AFTER_FIRST_CLICK, Atlas, WindowBatch
from napari_cfrseg.evaluation.datasets import BenchmarkObject

#: windows of the live curve
CURVE_WINDOWS = 12


def curve_windows(
    fold: Fold, judged: Sequence[BenchmarkObject], grid: int, device: str
) -> tuple[list[WindowBatch], bool]:
    """Draw the live curve's windows around held-out objects.

    Returns
    -------
    The windows, and whether none of their objects is judged on (only then may weights
    be chosen by them).
    """
    atlas = Atlas([plane.sample() for plane in fold.held_out], device)
    places = {(p.name, p.plane): i for i, p in enumerate(fold.held_out)}
    taken = set()
    for item in judged:
        index = places[item.image_name, item.plane]
        y, x = item.anchor or (0, 0)
        width = int(atlas.level_size[index, 0, 1])
        number = int(atlas.labels[int(atlas.label_start[index]) + y * width + x])
        taken.add((index, number))
    pairs = zip(atlas.object_image.tolist(), atlas.object_label.tolist(), strict=True)
    free = [i for i, pair in enumerate(pairs) if pair not in taken]
    chosen = free or list(range(len(atlas)))
    step = max(1, len(chosen) // CURVE_WINDOWS)
    objects = torch.tensor(chosen[::step][:CURVE_WINDOWS], device=device)
    generator = torch.Generator(device).manual_seed(7)
    batch = atlas.draw(len(objects), grid, generator, AFTER_FIRST_CLICK, objects)
    return [batch], bool(free)
