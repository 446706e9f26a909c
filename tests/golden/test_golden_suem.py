"""The published copy-paste modes, one example each."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from golden_rule import found

from cfrseg_training.loop import augmentation as suem

pytestmark = pytest.mark.golden
ROUNDING = 1.01 / 255


@pytest.fixture(scope="module")
def data():
    paths = found("suem/suem.npz")
    if not paths:
        pytest.skip("no golden suem/suem.npz")
    with np.load(paths[0]) as file:
        return {key: file[key] for key in file.files}


def scene(data, name, mask=None):
    image = torch.from_numpy(data[f"{name}_image"]).permute(2, 0, 1)[None].float() / 255
    if mask is None:
        mask = data[f"{name}_mask"]
    return suem.Scene(image, (torch.from_numpy(mask)[None, None] > 0).float())


def scenes(data):
    source, extra, other = (scene(data, name) for name in ("src", "ext", "ext2"))
    pixels = torch.from_numpy(data["mix_image"]).permute(2, 0, 1)[None].float() / 255
    return source, extra, other, suem.Scene(pixels, torch.zeros_like(source.mask))


def check(made, data, tag):
    expected = scene(data, tag)
    torch.testing.assert_close(made.image, expected.image, rtol=0, atol=ROUNDING)
    torch.testing.assert_close(made.mask, expected.mask, rtol=0, atol=0)


@pytest.mark.parametrize("alpha", [0.7, 1.0])
def test_simple(data, alpha):
    source, extra, _, _ = scenes(data)
    made = suem.simple(source, extra, alpha)
    check(made, data, f"S_simple_copy_paste_alpha{alpha}")


def test_exclusion_and_union(data):
    source, extra, _, _ = scenes(data)
    check(suem.exclusion(source, extra), data, "E_exclusion")
    check(suem.union(source, extra), data, "U_union")


def test_object_mixing(data):
    source, extra, _, _ = scenes(data)
    check(suem.mix_object(source, extra, 0.7), data, "objmix_choice2_alpha0.7")


def test_mixing(data):
    source, _, _, mix = scenes(data)
    check(suem.mixing(source, mix, 0.8), data, "M_image_mixing_alpha0.8")


def test_the_three_steps_in_turn(data):
    source, extra, other, mix = scenes(data)
    made = suem.exclusion(suem.simple(source, extra, 0.7), other)
    check(suem.mixing(made, mix, 0.8), data, "S_then_E_then_M")


def test_a_fully_covered_source_is_left_alone(data):
    source = scene(data, "src")
    cover = suem.Scene(scene(data, "ext").image, torch.ones_like(source.mask))
    assert not suem.leaves_enough(source, cover).any()
    check(source, data, "E_fully_covered_retry5")
    recipe = suem.SuemRecipe(paste=0, combine=1, mix=0)
    generator = torch.Generator().manual_seed(0)
    made = suem.recombine(source, lambda: cover, generator, recipe)
    check(made, data, "E_fully_covered_retry5")
