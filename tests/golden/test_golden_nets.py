"""The papers' networks against numbers of the published code.

Each network is built from deterministic weights through the import path: the
official state dict is written as a published file, imported, compared, written as
safetensors, read back and compared again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden_rule import found, key_list, official_state
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from napari_cfrseg.model import registry
from napari_cfrseg.model import weights_file as checkpoint
from napari_cfrseg.model.blocks.clickmaps import correction_box
from napari_cfrseg.model.network import ClickNetwork, NetworkOutput
from napari_cfrseg.model.published.import_checkpoint import (
    fill,
    import_published,
    recognise,
    translate,
)
from napari_cfrseg.model.published.vit import PlainViTClicks

pytestmark = pytest.mark.golden

#: golden/README: relative to the range of the expected output
RTOL = 2e-5
FAMILIES = ("ritm", "fcfi", "simpleclick")
NAMES = {
    "ritm_hrnet18s_ocr48": "ritm_hrnet18s",
    "ritm_hrnet18_ocr64": "ritm_hrnet18",
    "ritm_hrnet32_ocr128": "ritm_hrnet32",
    "fcfi_hrnet18_ocr48_mid64": "fcfi_hrnet18",
    "fcfi_hrnet18s_ocr48_mid64": "fcfi_hrnet18s",
    "fcfi_resnet101_deeplabv3p_mid32": "fcfi_r101",
    "simpleclick_vit_xtiny448": "simpleclick_vit_xtiny",
    "simpleclick_vit_base448": "simpleclick_vit_base",
    "simpleclick_vit_large448": "simpleclick_vit_large",
    "simpleclick_vit_huge448": "simpleclick_vit_huge",
}


HUGE = [pytest.mark.slow, pytest.mark.timeout(1800)]


def _cases(pattern: str) -> list[Any]:
    return [
        pytest.param(path, id=path.name, marks=HUGE if "huge" in path.name else [])
        for path in found(pattern)
        if path.name != "fcfi_ffcm_unit.npz"
    ]


def keys_of(npz: Path) -> Path:
    (keys,) = found(f"nets/{npz.stem}.keys.json")
    return keys


class Golden:
    """One ``.npz`` with what its README lets one recompute."""

    def __init__(self, path: Path) -> None:
        self.name = path.stem
        with np.load(path) as data:
            self.arrays = dict(data)
        self.keys = keys_of(path)
        self.said = json.loads(self.keys.read_text())

    def image(self, case: str) -> Tensor:
        stored = self.arrays.get(f"image{case if case in 'C672' else ''}_u8")
        if stored is None:
            seed, side = (202, 672) if case == "672" else (201, 448)
            rng = np.random.default_rng(seed)
            stored = rng.integers(0, 256, (side, side, 3), np.uint8)
        return torch.from_numpy(stored).permute(2, 0, 1)[None].float() / 255

    def feedback(self, case: str) -> Tensor | None:
        if case == "A":
            return None
        stored = self.arrays.get(f"prev_{case}")
        if stored is None:
            stored = previous_mask(*self.image(case).shape[-2:])
        return torch.from_numpy(stored)[None, None]

    def newest(self, case: str) -> Tensor:
        stored = self.arrays.get(f"newpoint_{case}")
        return torch.zeros(1, 3) if stored is None else torch.from_numpy(stored)[:, 0]

    def overrides(self, rule: str) -> dict[str, float]:
        if rule == "rule1":
            return {}
        ritm = {"maps_transform.3.scale": 1.0}
        return dict(self.said.get("rule2_overrides", ritm))

    def check(self, ours: Tensor, key: str) -> None:
        """Compare with one array, relative to its range."""
        expected = self.arrays[key]
        atol = max(RTOL * float(np.ptp(expected)), 4 * self.unsure(key), 1e-6)
        rtol = 0.0
        if "_ocr_" in key:
            # a softmax of logits that are unsure by e is unsure by e, relatively
            stem = key[: key.index("_ocr_")].removesuffix("_conv3x3")
            rtol = 4 * self.unsure(f"{stem}_aux")
            atol = max(atol, 1e-4 * float(np.ptp(expected)))
        np.testing.assert_allclose(
            ours.detach().numpy(), expected, rtol=rtol, atol=atol, err_msg=key
        )

    def unsure(self, key: str) -> float:
        """How far the official float32 output is from float64, where that is known."""
        for name, errors in self.said.items():
            rule = name.removeprefix("fp32_vs_fp64_max_abs").lstrip("_")
            if rule == name:
                continue
            for case, error in errors.items():
                if f"{rule}_{case}".strip("_") in (key, key.removesuffix("_out")):
                    return float(error)
        return 0.0


def previous_mask(height: int, width: int) -> NDArray[np.float32]:
    """golden/README, section 2."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    big = ((y - 0.52 * height) / (0.19 * height)) ** 2
    big += ((x - 0.48 * width) / (0.22 * width)) ** 2
    small = ((y - 0.2 * height) / (0.1 * height)) ** 2
    small += ((x - 0.8 * width) / (0.1 * width)) ** 2
    mask = 0.95 * np.exp(-big) + 0.30 * np.exp(-small)
    return np.clip(mask, 0, 1).astype(np.float32)


