"""The training module on small made images: geometry, clicks, losses, loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from cfrseg_training.configuration import TrainConfig
from cfrseg_training.loop.atlas import Atlas, Sample, WindowRecipe
from cfrseg_training.loop.augmentation import PhotometricRecipe, vary
from cfrseg_training.loop.click_sampling import depth, initial_clicks, next_click
from cfrseg_training.loop.trainer import Trainer
from cfrseg_training.loop.training_step import (
    RoundsConfig,
    clicks_to_reach,
    feedback_loss,
    mask_iou,
    normalized_focal_loss,
)
from napari_cfrseg.model.cfrnet import CfrNet, CfrNetConfig

PLAIN = WindowRecipe(
    zoomed=1.0, zoomed_extent=(0.5, 0.5), shift=0.0, stretch=1.0001, rotate=False
)


def disks_image(seed=0, size=96):
    """Bright disks of several sizes on noise, (Y, X, 3) uint8 and labels."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((size, size), np.int32)
    ys, xs = np.mgrid[:size, :size]
    for number, (y, x, r) in enumerate(((22, 24, 9), (60, 30, 14), (50, 74, 12)), 1):
        labels[(ys - y) ** 2 + (xs - x) ** 2 <= r**2] = number
    image = rng.integers(0, 50, (size, size, 1)) + 150 * (labels > 0)[..., None]
    return np.repeat(image, 3, axis=2).astype(np.uint8), labels


def sample(seed=0, **kwargs):
    image, labels = disks_image(seed)
    return Sample(image, labels, "disks", f"group {seed}", **kwargs)


def small_network():
    torch.manual_seed(0)
    shape = CfrNetConfig(
        widths=(16, 24, 32, 32), feedback_width=8, head_width=16, grid_size=64
    )
    return CfrNet(shape)


def test_window_shows_the_object_where_its_mask_is():
    atlas = Atlas([sample()])
    generator = torch.Generator().manual_seed(1)
    batch = atlas.draw(24, 64, generator, PLAIN)
    inside = batch.image[:, :1][batch.mask > 0.5]
    outside = batch.image[:, :1][(batch.mask < 0.5) & ~batch.others & batch.valid]
    assert inside.median() > 0.55
    assert outside.median() < 0.25
    # a disk that fills half the side fills π/16 of the window
    assert batch.mask.mean(dim=(1, 2, 3)).sub(np.pi / 16).abs().max() < 0.03


@pytest.mark.parametrize("recipe", [PLAIN, WindowRecipe()])
def test_first_click_lies_in_the_object(recipe):
    atlas = Atlas([sample()])
    batch = atlas.draw(64, 64, torch.Generator().manual_seed(2), recipe)
    for mask, click in zip(batch.mask, batch.first_click.round().long(), strict=True):
        y, x = click.tolist()
        if not (0 <= y < 64 and 0 <= x < 64):
            continue
        near = mask[0, max(0, y - 3) : y + 4, max(0, x - 3) : x + 4]
        assert near.max() == 1


def test_pixels_beyond_the_plane_and_unlabelled_ones_of_sparse_sets_are_unknown():
    generator = torch.Generator().manual_seed(3)
    wide = WindowRecipe(zoomed=1.0, zoomed_extent=(0.1, 0.1), rotate=False)
    full = Atlas([sample()]).draw(8, 64, generator, wide)
    assert not full.valid.all()
    sparse = Atlas([sample(is_sparse=True)]).draw(8, 64, generator, wide)
    assert sparse.valid.float().mean() < 0.5 * full.valid.float().mean()
    assert sparse.valid[sparse.mask > 0.5].all()


def test_atlas_without_objects_says_so():
    image, labels = disks_image()
    with pytest.raises(ValueError, match="no object of 30 px"):
        Atlas([Sample(image, labels * 0, "empty", "0")])


def test_depth_is_the_chessboard_distance_to_the_outside():
    region = torch.zeros(1, 1, 20, 30, dtype=torch.bool)
    region[0, 0, 3:14, 0:22] = True
    padded = np.pad(region[0, 0].numpy(), 1)
    expected = ndimage.distance_transform_cdt(padded, "chessboard")[1:-1, 1:-1]
    np.testing.assert_array_equal(depth(region)[0, 0].numpy(), expected)


def test_next_click_falls_in_the_larger_error_and_has_its_sign():
    truth = torch.zeros(2, 1, 64, 64)
    truth[:, :, 10:40, 10:40] = 1
    mask = truth.clone()
    mask[0, :, 10:40, 10:24] = 0  # missed
    mask[1, :, 45:60, 45:60] = 1  # excess
    known = torch.ones_like(truth) > 0
    yx, positive, present = next_click(mask, truth, known, None)
    assert positive.tolist() == [True, False]
    assert present.all()
    assert 10 <= yx[0, 1] < 24
    assert (yx[1] >= 45).all()
    assert (yx[1] < 60).all()
    assert not next_click(truth, truth, known, None)[2].any()


