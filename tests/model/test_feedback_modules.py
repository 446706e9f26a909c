"""FFCM and CFFM: what each promises, sample by sample and variant by variant."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from napari_cfrseg.model.blocks import SplitInputConv2d
from napari_cfrseg.model.blocks.feedback_correction import FFCM
from napari_cfrseg.model.blocks.feedback_fusion import CFFM, FUSIONS

SIZE = (64, 80)


@pytest.fixture
def inputs() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(3, 8, 16, 20, generator=generator)
    context = torch.randn(3, 5, 16, 20, generator=generator)
    feedback = torch.rand(3, 1, 16, 20, generator=generator)
    clicks = torch.tensor([[30.0, 40.0, 1.0], [3.0, 77.0, 0.0], [20.0, 9.0, -1.0]])
    return features, context, feedback, clicks


def module(**kwargs: object) -> FFCM:
    torch.manual_seed(1)
    return FFCM(8, 16, context_channels=5, **kwargs).eval()  # type: ignore[arg-type]


def test_a_split_convolution_is_the_convolution_of_the_concatenation() -> None:
    conv = SplitInputConv2d((2, 1, 3), 4, 3)
    x = torch.randn(2, 6, 7, 9)
    parts = conv.part(0, x[:, :2]) + conv.part(1, x[:, 2:3], with_bias=True)
    torch.testing.assert_close(
        parts + conv.part(2, x[:, 3:]), conv(x), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("affinity", ["cosine", "exponential"])
def test_a_batch_is_its_samples(inputs: tuple[Tensor, ...], affinity: str) -> None:
    features, context, feedback, clicks = inputs
    ffcm = module(affinity=affinity)
    with torch.no_grad():
        together = ffcm(features, context, feedback, clicks, SIZE)
        for b in range(3):
            row = slice(b, b + 1)
            alone = ffcm(features[row], context[row], feedback[row], clicks[row], SIZE)
            for ours, theirs in zip(alone, together, strict=True):
                torch.testing.assert_close(ours, theirs[row], rtol=0, atol=1e-6)
    assert together.affinity.min() >= 0
    assert together.affinity.max() <= 1 + 1e-6


def test_only_the_box_changes_and_the_clicked_cell_takes_the_label(
    inputs: tuple[Tensor, ...],
) -> None:
    features, context, feedback, clicks = inputs
    with torch.no_grad():
        result = module()(features, context, feedback, clicks, SIZE)
    outside = result.region == 0
    assert torch.equal(result.corrected[outside], feedback[outside])
    assert result.corrected[0, 0, 7, 10] == pytest.approx(1, abs=1e-5)
    assert result.corrected[1, 0, 0, 19] == pytest.approx(0, abs=1e-5)
    rows, columns = result.region[0, 0].sum(1), result.region[0, 0].sum(0)
    # half sides int(0.15·64+0.5) = 10 and int(0.15·80+0.5) = 12 pixels, cells of 4 px
    assert (rows > 0).nonzero().flatten().tolist() == [5, 6, 7, 8, 9]
    assert (columns > 0).nonzero().flatten().tolist() == [7, 8, 9, 10, 11, 12]


@pytest.mark.parametrize("training", [False, True])
def test_no_new_click_no_correction(inputs: tuple[Tensor, ...], training: bool) -> None:
    features, context, feedback, clicks = inputs
    result = module().train(training)(features, context, feedback, clicks, SIZE)
    assert torch.equal(result.corrected[2], feedback[2])
    assert not result.region[2].any()


def test_gradients_reach_encoder_and_features_through_the_soft_box(
    inputs: tuple[Tensor, ...],
) -> None:
    features, context, feedback, clicks = inputs
    features.requires_grad_()
    ffcm = module().train()
    result = ffcm(features, context, feedback, clicks, SIZE)
    assert result.region[0, 0, 5, 10] == pytest.approx(0.5, abs=1e-4)
    result.corrected.sum().backward()
    assert features.grad is not None
    assert features.grad[0].abs().sum() > 0
    assert ffcm.first.weight.grad is not None
    assert ffcm.first.weight.grad.isfinite().all()


def test_affinity_stays_float32_under_autocast(inputs: tuple[Tensor, ...]) -> None:
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        correction = module()(*inputs, SIZE)
        fused, updated = CFFM(8, 16).eval()(inputs[0], correction.corrected, 1.0)
    assert correction.affinity.dtype == correction.corrected.dtype == torch.float32
    assert updated.dtype == torch.float32
    assert fused.isfinite().all()


def test_a_click_outside_the_window_does_no_harm(inputs: tuple[Tensor, ...]) -> None:
    features, context, feedback, _ = inputs
    clicks = torch.tensor([[-40.0, 5.0, 1.0], [300.0, 5.0, 0.0], [64.0, 80.0, 1.0]])
    with torch.no_grad():
        result = module()(features, context, feedback, clicks, SIZE)
    assert torch.equal(result.corrected[:2], feedback[:2])
    assert result.corrected.isfinite().all()


@pytest.mark.parametrize("fusion", FUSIONS)
def test_the_gate_of_each_fusion(fusion: str, inputs: tuple[Tensor, ...]) -> None:
    features, _, feedback, _ = inputs
    torch.manual_seed(0)
    cffm = CFFM(8, 16, fusion=fusion).eval()  # type: ignore[arg-type]
    with torch.no_grad():
        shut, _ = cffm(features, feedback, 0.0)
        opened, updated = cffm(
            features, feedback, torch.tensor([0.0, 1, 1])[:, None, None, None]
        )
    assert shut.shape == opened.shape == features.shape
    assert updated.shape == feedback.shape
    gated = fusion in ("residual", "residual_full")
    assert torch.equal(shut, features) is gated
    assert torch.equal(shut, opened) is not gated
    assert torch.equal(opened[0], shut[0])
    assert torch.equal(updated, feedback) is (fusion == "concat")


def test_unknown_variants_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="'dot' is not one of cosine, exponential"):
        FFCM(8, 8, affinity="dot")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'sum' is not one of residual"):
        CFFM(8, 8, fusion="sum")  # type: ignore[arg-type]