def run(
    network: ClickNetwork, golden: Golden, case: str, gate: float | None = None
) -> NetworkOutput:
    """One forward in the three stages."""
    points = torch.from_numpy(golden.arrays[f"points_{case}"])
    with torch.no_grad():
        features = network.embed_clicks(network.embed_image(golden.image(case)), points)
        extra = {} if gate is None else {"gate": torch.full((1, 1, 1, 1), gate)}
        return network.refine(
            features, golden.feedback(case), golden.newest(case), **extra
        )


def imported(golden: Golden, rule: str, folder: Path) -> ClickNetwork:
    """Write the official layout, import it."""
    path = folder / f"{golden.name}.pth"
    state = official_state(golden.keys, golden.overrides(rule))
    config = {"class": "isegm.model.Published", "params": {"width": 18}}
    torch.save({"state_dict": state, "config": config}, path)
    del state
    network, recognised = import_published(path)
    path.unlink()
    assert recognised.name == NAMES.get(golden.name, recognised.name)
    return network


def check_outputs(network: ClickNetwork, golden: Golden, rule: str) -> int:
    """Compare every output of a rule; return how many there were."""
    prefix = "" if golden.name.startswith("simpleclick") else f"{rule}_"
    suffix = "_out" if golden.name.startswith("fcfi") else ""
    checked = 0
    for case, soft in (("A", False), ("B", False), ("C", False), ("B", True)):
        key = f"{prefix}{case}{'train' * soft}"
        if f"{key}{suffix}" not in golden.arrays:
            continue
        if soft:
            network.ffcm.training = True  # the soft box, normalisation as trained
        output = run(network, golden, case)
        if soft:
            network.ffcm.training = False
        golden.check(output.logits, f"{key}{suffix}")
        for name, value in extra_outputs(output, aligned="deeplab" not in golden.name):
            if f"{key}_{name}" in golden.arrays:
                golden.check(value(), f"{key}_{name}")
        checked += 1
    if f"{prefix}B_gate0_out" in golden.arrays:
        golden.check(run(network, golden, "B", 0.0).logits, f"{prefix}B_gate0_out")
    return checked


def extra_outputs(
    output: NetworkOutput, *, aligned: bool
) -> Iterator[tuple[str, Callable[[], Tensor]]]:
    """Outputs by the fixtures' names; DeepLab's code enlarges M^r without alignment."""
    enlarge = partial(interpolate, size=output.logits.shape[-2:])
    fb1 = partial(enlarge, mode="bilinear", align_corners=aligned)
    yield "aux", lambda: output.auxiliary_logits
    yield "fb1", lambda: fb1(output.corrected)
    yield "fb2", lambda: enlarge(output.updated, mode="bilinear", align_corners=True)
    yield "valid", lambda: enlarge(output.region, mode="nearest")
    yield "Mr", lambda: output.corrected
    yield "Mu", lambda: output.updated
    yield "box_mask", lambda: output.region
    yield "affinity_full", lambda: output.affinity


@pytest.mark.parametrize("path", _cases("nets/*.npz"))
def test_outputs_through_import_and_safetensors(path: Path, tmp_path: Path) -> None:
    golden = Golden(path)
    assert golden.name.startswith(FAMILIES), "a family this project does not have"
    rules = ["rule1"] if golden.name.startswith("simpleclick") else ["rule1", "rule2"]
    checked = 0
    for rule in rules:
        network = imported(golden, rule, tmp_path)
        checked += check_outputs(network, golden, rule)
        if isinstance(network, PlainViTClicks) and "out_672_s2" in golden.arrays:
            check_672(network, golden)
    assert checked
    file = tmp_path / "network.safetensors"
    said = checkpoint.Metadata(network.architecture())
    checkpoint.save(file, network, said, half=False)
    del network  # ViT-H twice would be 5 GiB
    again, _ = checkpoint.load(file)
    file.unlink()
    assert check_outputs(again, golden, rules[-1])


