"""A click's cost does not depend on how many clicks came before it."""

from __future__ import annotations

import numpy as np
import torch
from counted_steps import SIDE, DiscNetwork, steps_of
from torch.utils._python_dispatch import TorchDispatchMode

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.annotation.annotator import Annotator
from napari_cfrseg.engine.segmenter import Segmenter
from napari_cfrseg.model.blocks.clickmaps import disk_maps


def test_a_click_among_a_thousand_takes_the_interpreter_no_more_steps():
    """Counted, not timed: a loop over the clicks would show on any machine."""
    rng = np.random.default_rng(0)
    image = np.zeros((SIDE, SIDE), np.uint8)
    annotator = Annotator(lambda _: image, image.shape, Segmenter(DiscNetwork()))
    annotator.apply(ev.ObjectCreated(1))
    offsets = rng.permutation(SIDE * SIDE)
    counted = {}
    number = 0

    def click() -> None:
        y, x = divmod(int(offsets[number]), SIDE)
        is_inside = (y - SIDE / 2) ** 2 + (x - SIDE / 2) ** 2 < (SIDE / 3) ** 2
        annotator.apply(ev.ClickAdded(1, (), (y, x), bool(is_inside), number))

    annotator.apply(ev.ClickAdded(1, (), (SIDE / 2, SIDE / 2), True, 10_000))
    for number in range(1000):
        if number in (100, 999):
            counted[number] = steps_of(click)
        else:
            click()
    assert counted[999] < 1.2 * counted[100]
    assert annotator.objects[1].click_count == 1001


class Counted(TorchDispatchMode):
    """Counts the numbers that torch computes."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.numbers += result.numel()
        return result


def test_a_click_among_thousands_draws_its_own_disk_only():
    """Drawing all of them again takes a hundred times as many numbers."""
    rng = np.random.default_rng(0)
    places = rng.uniform(0, SIDE, (2, 4000, 2)).astype(np.float32)

    def numbers(count: int) -> int:
        """Draw ``count`` clicks of each sign, and count for one more."""
        points = np.full((1, 2 * count + 2, 3), -1, np.float32)
        points[0, :count, :2] = places[0, :count]
        points[0, count + 1 : -1, :2] = places[1, :count]
        with torch.inference_mode():
            disk_maps(torch.from_numpy(points.copy()), (SIDE, SIDE))
            points[0, count, :2] = places[0, count]
            with Counted() as counted:
                disk_maps(torch.from_numpy(points), (SIDE, SIDE))
        return counted.numbers

    assert numbers(3900) < 3 * numbers(100)
