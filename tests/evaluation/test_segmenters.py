"""Peers, foreign segmenters and SAM-style predictors behind two methods."""

import sys
import types

import numpy as np
import pytest

from napari_cfrseg.clicks import Click
from napari_cfrseg.errors import CheckpointError
from napari_cfrseg.evaluation import metrics
from napari_cfrseg.evaluation.datasets import AnnotatedPlane, BenchmarkObject
from napari_cfrseg.evaluation.evaluate_objects import (
    RunSettings,
    TakesHint,
    evaluate_object,
)
from napari_cfrseg.evaluation.papers import paper_protocol
from napari_cfrseg.evaluation.peers import BACKGROUND, OBJECT, SamSegmenter, draw_seeds
from napari_cfrseg.evaluation.segmenters import PEERS, SegmenterError, SegmenterSpec


def nucleus(side=120, centre=(70, 50), radius=14):
    ys, xs = np.ogrid[:side, :side]
    truth = (ys - centre[0]) ** 2 + (xs - centre[1]) ** 2 <= radius**2
    rng = np.random.default_rng(0)
    image = np.where(truth, 180, 60) + rng.normal(0, 8, truth.shape)
    return image.clip(0, 255).astype(np.uint8), truth


def build(name):
    if name == "grabcut":
        pytest.importorskip("cv2")
    return SegmenterSpec(name)()


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("kind", ["grey", "rgb", "uint16", "two channels"])
def test_peers_find_a_round_nucleus_with_one_click(name, kind):
    image, truth = nucleus()
    shown = {
        "grey": image,
        "rgb": np.repeat(image[..., None], 3, axis=2),
        "uint16": image.astype(np.uint16) * 37,
        "two channels": np.stack([image, image // 2], axis=2),
    }[kind]
    segmenter = build(name)
    assert isinstance(segmenter, TakesHint)
    segmenter.set_image(shown)
    segmenter.set_hint(29)
    mask = segmenter.predict([Click((70, 50))], None)
    assert mask.dtype == bool
    assert metrics.iou(mask, truth) > 0.9


@pytest.mark.parametrize("name", PEERS)
def test_the_runner_tells_peers_the_size(name):
    image, truth = nucleus(300, (190, 150), 60)
    plane = AnnotatedPlane(image, truth[None].astype(np.uint8))
    item = BenchmarkObject(None, "s", "i", None, 1)
    segmenter = build(name)
    segmenter.set_image(image)
    row = evaluate_object(
        segmenter, plane, item, RunSettings(max_clicks=1, min_clicks=1)
    )
    assert max(row.ious) > 0.85  # a crop of 363 px, shrunk to 256


def test_peers_need_a_positive_click():
    segmenter = build("watershed")
    with pytest.raises(ValueError, match="set_image"):
        segmenter.predict([Click((1, 1))], None)
    segmenter.set_image(nucleus()[0])
    assert not segmenter.predict([Click((1, 1), is_positive=False)], None).any()


def test_later_clicks_win_and_the_rim_is_background():
    clicks = [Click((30, 40)), Click((30, 42), is_positive=False), Click((0, 0))]
    seeds = draw_seeds(clicks, (20, 30), 1.0, (30, 40))
    assert (seeds[0] == BACKGROUND).all()
    assert seeds[10, 8] == OBJECT
    assert seeds[10, 10] == seeds[10, 12] == BACKGROUND
    assert seeds[20, 20] == 0


class FakePredictor:
    """Answers like SAM: a square around the first point, three candidate masks."""

    def __init__(self):
        self.calls = []

    def set_image(self, image):
        assert image.dtype == np.uint8
        assert image.ndim == 3
        self.shape = image.shape[:2]

    def predict(self, *, point_coords, point_labels, mask_input, multimask_output):
        self.calls.append((point_coords, point_labels, mask_input, multimask_output))
        x, y = point_coords[0].astype(int)
        masks = np.zeros((3 if multimask_output else 1, *self.shape), bool)
        for i, mask in enumerate(masks):
            mask[y - 5 - i : y + 6 + i, x - 5 - i : x + 6 + i] = True
        scores = np.array([0.3, 0.9, 0.5])[: len(masks)]
        logits = np.arange(len(masks) * 4, dtype=np.float32).reshape(-1, 2, 2)
        return masks, scores, logits


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_sam_gets_xy_points_and_its_own_logits_back(dtype):
    predictor = FakePredictor()
    segmenter = SamSegmenter(predictor)
    segmenter.set_image(nucleus()[0].astype(dtype))
    clicks = [Click((70, 50)), Click((10, 20), is_positive=False)]
    first = segmenter.predict(clicks[:1], None)
    assert first.mask.sum() == 13 * 13  # the best score of three
    second = segmenter.predict(clicks, first)
    assert second.mask.sum() == 11 * 11
    coordinates, labels, logits, several = predictor.calls[1]
    assert coordinates.tolist() == [[50, 70], [20, 10]]
    assert labels.tolist() == [1, 0]
    assert logits.shape == (1, 2, 2)
    assert logits.ravel().tolist() == [4, 5, 6, 7]
    assert predictor.calls[0][2] is None
    assert (predictor.calls[0][3], several) == (True, False)


class FakeSam:
    """A model that says what it was loaded from."""

    def __init__(self, checkpoint):
        self.checkpoint = checkpoint

    def to(self, device):
        return self

    def eval(self):
        return self


@pytest.mark.parametrize("spec", ["sam:{}", "sam:vit_b:{}"])
def test_sam_checkpoints_are_loaded_by_their_package(tmp_path, monkeypatch, spec):
    package = types.ModuleType("segment_anything")
    package.sam_model_registry = {"vit_b": FakeSam}
    package.SamPredictor = lambda model: types.SimpleNamespace(model=model)
    monkeypatch.setitem(sys.modules, "segment_anything", package)
    path = tmp_path / "sam_vit_b.pth"
    path.write_bytes(b"")
    segmenter = SegmenterSpec(spec.format(path))()
    assert segmenter._predictor.model.checkpoint == str(path)


def test_sam_faults_are_named(tmp_path, monkeypatch):
    with pytest.raises(CheckpointError, match="no checkpoint"):
        SegmenterSpec("sam:nowhere.pth")()
    path = tmp_path / "mine.pth"
    path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="does not name its model"):
        SegmenterSpec(f"sam:{path}")()
    for name in ("segment_anything", "mobile_sam"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(CheckpointError, match="pip install segment-anything"):
        SegmenterSpec(f"sam:vit_b:{path}")()


def test_foreign_segmenters_are_named_by_module_and_factory():
    spec = SegmenterSpec("flood_factory:make")
    assert not spec.is_network
    assert (spec.label, spec.fingerprint()) == ("flood_factory:make", "")
    assert hasattr(spec(), "predict")
    with pytest.raises(SegmenterError, match="must be importable"):
        SegmenterSpec("no_such_module:make")()
    with pytest.raises(SegmenterError, match="no_such_factory"):
        SegmenterSpec("flood_factory:no_such_factory")()
    with pytest.raises(SegmenterError, match="without set_image"):
        SegmenterSpec("flood_factory:make_half")()


def test_networks_are_labelled_with_refinement_and_protocol():
    assert SegmenterSpec("default", refinement="A-CFR-4").label == "default A-CFR-4"
    spec = SegmenterSpec("models/mine.safetensors", protocol="ritm")
    assert spec.is_network
    assert spec.label == "mine ritm standard"


def test_protocols_have_the_published_settings():
    ritm, davis = paper_protocol("ritm"), paper_protocol("ritm", dataset="DAVIS")
    assert (ritm.zoom.target_size, davis.zoom.target_size) == (400, 600)
    assert (ritm.zoom.skip_clicks, ritm.flip, ritm.threshold) == (1, True, 0.49)
    for name, target in (("simpleclick", 0.90), ("paper-cfr", 0.95)):
        protocol = paper_protocol(name)
        assert protocol.zoom.target_size == (448, 448)
        assert (protocol.zoom.skip_clicks, protocol.target) == (-1, target)
    assert paper_protocol("simpleclick", dataset="davis").zoom.target_size == (672, 672)
    fcfi = paper_protocol("paper-fcfi", dataset="Berkeley", backbone="resnet101")
    assert (fcfi.zoom.target_size, fcfi.zoom.expansion_ratio) == (720, 2.5)
    assert fcfi.roi_from_updated
    assert fcfi.zoom.negatives_too
    assert fcfi.target > 1
    assert paper_protocol("paper-fcfi").zoom.target_size == 480


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("micro", {}, "no published protocol 'micro'"),
        ("paper-fcfi", {"backbone": "vit"}, "no backbone 'vit'"),
    ],
)
def test_unknown_protocols_are_named(name, options, message):
    with pytest.raises(ValueError, match=message):
        paper_protocol(name, **options)
