"""OpenVINO computes what torch computes, or torch does."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from similarity import SimilarityNetwork

from napari_cfrseg import Segmenter, load_sample
from napari_cfrseg.engine.backends import choose, prepare
from napari_cfrseg.errors import DeviceError
from napari_cfrseg.model.cfrnet import CfrNet, CfrNetConfig

needs_openvino = pytest.mark.skipif(
    find_spec("openvino") is None, reason="needs the extra fast"
)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="module")
def small() -> CfrNet:
    torch.manual_seed(0)
    config = CfrNetConfig(widths=(16, 16, 16, 16), feedback_width=8, grid_size=64)
    return CfrNet(config).eval().requires_grad_(False)


def test_torch_computes_where_openvino_cannot() -> None:
    network = SimilarityNetwork().eval()
    assert choose(network, network, "torch", CPU, half=None).reason == "as asked for"
    chosen = choose(network, network, "auto", CPU, half=None)
    assert chosen.name.startswith("torch")
    assert chosen.network is network
    assert not prepare(network)
    with pytest.raises(DeviceError, match="OpenVINO cannot be used"):
        choose(network, network, "openvino", CPU, half=None)
    with pytest.raises(ValueError, match="expected auto, torch or openvino"):
        choose(network, network, "onnx", CPU, half=None)  # type: ignore[arg-type]


def test_a_gpu_is_left_to_torch(small: CfrNet) -> None:
    chosen = choose(small, small, "auto", torch.device("cuda:0"), half=None)
    assert (chosen.network, chosen.reason) == (small, "cuda:0 computes")


@needs_openvino
def test_it_is_used_after_it_was_prepared(small: CfrNet, cache: Path) -> None:
    fast = small.for_inference()
    before = choose(small, fast, "auto", CPU, half=None)
    assert before.network is fast
    assert before.can_prepare
    assert "not prepared" in before.reason
    assert prepare(small)
    assert len(list((cache / "napari-cfrseg" / "openvino").iterdir())) == 1
    after = choose(small, fast, "auto", CPU, half=None)
    assert "in a trial" in after.reason
    assert not after.can_prepare
    # other weights are another network
    other = CfrNet(small.config).eval().requires_grad_(False)
    assert choose(other, other.for_inference(), "auto", CPU, half=None).can_prepare


def test_segmenters_of_one_file_share_what_computes() -> None:
    one, two = (Segmenter.load("default", device="cpu") for _ in range(2))
    computing = one._stages.backend.network
    assert two._stages.backend.network is computing
    assert two.network is not one.network  # a caller may train its own
    two.network.light_parameters()[0].data.zero_()
    image = load_sample("powder_sem").image
    masks = []
    for segmenter in (one, two, Segmenter(one.network, device="cpu")):
        segmenter.set_image(image)
        masks.append(segmenter.predict([(120, 88)]).mask)
    assert np.array_equal(masks[0], masks[1])
    assert np.array_equal(masks[0], masks[2])
    gone = weakref.ref(computing)
    del one, two, computing, segmenter
    gc.collect()
    assert gone() is None


@needs_openvino
def test_a_trial_is_made_once_for_the_same_weights(small: CfrNet, cache: Path) -> None:
    prepare(small)
    fast = small.for_inference()
    first, again = (
        choose(small, fast, "auto", CPU, half=None, origin="a file") for _ in range(2)
    )
    assert first == again
    asked = choose(small, fast, "openvino", CPU, half=None, origin="a file")
    if first.name.startswith("OpenVINO"):
        assert asked.network is first.network
    other = choose(small, fast, "openvino", CPU, half=None).network
    assert other is not asked.network


@needs_openvino
def test_batches_and_other_grids_are_left_to_torch(small: CfrNet, cache: Path) -> None:
    fast = small.for_inference()
    other = choose(small, fast, "openvino", CPU, half=None).network
    assert other is not fast
    newest = torch.tensor([[20.0, 20.0, 1.0]])
    points = torch.tensor([[[20.0, 20.0, 0.0], [-1.0, -1.0, -1.0]]])
    generator = torch.Generator().manual_seed(2)
    for batch, side in ((1, 64), (3, 64), (1, 96), (1, 80)):
        image = torch.rand(batch, 3, side, side, generator=generator)
        mask = torch.rand(batch, 1, side, side, generator=generator)
        both = points.expand(batch, -1, -1), newest.expand(batch, -1)
        for feedback in (None, mask):
            with torch.inference_mode():
                expected = fast(image, both[0], feedback, both[1])
                got = other(image, both[0], feedback, both[1])
                torch.testing.assert_close(
                    got.logits, expected.logits, rtol=1e-3, atol=1e-3
                )
                torch.testing.assert_close(
                    other.judge(got), fast.judge(expected), rtol=1e-3, atol=1e-3
                )


@needs_openvino
def test_a_broken_file_is_no_reason_to_stop(small: CfrNet, cache: Path) -> None:
    fast = small.for_inference()
    assert prepare(small)
    (folder,) = (cache / "napari-cfrseg" / "openvino").iterdir()
    (folder / "join.xml").write_text("<net/>")
    broken = choose(small, fast, "auto", CPU, half=None)
    assert broken.network is fast
    assert "OpenVINO failed" in broken.reason
    with pytest.raises(DeviceError, match="OpenVINO failed"):
        choose(small, fast, "openvino", CPU, half=None)


@needs_openvino
@pytest.mark.slow
def test_masks_of_the_default_model_are_torchs() -> None:
    sample = load_sample("powder_sem")
    masks = []
    for backend in ("torch", "openvino"):
        segmenter = Segmenter.load("default", device="cpu", backend=backend)  # type: ignore[arg-type]
        segmenter.set_image(sample.image)
        first = segmenter.predict([(120, 88)])
        masks += [first.mask, segmenter.predict([(120, 88), (130, 95)]).mask]
    for one, other in zip(masks[:2], masks[2:], strict=True):
        union = np.logical_or(one, other).sum()
        assert np.logical_and(one, other).sum() >= 0.999 * union
