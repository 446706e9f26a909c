"""The papers' recipes: complete, sourced, and able to teach each kind of network."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cfrseg_training.loop.atlas import WindowBatch
from cfrseg_training.papers.published_steps import (
    first_clicks,
    output_loss,
    published_step,
)
from cfrseg_training.papers.recipe import Recipe, read_recipe
from cfrseg_training.papers.recipe_training import optimiser_of, schedule_of
from napari_cfrseg.errors import DatasetError
from napari_cfrseg.model import registry

FOLDER = Path(__file__).parents[2] / "training" / "recipes"
FILES = sorted(FOLDER.glob("*.toml"))

VIT = {"family": "plain_vit", "dim": 32, "depth": 4, "heads": 2, "head_width": 32}
VIT |= {"pyramid": (32, 32, 32, 32), "grid_size": 224}
SMALL: dict[str, tuple[int, dict[str, Any]]] = {
    "fcfi_r101_sbd": (
        48,
        {"family": "deeplab", "layers": (1, 1, 1, 1), "width": 32}
        | {"feedback_width": 16},
    ),
    "fcfi_hrnet_cocolvis": (
        48,
        {"family": "hrnet", "width": 8, "ocr_width": 16, "feedback_width": 16}
        | {"relu_after_exchange": False},
    ),
    "cfr_icl_vit_base_cocolvis": (224, VIT),
    "cfr_icl_vit_huge_cocolvis": (224, VIT | {"feedback_width": 16}),
}


def recipe(name: str) -> Recipe:
    return read_recipe(FOLDER / f"{name}.toml")


def batch(side: int = 64, seed: int = 0) -> WindowBatch:
    """Two images, a bright disk each, with a dimmer neighbour."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    masks, others, images = [], [], []
    for cy, cx in ((0.35, 0.4), (0.6, 0.55)):
        mask = (y - cy * side) ** 2 + (x - cx * side) ** 2 < (0.2 * side) ** 2
        other = (y - 0.85 * side) ** 2 + (x - 0.15 * side) ** 2 < (0.1 * side) ** 2
        image = 0.2 + 0.6 * mask + 0.3 * other
        noise = 0.1 * torch.rand(3, side, side, generator=generator)
        images.append(image + noise)
        masks.append(mask[None].float())
        others.append((other & ~mask)[None])
    mask = torch.stack(masks)
    return WindowBatch(
        image=torch.stack(images).clamp(0, 1),
        mask=mask,
        others=torch.stack(others),
        valid=torch.ones_like(mask, dtype=torch.bool),
        first_click=torch.zeros(2, 2),
    )


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_number_has_its_source(path: Path) -> None:
    read = read_recipe(path)
    assert read.name == path.stem
    values = [line for line in path.read_text().splitlines() if "=" in line]
    values = [line for line in values if not line.startswith("#")]
    assert len(values) >= 50
    unsourced = [line for line in values if not re.search(r"\S  # \S", line)]
    assert unsourced == []


def test_the_recipes_of_both_papers_are_there() -> None:
    assert len(FILES) == 6
    names = {recipe(path.stem).network.name for path in FILES}
    assert names <= set(registry.names())
    huge = recipe("cfr_icl_vit_huge_cocolvis")
    assert (huge.data.epochs, huge.data.epoch_length) == (1, 3000)
    assert huge.iteration.weights == (1, 2, 3)
    assert recipe("fcfi_r101_sbd").loss.corrected == 1


@pytest.mark.parametrize("name", [path.stem for path in FILES])
def test_the_optimiser_finds_its_modules(name: str) -> None:
    read = recipe(name)
    with torch.device("meta"):
        network = registry.build(registry.named(read.network.name).architecture)
    optimiser = optimiser_of(network, read)
    counted = sum(len(group["params"]) for group in optimiser.param_groups)
    assert counted == len(list(network.parameters()))
    rates = sorted(group["lr"] for group in optimiser.param_groups)
    top = read.optimiser.learning_rate
    assert rates[-1] == top
    assert rates[:-1] == pytest.approx([0.1 * top] * len(read.optimiser.scale))


def test_an_unknown_module_in_the_scale_is_refused() -> None:
    network = registry.build(SMALL["fcfi_r101_sbd"][1])
    read = recipe("fcfi_r101_sbd")
    wrong = replace(read, optimiser=replace(read.optimiser, scale={"spine": 0.1}))
    with pytest.raises(ValueError, match="the network has no spine"):
        optimiser_of(network, wrong)


