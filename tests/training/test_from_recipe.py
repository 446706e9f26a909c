"""``cfrseg-train --recipe``: a paper's training on one's own images."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from typer.testing import CliRunner

from cfrseg_training.command import app
from cfrseg_training.loop.atlas import Sample
from cfrseg_training.papers.recipe import Recipe, find_recipe, shipped_recipes
from cfrseg_training.papers.recipe_training import RecipeTrainer, start_network
from cfrseg_training.papers.recipe_windows import RecipeWindows, crop_map, jitter
from napari_cfrseg.errors import CheckpointError, DatasetError, TrainingError
from napari_cfrseg.io.atomic import temporary_beside
from napari_cfrseg.model import registry
from napari_cfrseg.model import weights_file as checkpoint

HRNET = {"family": "hrnet", "width": 4, "ocr_width": 8, "grid_size": 48}


def picture(height: int = 90, width: int = 120) -> Sample:
    """Grey grows down, red to the right; two objects of 600 px, a third of 25."""
    y, x = np.mgrid[:height, :width]
    image = np.stack([x * 2, y * 2, y * 0 + 60], axis=-1).astype(np.uint8)
    labels = np.zeros((height, width), np.int32)
    labels[10:30, 15:45] = 3
    labels[50:80, 70:90] = 7
    labels[60:65, 20:25] = 9
    image[labels > 0] += 10
    return Sample(image, labels, "own", "one")


def recipe(name: str = "fcfi_hrnet_cocolvis", **changes: dict[str, object]) -> Recipe:
    """A shipped recipe for small images; ``table={key: value}`` changes more."""
    read = find_recipe(name)
    small = {
        "data": {"smallest_object": 100, "batch": 2, "epoch_length": 4, "epochs": 2},
        "augmentation": {"crop": (48, 64)},
    }
    for table in small.keys() | changes.keys():
        keys = {**small.get(table, {}), **changes.get(table, {})}
        read = replace(read, **{table: replace(getattr(read, table), **keys)})
    return read


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_shipped_recipes_are_found_by_name() -> None:
    assert len(shipped_recipes()) == 6
    assert find_recipe("fcfi_r101_sbd").network.name == "fcfi_r101"
    with pytest.raises(DatasetError, match="there are cfr_icl_vit_base_cocolvis"):
        find_recipe("ritm")


def test_a_crop_shows_the_image_where_its_map_says() -> None:
    plain = recipe(
        augmentation={"resize": (1.0, 1.0), "flip_share": 0.0, "jitter_share": 0.0}
    )
    windows = RecipeWindows([picture()], plain)
    batch = windows.draw(6, generator())
    assert batch.image.shape == (6, 3, 48, 64)
    for image, mask in zip(batch.image, batch.mask, strict=True):
        background = (mask[0] == 0) & (image[2] < 61 / 255)
        steps = image[0, :, 1:] - image[0, :, :-1]
        both = background[:, 1:] & background[:, :-1]
        assert steps[both].numpy() == pytest.approx(2 / 255, abs=1e-4)
    areas = batch.mask.sum(dim=(1, 2, 3))
    assert (areas >= 100).all()
    assert (areas <= 1200).all()


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_crops_stay_inside_and_their_scale_is_drawn(name: str) -> None:
    part = find_recipe(name).augmentation
    drawn = [crop_map((900, 1400), part, generator(seed)) for seed in range(200)]
    scales = np.array([float(torch.linalg.det(m).abs()) ** -0.5 for m, _ in drawn])
    assert scales.min() >= part.resize[0] - 1e-4
    assert scales.max() <= part.resize[1] + 1e-4
    assert np.ptp(scales) > 0.8 * (part.resize[1] - part.resize[0])
    half = torch.tensor(part.crop, dtype=torch.float32) / 2
    slack = 2 * (part.shift + part.rotate_degrees / 60) * 1400 + 1
    for matrix, centre in drawn:
        corner = matrix.abs() @ half
        assert (centre - corner > -slack).all()
        assert (centre + corner < torch.tensor([900.0, 1400.0]) + slack).all()
    mirrored = np.mean([float(torch.linalg.det(m)) < 0 for m, _ in drawn])
    one_axis = np.mean([len(axes) == 1 for axes in part.flip_axes])
    assert mirrored == pytest.approx(part.flip_share * one_axis, abs=0.12)


def test_small_objects_are_no_targets_and_two_may_count_as_one() -> None:
    whole = {"crop": (90, 120), "resize": (1.0, 1.0), "flip_share": 0.0}
    alone = recipe(augmentation=whole, clicks={"merge_two_objects": 0.0})
    batch = RecipeWindows([picture()], alone).draw(20, generator())
    assert set(batch.mask.sum(dim=(1, 2, 3)).tolist()) == {600.0}
    assert set(batch.others.sum(dim=(1, 2, 3)).tolist()) == {625.0}
    merged = recipe(augmentation=whole, clicks={"merge_two_objects": 1.0})
    batch = RecipeWindows([picture()], merged).draw(3, generator())
    assert set(batch.mask.sum(dim=(1, 2, 3)).tolist()) == {1200.0}


def test_unknown_pixels_stay_unknown() -> None:
    whole = {"crop": (90, 120), "resize": (1.0, 1.0), "flip_share": 0.0}
    sparse = replace(picture(), is_sparse=True)
    batch = RecipeWindows([sparse], recipe(augmentation=whole)).draw(1, generator())
    assert int(batch.valid.sum()) == 1225
    ignore = np.zeros((90, 120), bool)
    ignore[:5] = True
    partly = replace(picture(), ignore=ignore)
    batch = RecipeWindows([partly], recipe(augmentation=whole)).draw(1, generator())
    assert int((~batch.valid).sum()) == 5 * 120


def test_images_without_large_objects_are_refused() -> None:
    wanted = recipe(data={"smallest_object": 5000, "empty_share": 0.0})
    with pytest.raises(ValueError, match="no object of 5000 pixels"):
        RecipeWindows([picture()], wanted).draw(1, generator())


def test_jitter_keeps_to_its_ranges() -> None:
    part = recipe().augmentation
    grey = torch.full((400, 3, 2, 2), 0.5)
    varied = jitter(grey, part, generator())
    kept = (varied == grey).all(dim=(1, 2, 3)).float().mean()
    assert float(kept) == pytest.approx((1 - part.jitter_share) ** 2, abs=0.05)
    low = 0.5 * (1 + part.contrast[0]) + part.brightness[0] - part.rgb_shift / 255
    high = 0.5 * (1 + part.contrast[1]) + part.brightness[1] + part.rgb_shift / 255
    assert float(varied.min()) >= low
    assert float(varied.max()) <= high


def test_suem_is_read() -> None:
    suem = find_recipe("cfr_icl_vit_base_sbd").suem
    assert suem.combinations == ("union", "exclusion", "mix_object")
    assert not suem.matched


def trainer(state: Path | None, read: Recipe) -> RecipeTrainer:
    torch.manual_seed(0)
    windows = RecipeWindows([picture()], read)
    return RecipeTrainer(registry.build(HRNET), windows, state)


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path: Path) -> None:
    suem = {"paste": 0.5, "combine": 0.5, "combinations": ("union", "exclusion")}
    read = recipe(
        suem=suem,
        optimiser={"scale": {}},
        data={"accumulate": 2},
        schedule={"milestones": (1,)},
    )
    whole = trainer(None, read)
    whole.run()
    assert (whole.epoch, whole.steps) == (2, 2)
    assert whole.optimiser.param_groups[0]["lr"] == pytest.approx(5e-5)
    first = trainer(tmp_path / "state.pt", read)
    first.run(epochs=1)
    second = trainer(tmp_path / "state.pt", read)
    second.run()
    pairs = zip(whole.network.parameters(), second.network.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_one_error_and_the_state_before_it_is_whole(
    tmp_path: Path,
) -> None:
    state = tmp_path / "state.pt"
    read = recipe(optimiser={"scale": {}})
    trainer(state, read).run(epochs=1)
    before = state.read_bytes()
    second = trainer(state, read)
    temporary_beside(state).symlink_to("/dev/full")
    with pytest.raises(TrainingError, match=r"make room .* state before it is whole"):
        second.save()
    assert state.read_bytes() == before


def test_the_start_must_be_the_recipes_network(tmp_path: Path, random_model) -> None:
    read = find_recipe("cfr_icl_vit_base_sbd")
    with pytest.raises(CheckpointError, match="--base random"):
        start_network(read)
    with pytest.raises(CheckpointError, match="is no simpleclick_vit_base"):
        start_network(read, str(random_model))


def test_the_command_trains_by_a_recipe_file(tmp_path: Path) -> None:
    sample = picture()
    for part, array in (("images", sample.image), ("labels", sample.labels)):
        (tmp_path / part).mkdir()
        tifffile.imwrite(tmp_path / part / "one.tif", array)
    text = shipped_recipes()["fcfi_hrnet_cocolvis"].read_text()
    for old, new in (
        ('name = "fcfi_hrnet18"', 'name = "ritm_hrnet18s"'),
        ("crop = [320, 480]", "crop = [48, 64]"),
        ("epochs = 230", "epochs = 1"),
        ("epoch_length = 30000", "epoch_length = 2"),
        ("batch = 64", "batch = 2"),
        ("smallest_object = 1000", "smallest_object = 100"),
        ("ffcm = 0.1", "# ffcm = 0.1"),
        ("cffm = 0.1", "# cffm = 0.1"),
    ):
        assert old in text
        text = text.replace(old, new)
    path = tmp_path / "mine.toml"
    path.write_text(text)
    output = tmp_path / "mine.safetensors"
    arguments = [tmp_path, "--recipe", path, "--base", "random", "-o", output, "--json"]
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout.splitlines()[-1])
    assert (report["epochs"], report["steps"]) == (1, 1)
    network, metadata = checkpoint.load(output)
    assert registry.name_of(network.architecture()) == "ritm_hrnet18s"
    assert metadata.training_data[0] == "recipe mine, started from random"
    assert not output.with_suffix(".state.pt").exists()
