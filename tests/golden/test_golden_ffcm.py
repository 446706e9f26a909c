"""FFCM and CFFM against numbers of the published code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from golden_rule import found, rule1
from torch import Tensor, nn

from napari_cfrseg.model.blocks import resize
from napari_cfrseg.model.blocks.clickmaps import correction_box, region_mask
from napari_cfrseg.model.blocks.feedback_correction import FFCM, blend, click_affinity
from napari_cfrseg.model.blocks.feedback_fusion import CFFM

pytestmark = pytest.mark.golden

# (published key of the module, our key), as the published modules call their layers
ENCODER = {
    "info_encoder.0.conv": "first",
    "info_encoder.0.bn": "rest.0",
    **{
        f"info_encoder.{i}.{layer}": f"rest.{i + 1}.{layer}"
        for i in (1, 2)
        for layer in ("conv3x3", "conv1x1", "bn")
    },
}
FUSION = {
    "feature_conv.conv": "phi1.conv",
    "feature_conv.bn": "phi1.bn",
    "fusion_encoder.0.conv": "phi2_first",
    "fusion_encoder.0.bn": "phi2_rest.0",
    **{
        f"fusion_encoder.{i}.{layer}": f"phi2_rest.{i + 1}.{layer}"
        for i in (1, 2)
        for layer in ("conv3x3", "conv1x1", "bn")
    },
    "fusion_encoder.3": "phi2_rest.4",
    "residual_predictor.conv": "phi3_first",
    "residual_predictor.bn": "phi3_rest.0",
}


def fill(module: nn.Module, prefix: str, names: dict[str, str]) -> None:
    """Give a module the rule's weights, under the names the published code uses."""
    ours = {ours: f"{prefix}.{theirs}" for theirs, ours in names.items()}
    state = {}
    for key, tensor in module.state_dict().items():
        layer, _, leaf = key.rpartition(".")
        shape, floating = tuple(tensor.shape), tensor.is_floating_point()
        state[key] = rule1(f"{ours[layer]}.{leaf}", shape, is_floating=floating)
    module.load_state_dict(state)


@pytest.mark.parametrize("path", found("nets/fcfi_ffcm_unit.npz"), ids=lambda p: p.name)
@pytest.mark.parametrize("soft", [False, True])
def test_correction_arithmetic(path: Path, soft: bool) -> None:
    golden = np.load(path)
    features = torch.from_numpy(golden["features"])
    feedback = resize(torch.from_numpy(golden["feedback"]), (24, 32))
    clicks = torch.from_numpy(golden["new_points"])
    ratio = float(golden["expan_ratio"])
    box = correction_box(clicks, (96, 128), (24, 32), ratio)
    y0, y1, x0, x1 = (edge.long().numpy() for edge in box)
    np.testing.assert_array_equal(np.stack([y0, x0, y1, x1], 1), golden["crop_feat"])
    region = region_mask(box, (24, 32), soft=soft)
    affinity = click_affinity(features, clicks, (96, 128))
    corrected = blend(feedback, affinity, region, clicks)
    expected = golden["Mr_train" if soft else "Mr_eval"]
    if soft:
        np.testing.assert_allclose(region, golden["box_mask_train"], atol=1e-6)
    np.testing.assert_allclose(corrected, expected, atol=2e-6)


class Identity(FFCM):
    """FFCM whose encoder hands on the features, as in the unit fixture."""

    def encode(self, prepared: Tensor, feedback: Tensor) -> Tensor:
        return prepared


@pytest.mark.parametrize("path", found("nets/fcfi_ffcm_unit.npz"), ids=lambda p: p.name)
def test_two_new_clicks_are_corrected_in_turn(path: Path) -> None:
    golden = np.load(path)
    feedback = resize(torch.from_numpy(golden["feedback"]), (24, 32))
    ffcm, features = Identity(8, 8).eval(), torch.from_numpy(golden["features"])
    for click in torch.from_numpy(golden["two_new_points"]).float().unbind(1):
        feedback = ffcm.correct(features, feedback, click, (96, 128)).corrected
    np.testing.assert_allclose(feedback, golden["Mr_eval_two_points"], atol=2e-6)


NETS = [p for p in found("nets/fcfi*.npz") if "rule2_B_feat_before_ffcm" in np.load(p)]


def close(ours: Tensor, golden: np.ndarray, rtol: float = 2e-5) -> None:
    """Compare relative to the range of the expected values (golden/README)."""
    atol = rtol * max(float(np.ptp(golden)), 1.0)
    np.testing.assert_allclose(ours.detach().numpy(), golden, rtol=0, atol=atol)


@pytest.mark.parametrize("path", NETS, ids=lambda p: p.name)
@pytest.mark.parametrize("case", ["B", "Btrain"])
def test_modules_with_published_weights(path: Path, case: str) -> None:
    golden = np.load(path)
    features = torch.from_numpy(golden["rule2_B_feat_before_ffcm"])
    first = torch.from_numpy(golden["rule2_B_ffcm_input_first_channels"])
    kind = "hrnet" if "hrnet" in path.name else "deeplab"
    planes = 6 if kind == "hrnet" else 5
    mid = 64 if kind == "hrnet" else 32
    context = first[:, :planes]
    feedback = resize(torch.from_numpy(golden["prev_B"])[None, None], (24, 32))
    click = torch.from_numpy(golden["newpoint_B"])[:, 0]

    ffcm = FFCM(features.shape[1], mid, 0.3, context_channels=planes)
    fill(ffcm, "feature_extractor.correction_module", ENCODER)
    cffm = CFFM(features.shape[1], mid)
    fusion_name = "fusion_module" if kind == "hrnet" else "feedback_fusion"
    fill(cffm, f"feature_extractor.{fusion_name}", FUSION)
    if kind == "deeplab":  # the fixture's rule2
        torch.nn.init.constant_(cffm.phi3_rest[0].bias, 1.5)
    ffcm.eval()
    cffm.eval()
    ffcm.training = case == "Btrain"  # the soft box, normalisation in eval

    with torch.no_grad():
        prepared = ffcm.prepare(features, context)
        if case == "B":
            close(
                ffcm.encode(prepared, feedback)[:, ::4],
                golden["rule2_B_ffcm_features_c4"],
            )
        correction = ffcm(features, context, feedback, click, (96, 128))
        fused, updated = cffm(features, correction.corrected, 1.0)
        gated, _ = cffm(features, correction.corrected, 0.0)
    close(correction.affinity, golden["rule2_B_affinity_full"])
    close(correction.corrected, golden[f"rule2_{case}_Mr"])
    close(updated, golden[f"rule2_{case}_Mu"])
    assert torch.equal(gated, features)
    if case == "B":
        close(fused[:, ::4], golden["rule2_B_Fu_c4"])
        with torch.no_grad():
            residual = cffm.residual(cffm.prepare(features), updated)
        close(residual, golden["rule2_B_residual"])
    else:
        close(correction.region, golden["rule2_Btrain_box_mask"])