def check_672(network: PlainViTClicks, golden: Golden) -> None:
    grid = 672 // network.config.patch
    position = network.position_map(grid, grid).flatten(2).transpose(1, 2)
    # the stored embedding has the class token's row first, which is not used
    expected = golden.arrays["pos_embed_672_t40"][:, 1:]
    np.testing.assert_allclose(position.detach()[:, 39::40], expected, atol=1e-6)
    check = golden.arrays["image672_seed202_check"]
    image = (golden.image("672")[0].permute(1, 2, 0) * 255).round().byte()
    np.testing.assert_array_equal(image[::84, ::84], check)
    logits = run(network, golden, "672").logits
    golden.check(logits[..., ::2, ::2], "out_672_s2")


@pytest.mark.parametrize("path", _cases("nets/*.npz"))
def test_intermediates(path: Path, tmp_path: Path) -> None:
    golden = Golden(path)
    family = golden.name.partition("_")[0]
    rule = "rule1" if family == "simpleclick" else "rule2"
    network = imported(golden, rule, tmp_path)
    seen: dict[str, Tensor] = {}
    watch = {"ritm": watch_ritm, "fcfi": watch_fcfi, "simpleclick": watch_vit}[family]
    watch(network, seen)
    run(network, golden, "B")
    prefix = "B_" if family == "simpleclick" else "rule2_B_"
    compared = [k for k in seen if f"{prefix}{k}" in golden.arrays]
    assert compared
    for key in compared:
        golden.check(seen[key], f"{prefix}{key}")
    if family == "fcfi":
        check_boxes(network, golden)


def test_backbone_features(tmp_path: Path) -> None:
    files = [p for p in found("nets/ritm*.npz") if "rule1_B_hrnet_feats" in np.load(p)]
    if not files:
        pytest.skip("no backbone features in the golden folder")
    for path in files:
        golden = Golden(path)
        network = imported(golden, "rule1", tmp_path)
        seen: dict[str, Tensor] = {}
        spy(network.backbone, "body", seen, lambda out: {"feats": out})
        run(network, golden, "B")
        golden.check(seen["feats"], "rule1_B_hrnet_feats")


