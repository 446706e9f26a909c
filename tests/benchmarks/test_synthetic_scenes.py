"""Made-up scenes: labels that fit what is drawn, and the same ones for one seed."""

import numpy as np
import pytest
from synthetic_scenes import KINDS, SceneRecipe, cut_textures, scene, scenes, shape

from cfrseg_training.loop.atlas import Sample

FLAT = [np.full((96, 96, 3), 100, np.uint8)]


def _labelled() -> Sample:
    labels = np.zeros((200, 200), np.int32)
    labels[:60, :60] = 1
    image = np.random.default_rng(0).integers(0, 255, (200, 200, 3)).astype(np.uint8)
    return Sample(image, labels, "set", "group")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_shape_has_about_its_size(kind: str) -> None:
    rng = np.random.default_rng(1)
    areas = [shape(kind, 20.0, rng).sum() for _ in range(10)]
    assert 0.1 < np.mean(areas) / (np.pi * 20**2) < 2.5


def test_textures_are_cut_where_nothing_is_labelled() -> None:
    sample = _labelled()
    sample.image[:60, :60] = 255
    sample.image[60:, 60:] = sample.image[60:, 60:] // 2
    cut = cut_textures([sample], np.random.default_rng(0), 5)
    assert cut
    assert all((c == 255).all(axis=2).mean() < 0.05 for c in cut)


def test_a_scene_has_objects_whose_borders_show() -> None:
    rng = np.random.default_rng(3)
    recipe = SceneRecipe(side=128, radius_px=(12, 20))
    steps = []
    for _ in range(6):
        image, labels = scene(FLAT, rng, recipe)
        assert image.shape == (128, 128, 3)
        assert labels.shape == (128, 128)
        assert labels.any()
        grey = image.mean(axis=2)
        border = labels[:, 1:] != labels[:, :-1]
        step = np.abs(np.diff(grey, axis=1))
        steps.append(step[border].mean() / (step[~border].mean() + 1e-3))
    assert np.median(steps) > 2


def test_the_same_seed_makes_the_same_scenes() -> None:
    first, again = (
        scenes([_labelled()], 2, seed=5, recipe=SceneRecipe(side=64)) for _ in range(2)
    )
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.image, other.image)
        np.testing.assert_array_equal(one.labels, other.labels)


def test_without_free_background_there_is_nothing_to_cut() -> None:
    full = Sample(
        np.zeros((100, 100, 3), np.uint8), np.ones((100, 100), np.int32), "s", "g"
    )
    with pytest.raises(ValueError, match="free of objects"):
        scenes([full], 1)
