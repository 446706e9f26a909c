"""The published losses, in value and gradient."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from golden_rule import found

from cfrseg_training.loop.training_step import normalized_focal_loss

pytestmark = pytest.mark.golden


def load(name):
    paths = found(f"losses/{name}.npz")
    if not paths:
        pytest.skip(f"no golden losses/{name}.npz")
    with np.load(paths[0]) as data:
        return {key: torch.from_numpy(data[key]).float() for key in data.files}


def check(logits, label, loss_of, expected, gradient):
    logits = logits.clone().requires_grad_(True)
    loss = loss_of(logits, label.clamp(min=0))
    torch.testing.assert_close(loss, expected.flatten(), rtol=2e-5, atol=1e-7)
    loss.mean().backward()
    torch.testing.assert_close(logits.grad, gradient, rtol=2e-4, atol=1e-8)


@pytest.mark.parametrize(
    ("variant", "alpha"), [("nfl_a0.5_g2", 0.5), ("nfl_a0.25_g2_default", 0.25)]
)
def test_normalised_focal_loss(variant, alpha):
    data = load("nfl")
    label = data["label"]
    check(
        data["pred_logits"],
        label,
        lambda x, y: normalized_focal_loss(x, y, label >= 0, alpha=alpha),
        data[f"{variant}_per_sample"],
        data[f"{variant}_grad_of_mean"],
    )


def test_published_double_sigmoid_is_reproduced_by_passing_probabilities():
    data = load("nfl")
    name = "nfl_a0.5_g2_prob_input_double_sigmoid"
    label = data["label"]
    check(
        data["prob_input"],
        label,
        lambda x, y: normalized_focal_loss(x, y, label >= 0),
        data[f"{name}_per_sample"],
        data[f"{name}_grad_of_mean"],
    )


def test_masked_loss_counts_the_strict_inside_of_the_box():
    data = load("masked_nfl")
    label = data["label"]
    valid = (label >= 0) & (data["mask_long_eq1"] > 0)
    check(
        data["pred_logits"],
        label,
        lambda x, y: normalized_focal_loss(x, y, valid),
        data["loss_per_sample"],
        data["grad_of_mean"],
    )