def spy(owner: Any, method: str, seen: dict[str, Tensor], take: Any) -> None:
    """Note what a method returned (and, by ``take``'s choice, was given)."""
    original = getattr(owner, method)

    def noting(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        seen.update(take(result))
        return result

    object.__setattr__(owner, method, noting)


def hook(module: Any, seen: dict[str, Tensor], name: str, take: Any) -> None:
    module.register_forward_hook(lambda _m, _i, out: seen.update({name: take(out)}))


def watch_ritm(network: Any, seen: dict[str, Tensor]) -> None:
    every4 = partial(every, step=4)
    hook(network.click_stem, seen, "maps_transform", every4)
    hook(network.backbone.layer1, seen, "layer1_c8", partial(every, step=8))
    hook(network.ocr.conv3x3, seen, "conv3x3_ocr_c4", every4)
    spy(network.ocr, "gather", seen, lambda out: {"ocr_gather": out})
    spy(network.ocr, "distribute", seen, lambda out: {"ocr_distri_c4": every4(out)})


def every(x: Tensor, step: int) -> Tensor:
    return x[:, ::step]


def watch_fcfi(network: Any, seen: dict[str, Tensor]) -> None:
    ffcm, cffm = network.ffcm, network.cffm
    spy(cffm, "prepare", seen, lambda state: {"feat_before_ffcm": state.features})
    spy(ffcm, "encode", seen, lambda out: {"ffcm_features_c4": out[:, ::4]})
    spy(cffm, "residual", seen, lambda out: {"residual": out})
    spy(cffm, "fuse", seen, lambda out: {"Fu_c4": out[0][:, ::4], "Mu": out[1]})
    spy(
        ffcm,
        "correct",
        seen,
        lambda out: {"Mr": out.corrected, "affinity_full": out.affinity},
    )
    original = ffcm.prepare

    def noting(features: Tensor, context: Tensor) -> Tensor:
        seen["ffcm_input"] = context
        return original(features, context)

    object.__setattr__(ffcm, "prepare", noting)


def check_boxes(network: Any, golden: Golden) -> None:
    """The box and the clicked cell, on both grids."""
    size, cells = (96, 128), (24, 32)
    for case in "AB":
        click = golden.newest(case)
        for grid, key in ((size, "crop_fullres"), (cells, "crop_feat")):
            y0, y1, x0, x1 = correction_box(click, size, grid, network.config.ratio)
            ours = torch.stack([y0, x0, y1, x1], 1).long().numpy()
            stored = golden.arrays[f"rule2_{case}_{key}_y0x0y1x1"]
            np.testing.assert_array_equal(ours, stored)
        output = run(network, golden, case)
        y0, x0, y1, x1 = golden.arrays[f"rule2_{case}_crop_feat_y0x0y1x1"][0]
        crop = output.affinity[..., y0:y1, x0:x1]
        golden.check(crop, f"rule2_{case}_affinity_crop")
    y, x = golden.arrays["rule2_B_point_in_feat"]
    assert output.affinity[0, 0, y, x] == pytest.approx(1, abs=1e-6)
    assert [y - y0, x - x0] == golden.arrays["rule2_B_point_in_crop"].tolist()


def watch_vit(network: Any, seen: dict[str, Tensor]) -> None:
    def tokens(x: Tensor) -> Tensor:
        return x.flatten(2).transpose(1, 2)[:, ::16]

    every16 = partial(every, step=16)
    hook(network.embed_pixels, seen, "patch_embed_t16", tokens)
    hook(network.embed_maps, seen, "patch_embed_coords_t16", tokens)
    hook(network.blocks[0], seen, "block0_windowed_t16", every16)
    first = network.config.global_every - 1
    hook(network.blocks[first], seen, "first_global_block_t16", every16)
    hook(network.blocks[-1], seen, "last_block_t16", every16)
    hook(network.head.classify, seen, "head_logits", lambda x: x)
    for index, (level, step) in enumerate(
        zip((4, 8, 16, 32), (8, 4, 2, 1), strict=True)
    ):
        part = getattr(network.pyramid, f"down_{level}")
        hook(part, seen, f"neck{index}", lambda x, s=step: x[:, ::16, ::s, ::s])


@pytest.mark.parametrize("path", found("nets/*.keys.json"), ids=lambda p: p.name)
def test_key_lists_import_strictly(path: Path) -> None:
    """Every published key has its place, on tensors that take no memory."""
    entries = key_list(path)
    state = {
        key: torch.empty(shape, device="meta", dtype=None if floating else torch.long)
        for key, shape, floating in entries
    }
    recognised = recognise({key: tuple(t.shape) for key, t in state.items()})
    name = path.name.removesuffix(".keys.json")
    assert recognised.name == NAMES.get(name, recognised.name)
    with torch.device("meta"):
        network = registry.build(recognised.architecture)
    fill(network, translate(state, recognised.architecture["family"]))
    said = json.loads(path.read_text())
    unused = sum(
        torch.Size(shape).numel()
        for key, shape, floating in entries
        if floating and is_unused(key)
    )
    row = network.config.dim if isinstance(network, PlainViTClicks) else 0
    ours = sum(p.numel() for p in network.parameters())
    assert ours + unused + row == said["trainable_params"]


def is_unused(key: str) -> bool:
    parts = ("f_pixel", "f_object", "backbone.cls_token", "backbone.fc_norm")
    more = ("backbone.head.", "head.up_conv")
    statistics = key.endswith(("running_mean", "running_var"))
    return not statistics and any(part in key for part in (*parts, *more))


SIBLINGS = {
    "ritm": "ritm_hrnet18s_ocr48",
    "fcfi": "fcfi_hrnet18s_ocr48_mid64",
    "simpleclick": "simpleclick_vit_xtiny448",
}


def _key_only() -> list[Any]:
    with_outputs = {path.stem for path in found("nets/*.npz")}
    paths = [p for p in found("nets/*.keys.json") if _stem(p) not in with_outputs]
    heavy = ("large", "huge")
    return [
        pytest.param(
            p, id=p.name, marks=HUGE if any(h in p.name for h in heavy) else []
        )
        for p in paths
    ]


def _stem(keys: Path) -> str:
    return keys.name.removesuffix(".keys.json")


@pytest.mark.parametrize("keys", _key_only())
def test_networks_without_outputs_have_their_published_range(
    keys: Path, tmp_path: Path
) -> None:
    """Minimum, maximum and spread of the logits, which the key list does give."""
    (sibling,) = found(f"nets/{SIBLINGS[keys.name.partition('_')[0]]}.npz")
    golden = Golden(sibling)  # the same image, clicks and masks
    golden.keys, golden.name = keys, _stem(keys)
    golden.said = json.loads(keys.read_text())
    is_vit = golden.name.startswith("simpleclick")
    for rule in ["rule1"] if is_vit else ["rule1", "rule2"]:
        network = imported(golden, rule, tmp_path)
        ranges = golden.said.get("min_max_std") or golden.said[f"min_max_std_{rule}"]
        for case in "AB":
            key = case if case in ranges else f"{rule}_{case}"
            if f"points_{case}" not in golden.arrays:
                continue
            logits = run(network, golden, case).logits.numpy()
            ours = [logits.min(), logits.max(), logits.std()]
            span = ranges[key][1] - ranges[key][0]
            unsure = max(golden.unsure(f"{rule}_{case}"), RTOL * span)
            np.testing.assert_allclose(ours, ranges[key], rtol=0, atol=4 * unsure)
