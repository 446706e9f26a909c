"""Every family clicks: the same Segmenter, whatever the network."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from napari_cfrseg.clicks import Click
from napari_cfrseg.engine.refinement import Refinement
from napari_cfrseg.engine.segmenter import Segmenter
from napari_cfrseg.model import registry
from napari_cfrseg.model import weights_file as checkpoint

VIT = {"family": "plain_vit", "dim": 32, "depth": 4, "heads": 2, "head_width": 8}
VIT |= {"pyramid": (8, 8, 8, 8), "grid_size": 224}
HRNET = {"family": "hrnet", "width": 8, "ocr_width": 8, "grid_size": 96}
SMALL: dict[str, dict[str, Any]] = {
    "ritm": HRNET,
    "ritm baseline": HRNET | {"mask_at_input": False},
    "fcfi hrnet": HRNET | {"feedback_width": 8, "relu_after_exchange": False},
    "fcfi deeplab": {"family": "deeplab", "layers": (1, 1, 1, 1), "width": 16}
    | {"feedback_width": 8, "grid_size": 96},
    "simpleclick": VIT,
    "vit fcfi": VIT | {"feedback_width": 8},
    "timm fcfi": {"family": "timm_fcfi", "backbone": "resnet10t", "grid_size": 96},
}


@pytest.mark.parametrize("name", SMALL)
def test_a_saved_network_segments_by_clicks(name: str, tmp_path: Any) -> None:
    torch.manual_seed(0)
    path = tmp_path / "net.safetensors"
    network = registry.build(SMALL[name]).eval()
    checkpoint.save(path, network, checkpoint.Metadata(network.architecture()))
    segmenter = Segmenter.load(path, device="cpu")
    image = np.random.default_rng(0).integers(0, 255, (120, 150), np.uint8)
    segmenter.set_image(image)
    cascade = Refinement.adaptive(4)
    first = segmenter.predict([Click((60, 70))], refinement=cascade)
    clicks = [*first.clicks, Click((20, 30), is_positive=False)]
    second = segmenter.predict(clicks, previous=first, refinement=cascade)
    assert second.mask.shape == image.shape
    assert second.mask[60, 70]
    assert not second.mask[20, 30]