def test_the_schedule_falls_at_its_milestones() -> None:
    read = recipe("fcfi_hrnet_cocolvis")
    parameter = torch.nn.Parameter(torch.ones(1))
    optimiser = torch.optim.Adam([parameter], lr=1.0)
    schedule = schedule_of(optimiser, read)
    seen = []
    for _ in range(read.data.epochs):
        seen.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    assert seen[199] == 1
    assert seen[200] == pytest.approx(0.1)
    assert seen[220] == pytest.approx(0.01)


@pytest.mark.parametrize("name", SMALL)
def test_a_small_network_overfits_by_the_recipe(name: str) -> None:
    read = recipe(name)
    side, description = SMALL[name]
    torch.manual_seed(0)
    network = registry.build(description)
    # random weights, few steps: the recipe's rates are for pretrained ones
    faster = replace(read.optimiser, learning_rate=3e-3, scale={})
    optimiser = optimiser_of(network, replace(read, optimiser=faster))
    windows = batch(side)
    generator, host = (torch.Generator().manual_seed(s) for s in (1, 2))
    for _ in range(15):
        loss = published_step(network, windows, read, generator, host)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
    clicks = first_clicks(windows, read.clicks, generator)
    with torch.no_grad():
        output = network(windows.image, clicks.points, None, clicks.newest)
    mask, truth = output.logits > 0, windows.mask > 0.5
    iou = (mask & truth).sum() / (mask | truth).sum()
    assert iou > 0.5


def test_first_clicks_lie_where_they_should() -> None:
    read = recipe("fcfi_hrnet_cocolvis")
    windows = batch()
    generator = torch.Generator().manual_seed(0)
    positives, negatives = [], []
    for _ in range(60):
        clicks = first_clicks(windows, read.clicks, generator)
        slots = read.clicks.most_per_sign
        for b in range(2):
            rows = clicks.points[b]
            used = rows[:, 2] >= 0
            inside = windows.mask[b, 0][rows[:, 0].long(), rows[:, 1].long()] > 0.5
            assert inside[:slots][used[:slots]].all()
            assert not inside[slots:][used[slots:]].any()
            positives.append(int(used[:slots].sum()))
            negatives.append(int(used[slots:].sum()))
            assert clicks.newest[b].tolist() == [*rows[0, :2].tolist(), 1.0]
    # means of 1 + K and K' with P ∝ 0.8^K: about 4.9 and 3.9
    assert 3.5 < sum(positives) / len(positives) < 6.3
    assert 2.5 < sum(negatives) / len(negatives) < 5.3
    assert min(positives) == 1
    assert min(negatives) == 0


def test_double_sigmoid_is_the_published_slip_and_can_be_left_out() -> None:
    read = recipe("fcfi_r101_sbd")
    torch.manual_seed(0)
    network = registry.build(SMALL["fcfi_r101_sbd"][1]).train()
    windows = batch()
    clicks = first_clicks(windows, read.clicks, torch.Generator().manual_seed(0))
    output = network(windows.image, clicks.points, windows.mask, clicks.newest)
    slip = output_loss(output, windows, read.loss)
    mended = output_loss(output, windows, replace(read.loss, double_sigmoid=False))
    alone = output_loss(output, windows, replace(read.loss, corrected=0.0, updated=0.0))
    assert slip > alone
    assert mended > alone
    assert slip != mended


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("alpha = 0.5", "alhpa = 0.5"), r"\[loss\] lacks alpha"),
        (("[schedule]", "[schedules]"), "unknown tables schedules"),
        (("gamma = 2.0", "gamma = 2.0\nbeta = 1"), r"\[loss\] has no beta"),
        (("epochs = 1 ", "epochs = 1.5 "), "epochs = 1.5 is not"),
        (("weights = [1.0, 2.0, 3.0]", "weights = [1.0]"), "needs 3 weights"),
        (('scheme = "icl"', 'scheme = "cfr"'), "scheme = 'cfr' is not"),
        (("fewest = 1", "fewest = 9"), "9 to 3 is no range"),
        (("[loss]", "[loss"), "not a TOML file"),
    ],
)
def test_a_recipe_is_read_strictly(
    tmp_path: Path, change: tuple[str, str], message: str
) -> None:
    text = (FOLDER / "cfr_icl_vit_huge_cocolvis.toml").read_text()
    assert change[0] in text
    path = tmp_path / "mine.toml"
    path.write_text(text.replace(*change))
    with pytest.raises(DatasetError, match=message):
        read_recipe(path)


def test_no_recipe() -> None:
    with pytest.raises(DatasetError, match="no such file"):
        read_recipe(Path("absent.toml"))
