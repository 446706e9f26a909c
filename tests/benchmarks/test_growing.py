"""A network that was given more width draws what it drew before."""

from dataclasses import replace

import torch
from train_product import grown

from napari_cfrseg.model.cfrnet import CfrNet, CfrNetConfig


def _outputs(network: CfrNet, feedback: torch.Tensor | None) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(2, 3, 64, 64, generator=generator)
    points = torch.tensor([[[30.0, 31, 0], [10, 50, 1]]]).repeat(2, 1, 1)
    newest = torch.tensor([[10.0, 50, 0]]).repeat(2, 1)
    with torch.no_grad():
        return network(image, points, feedback, newest).logits


def test_a_grown_network_draws_the_same() -> None:
    torch.manual_seed(0)
    old = CfrNet(CfrNetConfig(fine_feedback=8)).eval()
    for module in old.modules():  # a trained network's zeros are no zeros any more
        weight = getattr(module, "weight", None)
        if weight is not None and not weight.any():
            torch.nn.init.normal_(weight, std=0.1)
    config = replace(
        old.config,
        widths=(40, 72, 100, 136),
        head_width=56,
        fine_feedback=12,
        fine_width=24,
        deepened=True,
        second_backbone="tf_efficientnet_lite0",
        judge_width=8,
    )
    new = grown(old, config).eval()
    generator = torch.Generator().manual_seed(2)
    for feedback in (None, torch.rand(2, 1, 64, 64, generator=generator)):
        torch.testing.assert_close(
            _outputs(new, feedback), _outputs(old, feedback), rtol=1e-4, atol=1e-4
        )


def test_the_folded_copy_of_a_grown_network_agrees() -> None:
    torch.manual_seed(0)
    config = CfrNetConfig(
        fine_feedback=8,
        fine_width=24,
        deepened=True,
        second_backbone="tf_efficientnet_lite0",
        judge_width=8,
    )
    network = CfrNet(config).eval()
    folded = network.for_inference()
    mask = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(
        _outputs(folded, mask), _outputs(network, mask), rtol=1e-3, atol=1e-4
    )
