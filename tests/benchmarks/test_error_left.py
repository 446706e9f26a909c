"""The loss on the share of the error that a click leaves."""

from __future__ import annotations

import pytest
import torch
from product_rounds import error_left
from torch import Tensor

SIZE = 64
ALL = torch.ones(1, 1, SIZE, SIZE, dtype=torch.bool)
CLICK = torch.tensor([[32.0, 50.0, 1.0]])


def box(y0: int, y1: int, x0: int, x1: int) -> Tensor:
    mask = torch.zeros(1, 1, SIZE, SIZE)
    mask[..., y0:y1, x0:x1] = 1
    return mask


def sure(mask: Tensor) -> Tensor:
    return (mask - 0.5) * 40


TRUTH = box(16, 48, 10, 54)
BEFORE = box(16, 48, 10, 46)  # its right end is missing, and clicked


def left(mask: Tensor, valid: Tensor = ALL, before: Tensor = BEFORE) -> float:
    return float(error_left(sure(mask), TRUTH, valid, before, CLICK))


def test_a_mask_without_error_leaves_nothing_and_the_old_one_nearly_all() -> None:
    assert left(TRUTH) == pytest.approx(0, abs=1e-6)
    assert 0.7 < left(BEFORE) < 1


def test_half_the_error_repaired_leaves_half() -> None:
    assert left(box(16, 48, 10, 50)) == pytest.approx(left(BEFORE) / 2, rel=0.1)


def test_the_same_few_pixels_count_more_the_less_was_wrong() -> None:
    nearly = box(16, 48, 10, 53)
    worse = nearly.clone()
    worse[..., 20:24, 20:22] = 0
    lost_late = left(worse, before=nearly) - left(nearly, before=nearly)
    lost_early = left(worse, before=box(16, 48, 10, 24)) - left(
        nearly, before=box(16, 48, 10, 24)
    )
    assert lost_late > 3 * lost_early > 0


def test_what_is_lost_beside_the_click_counts_more_than_far_away() -> None:
    near, far = TRUTH.clone(), TRUTH.clone()
    near[..., 30:34, 44:48] = 0
    far[..., 30:34, 10:14] = 0
    assert left(near) > 2 * left(far) > 0


def test_unknown_pixels_count_nowhere() -> None:
    wrong = TRUTH.clone()
    wrong[..., 20:24, 20:24] = 0
    valid = ALL.clone()
    valid[..., 20:24, 20:24] = False
    assert left(wrong, valid) == pytest.approx(0, abs=1e-6)
    assert left(wrong) > 0


def test_it_pulls_every_wrong_pixel_to_the_truth() -> None:
    logits = torch.zeros(1, 1, SIZE, SIZE, requires_grad=True)
    error_left(logits, TRUTH, ALL, BEFORE, CLICK).sum().backward()
    assert logits.grad is not None
    assert ((logits.grad < 0) == (TRUTH > 0.5)).all()
