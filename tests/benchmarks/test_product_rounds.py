"""Training in the product's loop: the same places, the same rules, a gradient."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from clicked_objects import PLANE, ClickedBatch, ClickedObject
from product_rounds import ProductConfig, ProductStep

from cfrseg_training.configuration import TrainConfig
from cfrseg_training.loop.atlas import Atlas, Sample, WindowRecipe
from cfrseg_training.loop.augmentation import PhotometricRecipe
from cfrseg_training.loop.trainer import Trainer
from napari_cfrseg.engine.one_way import FROM_CLICK
from napari_cfrseg.engine.stages import newest_row
from napari_cfrseg.model.cfrnet import CfrNet, CfrNetConfig

GRID = 64
SMALL = CfrNetConfig(
    widths=(8, 8, 8, 8),
    feedback_width=4,
    head_width=8,
    fine_feedback=4,
    judge_width=4,
)


@pytest.fixture
def atlas() -> Atlas:
    y, x = np.mgrid[:300, :300]
    labels = np.zeros((300, 300), np.int32)
    labels[np.hypot(y - 100, (x - 120) / 2) < 30] = 1
    labels[np.hypot(y - 210, x - 200) < 12] = 2
    image = np.repeat((100 + 80 * (labels > 0))[..., None], 3, 2).astype(np.uint8)
    return Atlas([Sample(image, labels, "set", "group")])


def _step(atlas: Atlas, config: ProductConfig | None = None) -> ProductStep:
    return ProductStep(
        atlas, config or ProductConfig(), WindowRecipe(), PhotometricRecipe()
    )


def _scene(atlas: Atlas, count: int = 6) -> ClickedBatch:
    layout = atlas.lay(count, GRID, torch.Generator().manual_seed(1))
    host = torch.Generator().manual_seed(1)
    return ClickedBatch(atlas, layout, GRID, PhotometricRecipe(), host, human=0.5)


def _answer_with_truth(scene: ClickedBatch) -> None:
    for o, truth in zip(scene.objects, scene.truth, strict=True):
        o.take(truth.astype(np.float32))


def test_a_moved_window_shows_the_clicks_and_the_mask_where_they_were(
    atlas: Atlas,
) -> None:
    scene = _scene(atlas)
    _answer_with_truth(scene)
    before = [o.window for o in scene.objects]
    scene.look_again()
    moved = [o.window != b for o, b in zip(scene.objects, before, strict=True)]
    assert any(moved)
    for o, truth in zip(scene.objects, scene.truth, strict=True):
        y, x = o.window.to_grid(o.clicks[-1].yx)
        assert truth[max(round(y) - 1, 0) : round(y) + 2, round(x)].any()
        mask = o.feedback()[0] > 0.5
        if not o.touches:  # else the first window did not show all of it
            union = (mask | truth).sum()
            assert (mask & truth).sum() / union > 0.8


def test_an_object_too_large_for_its_window_gets_a_wider_one() -> None:
    o = ClickedObject.of(side_px=40.0, extent_px=200.0, grid=GRID)
    o.add_on_grid((32.0, 32.0), positive=True)
    o.take(np.ones((GRID, GRID), np.float32))
    side = o.window.side
    assert o.look_again()
    assert o.window.side > 1.4 * side


def test_planes_are_at_image_resolution_for_small_objects() -> None:
    o = ClickedObject.of(side_px=32.0, extent_px=15.0, grid=GRID)
    assert o.window.side == 32
    assert o.min_side == 32
    assert o.window.y0 == (PLANE - 32) // 2


def test_a_late_click_may_only_change_what_it_says(atlas: Atlas) -> None:
    scene = _scene(atlas, 1)
    o, truth = scene.objects[0], scene.truth[0]
    half = truth.copy()
    half[:, : GRID // 2] = False
    o.take(half.astype(np.float32))
    for step in range(FROM_CLICK - 2):
        o.add_on_grid((2.0 + 3 * step, 2.0), positive=False)
    o.click_again(truth, scene.known[0], None)
    before = torch.from_numpy(o.feedback())[None]
    scene.newest = torch.tensor([newest_row(o.window, o.clicks[-1])])
    free = scene.may_change(before)[0, 0]
    positive = o.clicks[-1].is_positive
    assert o.is_confined()
    assert (free == ((before[0, 0] > 0.5) != positive)).all()


def test_the_same_look_in_every_window(atlas: Atlas) -> None:
    scene = _scene(atlas)
    first = scene.batch.image.clone()
    scene._gather()
    torch.testing.assert_close(scene.batch.image, first)


@pytest.mark.parametrize("earlier", [0, 3])
def test_a_step_trains_every_part(atlas: Atlas, earlier: int) -> None:
    torch.manual_seed(0)
    network = CfrNet(SMALL).train()
    config = replace(
        ProductConfig(), earlier=earlier, none_earlier=0.0, started=0.5, refined=1.0
    )
    chance = [torch.Generator().manual_seed(1) for _ in range(2)]
    result = _step(atlas, config)(network, 4, GRID, *chance)
    result.loss.backward()
    without = [
        name
        for name, p in network.named_parameters()
        if p.grad is None or not torch.isfinite(p.grad).all()
    ]
    assert not without
    assert torch.isfinite(result.loss)


def test_a_run_that_was_stopped_goes_on_to_the_same_weights(
    atlas: Atlas, tmp_path: Path
) -> None:
    def trained(name: str, stop_after_s: float) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        config = TrainConfig(
            steps=2, stop_after_s=stop_after_s, batch=2, ema=0.5, frozen_norms=True
        )
        step = _step(atlas, ProductConfig(earlier=1))
        ticks = itertools.count()
        trainer = Trainer(
            CfrNet(SMALL),
            atlas,
            config,
            tmp_path / f"{name}.pt",
            clock=lambda: float(next(ticks)),
            step=step,
        )
        return trainer.run().state_dict()

    begun = {k: v.clone() for k, v in trained("parts", 0.5).items()}
    ended, whole = trained("parts", 99), trained("whole", 99)
    assert any(not torch.equal(begun[k], v) for k, v in ended.items())
    assert all(torch.equal(whole[k], v) for k, v in ended.items())
