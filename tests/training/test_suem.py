"""Properties of every copy-paste, for any windows."""

from __future__ import annotations

import pytest
import torch

from cfrseg_training.loop.augmentation import (
    Scene,
    SuemRecipe,
    exclusion,
    match_intensity,
    recombine,
    union,
)


def scenes(seed, count=6):
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(count, 3, 24, 24, generator=generator)
    mask = torch.zeros(count, 1, 24, 24)
    for index in range(count):
        y, x = torch.randint(0, 12, (2,), generator=generator).tolist()
        mask[index, :, y : y + 10, x : x + 10] = 1
    return Scene(image, mask)


def test_union_and_exclusion_partition_the_pasted_object():
    source, extra = scenes(0), scenes(1)
    both, rest = union(source, extra).mask, exclusion(source, extra).mask
    torch.testing.assert_close(both - rest, extra.mask)


def test_matched_objects_have_the_brightness_of_where_they_land():
    dark = Scene(scenes(0).image * 0.2, scenes(0).mask)
    bright = Scene(0.6 + 0.3 * scenes(1).image, scenes(1).mask)
    made = match_intensity(bright, dark)
    inside = made.image[(bright.mask > 0.5).expand_as(made.image)]
    wanted = dark.image[(dark.mask > 0.5).expand_as(dark.image)]
    assert abs(inside.mean() - wanted.mean()) < 0.02
    outside = (bright.mask < 0.5).expand_as(made.image)
    torch.testing.assert_close(made.image[outside], bright.image[outside])


def test_recombination_follows_its_generator_and_keeps_ranges():
    source = scenes(0)

    def run(seed):
        counter = iter(range(100, 200))
        generator = torch.Generator().manual_seed(seed)
        return recombine(source, lambda: scenes(next(counter)), generator)

    first, again, other = run(3), run(3), run(4)
    torch.testing.assert_close(first.image, again.image, rtol=0, atol=0)
    assert not torch.equal(first.image, other.image)
    assert set(first.mask.unique().tolist()) <= {0.0, 1.0}
    assert first.image.min() >= 0
    assert first.image.max() <= 1
    assert (first.mask.sum(dim=(1, 2, 3)) > 0).all()


def test_nothing_happens_at_probability_zero():
    source = scenes(0)
    recipe = SuemRecipe(paste=0, combine=0, mix=0)
    made = recombine(source, lambda: scenes(1), torch.Generator(), recipe)
    torch.testing.assert_close(made.image, source.image, rtol=0, atol=0)


def test_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="no such mode: swirl"):
        SuemRecipe(combinations=("swirl",))
