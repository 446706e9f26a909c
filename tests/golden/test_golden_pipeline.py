"""Whole published predictors: clicker, Zoom-In, flip, feedback, cascade.

The network is the closed-form stand-in the traces were made with, so that nothing
depends on weights.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_cfrseg.evaluation import metrics
from napari_cfrseg.evaluation.papers import Protocol, ZoomIn
from napari_cfrseg.evaluation.papers.published_predictor import PublishedSegmenter
from napari_cfrseg.evaluation.robots import ExactRobot
from napari_cfrseg.model.network import ClickNetwork, NetworkOutput

pytestmark = pytest.mark.golden
GOLDEN = Path(os.environ.get("CFRSEG_GOLDEN", Path(__file__).parent / "data"))
FOLDER = GOLDEN / "pipeline"
#: the committed subset keeps each scene in one file only
SCENE_FILES = ("ritm", "cfr", "fcfi", "sc")


class StandIn(ClickNetwork):
    """L = 14 (G − ½) + 3 prev − ½ + Σ± 6 exp(−d²/800)."""

    def __init__(self):
        super().__init__()
        self.anchor = torch.nn.Parameter(torch.zeros(()))
        self.calls = []

    def architecture(self):
        return {"family": "stand-in"}

    def embed_image(self, image):
        return image

    def embed_clicks(self, embedding, points):
        height, width = embedding.shape[2:]
        ys = torch.arange(height, dtype=torch.float32)[:, None]
        xs = torch.arange(width, dtype=torch.float32)[None]
        total = torch.zeros(len(embedding), height, width)
        half = points.shape[1] // 2
        for b, rows in enumerate(points):
            for slot, (y, x, _) in enumerate(rows):
                if max(y, x) >= 0:
                    bump = 6 * torch.exp(-((ys - y) ** 2 + (xs - x) ** 2) / 800)
                    total[b] += bump if slot < half else -bump
        return embedding, points, total

    def refine(self, features, feedback, newest_click):
        image, points, bumps = features
        previous = torch.zeros_like(bumps) if feedback is None else feedback[:, 0]
        self.calls.append(
            {
                "shape": [len(image), 4, *image.shape[2:]],
                "points": points.numpy(),
                "prev_mean": float(previous.mean()),
                "gate": float(feedback is not None),
            }
        )
        logits = (14 * (image[:, 1] - 0.5) + 3 * previous - 0.5 + bumps)[:, None]
        return NetworkOutput(
            logits,
            corrected=torch.sigmoid(logits - 1),
            updated=torch.sigmoid(0.5 * logits - 1),
        )


def load_cases():
    cases = []
    for family in ("ritm", "sc", "cfr", "fcfi"):
        path = FOLDER / f"{family}.json"
        if path.is_file():
            cases += [(family, case) for case in json.loads(path.read_text())]
    return cases


def load_scene(seed):
    for name in SCENE_FILES:
        path = FOLDER / f"{name}.npz"
        if path.is_file():
            with np.load(path) as data:
                if f"scene{seed}_image" in data:
                    return data[f"scene{seed}_image"], data[f"scene{seed}_gt"]
    pytest.skip(f"scene {seed} is in no file of {FOLDER}")


def make_protocol(family, case):
    zoom = case["zoom"]
    if zoom is not None:
        target = zoom["target_size"]
        target = tuple(target) if isinstance(target, list) else target
        zoom = ZoomIn(**{**zoom, "target_size": target}, negatives_too=family == "fcfi")
    predictor = case["predictor"]
    return Protocol(
        case["name"],
        zoom,
        flip=case["flip"],
        extra_steps=predictor.get("cascade_step", 1) - 1,
        adaptive=predictor.get("cascade_adaptive", False),
        cascade_clicks=predictor.get("cascade_clicks", 20),
        clicks_limit=predictor.get("net_clicks_limit"),
        roi_from_updated=family == "fcfi",
    )


def test_golden_cases_are_there():
    if not load_cases():
        pytest.skip(f"no golden data at {FOLDER}")


@pytest.mark.parametrize(
    ("family", "case"),
    load_cases(),
    ids=lambda v: v if isinstance(v, str) else v["name"],
)
def test_every_click_equals_the_published_trace(family, case):
    image, truth = load_scene(case["seed"])
    truth = truth == 1
    with np.load(FOLDER / f"{family}.npz") as data:
        maps = {k: data[k] for k in data if k.startswith(case["name"] + "_")}
    assert maps
    network = StandIn()
    segmenter = PublishedSegmenter(network, make_protocol(family, case))
    segmenter.set_image(image)
    robot, clicks, previous = ExactRobot(truth), [], None
    for index, step in enumerate(case["steps"]):
        network.calls.clear()
        shown = None if previous is None else previous.mask
        clicks.append(robot.next_click(shown))
        newest = [*clicks[-1].pixel, int(clicks[-1].is_positive)]
        assert newest == step["click"]
        previous = segmenter.predict(clicks, previous)
        roi = None if previous.roi is None else list(previous.roi)
        assert roi == step["roi"]
        assert previous.steps == len(network.calls) == step["n_forward"]
        for call, expected in zip(network.calls, step["net_calls"], strict=True):
            check_call(call, expected)
        found = {"prob": previous.probability, "u2_": previous.window_probability}
        for kind, values in found.items():
            expected = maps.get(f"{case['name']}_{kind}{index}_s3")
            if expected is not None:
                np.testing.assert_allclose(values[::3, ::3], expected, atol=2e-5)
        assert metrics.iou(previous.mask, truth) == pytest.approx(step["iou"], abs=1e-9)
        assert np.count_nonzero(previous.mask) == step["prob_sum_thr"]


def check_call(call, expected):
    assert call["shape"] == expected["shape"]
    np.testing.assert_allclose(call["points"], expected["points"], rtol=1e-6)
    assert call["prev_mean"] == pytest.approx(expected["prev_mean"], abs=2e-6)
    if expected["gate"] is not None:
        assert call["gate"] == expected["gate"]