def test_initial_clicks_lie_on_their_side():
    atlas = Atlas([sample()])
    generator = torch.Generator().manual_seed(4)
    batch = atlas.draw(64, 64, generator, PLAIN)
    clicks = initial_clicks(batch, generator, extra=1.0)
    assert clicks.used[:, 1].max() > 0
    for index in range(64):
        for slot, (y, x, order) in enumerate(clicks.points[index].tolist()):
            if order < 0:
                continue
            pixel = batch.mask[index, 0, round(y), round(x)]
            assert bool(pixel > 0.5) == (slot < clicks.slots)


def test_perfect_mask_has_a_smaller_loss_than_a_shifted_one_and_ignores_the_unknown():
    truth = torch.zeros(1, 1, 32, 32)
    truth[:, :, 8:20, 8:20] = 1
    good, bad = 8 * truth - 4, 8 * truth.roll(4, 3) - 4
    assert normalized_focal_loss(good, truth) < normalized_focal_loss(bad, truth)
    known = (truth.roll(4, 3) == truth).bool()
    hidden = normalized_focal_loss(bad, truth, known)
    torch.testing.assert_close(hidden, normalized_focal_loss(good, truth, known))


def test_feedback_loss_of_the_truth_is_nearly_nothing():
    truth = torch.zeros(1, 1, 32, 32)
    truth[:, :, 8:20, 8:20] = 1
    known = torch.ones_like(truth) > 0
    quarter = torch.nn.functional.avg_pool2d(truth, 4)
    assert feedback_loss(quarter, truth, known) < 1e-3
    assert feedback_loss(1 - quarter, truth, known) > 1


def test_a_photometric_recipe_of_no_strength_changes_nothing():
    image = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(0)
    half = PhotometricRecipe().scaled(0.5)
    assert half.contrast == PhotometricRecipe().contrast / 2
    still = vary(image, generator, PhotometricRecipe().scaled(0.0))
    torch.testing.assert_close(still, image, atol=1e-4, rtol=0)


def test_photometry_keeps_range_and_varies():
    image, _ = disks_image()
    batch = torch.from_numpy(image).permute(2, 0, 1)[None].float().div(255)
    out = vary(batch.repeat(16, 1, 1, 1), torch.Generator().manual_seed(5))
    assert out.min() >= 0
    assert out.max() <= 1
    assert out.mean(dim=(1, 2, 3)).std() > 0.02


def train(path, steps, stop_after_s=None, clock=None, **changes):
    config = TrainConfig(
        steps=steps,
        batch=4,
        learning_rate=3e-3,
        warmup_steps=5,
        ema=0.9,
        stop_after_s=stop_after_s,
        windows=PLAIN,
        rounds=RoundsConfig(started=0.0),
        **changes,
    )
    extra = {} if clock is None else {"clock": clock}
    trainer = Trainer(small_network(), Atlas([sample()]), config, path, **extra)
    trainer.run()
    return trainer


def test_a_stopped_and_resumed_run_equals_the_uninterrupted_one(tmp_path):
    whole = train(tmp_path / "whole.pt", 6)
    ticks = iter(range(10_000))
    stopped = train(tmp_path / "parts.pt", 6, stop_after_s=4, clock=lambda: next(ticks))
    assert 0 < stopped.step < 6
    resumed = train(tmp_path / "parts.pt", 6)
    assert resumed.step == whole.step == 6
    kept = resumed.network.state_dict()
    for key, value in whole.network.state_dict().items():
        torch.testing.assert_close(kept[key], value, rtol=0, atol=0, msg=key)


def test_network_learns_three_disks(tmp_path):
    trainer = train(tmp_path / "disks.pt", 90)
    batch = trainer.atlas.draw(6, 64, torch.Generator().manual_seed(9), PLAIN)
    reached = clicks_to_reach(trainer.average.network, batch, rounds=3)
    untrained = clicks_to_reach(small_network().eval(), batch, rounds=3)
    assert reached[:, -1].mean() > 0.8
    assert reached[:, -1].mean() > untrained[:, -1].mean() + 0.3


def test_mask_iou_counts_known_pixels_and_two_empty_masks_as_equal():
    truth = torch.zeros(2, 1, 4, 4)
    truth[0, 0, :2] = 1
    mask = truth > 0.5
    mask[0, 0, 3] = True
    known = torch.ones_like(mask)
    torch.testing.assert_close(
        mask_iou(mask, truth, known), torch.tensor([8 / 12, 1.0])
    )
    known[0, 0, 3] = False
    assert mask_iou(mask, truth, known)[0] == 1
