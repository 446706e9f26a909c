from __future__ import annotations

import numpy as np
import pytest
import torch
from similarity import SimilarityNetwork

from napari_cfrseg.clicks import Click
from napari_cfrseg.engine.focus import FocusHint, FocusSettings, WindowEvidence
from napari_cfrseg.engine.prediction import Prediction
from napari_cfrseg.engine.refinement import Refinement
from napari_cfrseg.engine.segmenter import Segmenter
from napari_cfrseg.engine.window_search import Attempt, Look, ranked
from napari_cfrseg.errors import DeviceError, ImageError
from napari_cfrseg.evaluation import metrics
from napari_cfrseg.geometry.windows import Window
from napari_cfrseg.io.plane_image import Scaling
from napari_cfrseg.model.network import NetworkOutput
from napari_cfrseg.samples import load_sample

SQUARE = (slice(60, 100), slice(80, 120))


def image(shape: tuple[int, int] = (200, 240)) -> np.ndarray:
    plane = np.full(shape, 20, dtype=np.uint8)
    plane[SQUARE] = 220
    plane[150:160, 30:40] = 120
    return plane


def segmenter(plane: np.ndarray | None = None, **options: object) -> Segmenter:
    made = Segmenter(SimilarityNetwork(**options), device="cpu")
    made.set_image(image() if plane is None else plane)
    return made


def iou(mask: np.ndarray, truth: np.ndarray) -> float:
    return float((mask & truth).sum() / (mask | truth).sum())


def truth(shape: tuple[int, int] = (200, 240)) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    mask[SQUARE] = True
    return mask


def test_a_click_on_a_square_gives_the_square():
    prediction = segmenter().predict([Click((80, 100))])
    assert prediction.mask.shape == (200, 240)
    assert prediction.mask.dtype == bool
    assert iou(prediction.mask, truth()) > 0.8
    assert prediction.steps == 1
    assert prediction.window is not None
    assert not prediction.touches_border
    assert prediction.quality == pytest.approx(0.8176, abs=1e-3)
    assert 0 < prediction.stages.total <= prediction.seconds
    assert prediction.scaling == Scaling((20.0,), (220.0,))


def test_the_focus_finds_the_object_in_a_wide_field():
    wide = np.full((3000, 3000), 20, dtype=np.uint8)
    wide[2000:2040, 1500:1540] = 220
    prediction = segmenter(wide).predict([Click((2020, 1520))])
    mask = np.zeros_like(wide, dtype=bool)
    mask[2000:2040, 1500:1540] = True
    assert prediction.window.side < 200
    assert iou(prediction.mask, mask) > 0.8


def test_the_best_supported_of_the_tried_windows_is_taken():
    plane = np.full((200, 240), 20, dtype=np.uint8)
    plane[60:112, 70:122] = 220  # too tight in 64 pixels, roomy in 128
    made, click = segmenter(plane), Click((86, 96))
    tried = made.try_windows(click)
    *ladder, fitted = [a.look.window.side for a in tried]
    assert ladder == [32, 64, 128, 240]
    assert 64 < fitted < 128  # laid around the best mask of the ladder
    best = max(tried, key=lambda a: a.score)
    assert made.predict([click]).window == best.look.window
    assert best.evidence is not None
    assert best.probability.shape == (32, 32)


@pytest.mark.parametrize("threads", [0, -1, 2.0, "2", True, 10**6, float("nan")])
def test_threads_that_cannot_be_are_refused_with_the_remedy(threads) -> None:
    before = torch.get_num_threads()
    with pytest.raises(ValueError, match="give a whole number from 1 to 4096, or none"):
        Segmenter.load("default", threads=threads)
    assert torch.get_num_threads() == before
    Segmenter.load("default", "cpu", threads=np.int64(before))


@pytest.mark.parametrize("yx", [(82, 273), (80, 270), (120, 88), (99, 100)])
def test_a_first_click_on_a_particle_finds_more_than_a_dot(yx):
    """Narrow windows agree on a dot; the network expects little of it."""
    sample = load_sample("powder_sem")
    made = Segmenter.load("default", device="cpu")
    made.set_image(sample.image)
    truth = sample.labels == sample.labels[yx]
    assert metrics.iou(made.predict([yx]).mask, truth) > 0.8


def test_a_window_that_leads_by_quality_comes_first():
    look = Look(Window(0, 0, 32, 8), None)

    def attempt(score, quality):
        evidence = WindowEvidence(quality, 0.5, 0.0, 1.0, 1.0)
        return Attempt(look, np.zeros((8, 8), np.float32), evidence, score)

    dot, part, whole = attempt(0.7, 0.5), attempt(0.6, 0.69), attempt(0.2, 0.9)
    missed = Attempt(look, np.zeros((8, 8), np.float32), None, -0.5)
    assert ranked((part, dot, missed), 0.2) == (dot, part, missed)
    assert ranked((part, dot, whole), 0.2) == (whole, dot, part)
    assert ranked((missed,), 0.2) == (missed,)


def test_wide_windows_are_not_tried_where_a_narrow_one_is_sure():
    wide = np.full((3000, 3000), 20, dtype=np.uint8)
    wide[2000:2040, 1500:1540] = 220
    tried = []
    for sure in (0.1, 1.0):
        made = segmenter(wide)
        made.focus = FocusSettings(sure_score=sure)
        tried.append(made.try_windows(Click((2020, 1520))))
    few, every = ([a.look.window for a in attempts] for attempts in tried)
    best = max(tried[1], key=lambda a: a.score).look.window
    assert max(w.side for w in few) < 500 < max(w.side for w in every)
    assert set(few) < set(every)
    assert max(tried[0], key=lambda a: a.score).look.window == best


class Hesitant(SimilarityNetwork):
    """Never shows a mask, least of all where the window is bright."""

    def refine(self, features, feedback, newest_click) -> NetworkOutput:
        self.calls["refine"] += 1
        doubt = 1 + features.image.mean(dim=(1, 2), keepdim=True)
        return NetworkOutput(-doubt[:, None].expand(-1, 1, 32, 32))


def test_where_no_window_shows_a_mask_the_nearest_to_one_is_taken():
    made = Segmenter(Hesitant(), device="cpu")
    made.set_image(image())
    prediction = made.predict([Click((80, 100))])
    assert prediction.window.side == 240  # the square is smallest there
    assert prediction.corrected == (Click((80, 100)),)
    assert prediction.mask[80, 100]


def test_a_negative_click_takes_away_what_it_is_on():
    made = segmenter()
    first = made.predict([Click((80, 100))])
    second = made.predict(
        [*first.clicks, Click((65, 85), is_positive=False)], previous=first
    )
    assert second.mask.sum() < first.mask.sum()
    assert not second.mask[65, 85]
    assert second.mask[80, 100]


def test_no_positive_click_and_no_mask_runs_no_network():
    made = segmenter()
    prediction = made.predict([Click((80, 100), is_positive=False)])
    assert not prediction.mask.any()
    assert prediction.steps == 0
    assert prediction.window is None
    assert made.network.calls == {"embed_image": 0, "embed_clicks": 0, "refine": 0}
    assert not made.predict([]).mask.any()
    later = made.predict([*prediction.clicks, Click((90, 110))], previous=prediction)
    assert later.mask[90, 110]
    assert not later.mask[80, 100]


def test_negative_clicks_alone_correct_a_start_mask():
    made = segmenter(inertia=1.0)
    start = truth()
    prediction = made.predict([Click((70, 90), is_positive=False)], previous=start)
    assert not prediction.mask[70, 90]
    assert prediction.mask.any()
    assert prediction.mask[95, 115]
    assert made.network.gates == [True]


def test_the_gate_follows_the_mask_not_the_round():
    made = segmenter()
    first = made.predict([Click((80, 100))], refinement=Refinement.cfr(2))
    tried = made.network.calls["refine"] - 2
    assert made.network.gates == [False] * tried + [True, True]
    made.network.gates.clear()
    made.predict([*first.clicks, Click((90, 90))], previous=first)
    assert made.network.gates == [True]
    made.network.gates.clear()
    made.predict([Click((80, 100))], previous=truth())
    assert made.network.gates == [True]
    made.network.gates.clear()
    made.predict([Click((80, 100))], previous=np.zeros((200, 240), dtype=bool))
    assert not any(made.network.gates)


def test_only_refine_repeats_in_a_cascade():
    made = segmenter()
    first = made.predict([Click((80, 100))])
    made.network.calls.update(embed_image=0, embed_clicks=0, refine=0)
    second = made.predict(
        [*first.clicks, Click((82, 110))], previous=first, refinement=Refinement.cfr(4)
    )
    assert second.steps == 5
    assert made.network.calls["embed_clicks"] == 1
    assert made.network.calls["refine"] == 5
    assert made.network.calls["embed_image"] == int(second.window != first.window)


def test_an_unchanged_window_is_not_embedded_again():
    made = segmenter()
    first = made.predict([Click((80, 100))])
    second = made.predict([*first.clicks, Click((82, 110))], previous=first)
    made.network.calls.update(embed_image=0, embed_clicks=0, refine=0)
    third = made.predict([*second.clicks, Click((84, 90))], previous=second)
    assert third.window == second.window
    assert made.network.calls == {"embed_image": 0, "embed_clicks": 1, "refine": 1}
    made.predict(
        third.clicks, previous=second, refinement=Refinement.cfr(3)
    )  # same clicks, refined more
    assert made.network.calls == {"embed_image": 0, "embed_clicks": 1, "refine": 5}
    made.set_image(image())
    made.predict(third.clicks, previous=second)
    assert made.network.calls == {"embed_image": 1, "embed_clicks": 2, "refine": 6}


def test_each_step_corrects_around_the_newest_click():
    made = segmenter()
    click = [Click((80, 100))]
    made.predict(click, previous=truth(), refinement=Refinement.cfr(2))
    assert [label for *_, label in made.network.newest] == [1, 1, 1]


def test_every_round_is_computed_from_the_first_click():
    clicks = [Click((80, 100)), Click((62, 82), False), Click((95, 115))]
    step_by_step = None
    made = segmenter()
    for count in (1, 2, 3):
        step_by_step = made.predict(clicks[:count], previous=step_by_step)
    at_once = segmenter().predict(clicks)
    assert np.array_equal(at_once.mask, step_by_step.mask)
    assert at_once.window == step_by_step.window


def test_a_painted_mask_with_earlier_clicks_computes_one_round():
    made = segmenter()
    clicks = [Click((80, 100)), Click((85, 105)), Click((70, 90))]
    painted = Prediction.from_mask(truth(), tuple(clicks[:2]))
    got = made.predict(clicks, previous=painted)
    assert made.network.calls["refine"] == 1
    assert got.clicks == tuple(clicks)


def test_the_later_of_two_clicks_on_a_pixel_counts():
    made = segmenter()
    first = made.predict([Click((80, 100))])
    both = made.predict(
        [*first.clicks, Click((80.2, 99.8), is_positive=False)], previous=first
    )
    assert not both.mask[80, 100]


def test_outside_the_window_the_previous_mask_stays():
    made = Segmenter(
        SimilarityNetwork(), device="cpu", focus=FocusSettings(max_side=48)
    )
    made.set_image(image())
    start = np.zeros((200, 240), dtype=bool)
    start[10:30, 10:230] = True
    got = made.predict([Click((155, 35))], previous=start)
    assert got.window.side == 48
    assert got.mask[155, 35]
    assert np.array_equal(got.mask[:100], start[:100])


def test_a_mask_over_the_windows_border_is_looked_at_wider():
    plane = np.zeros((400, 400), dtype=np.uint8)
    plane[100:300, 100:300] = 255
    made = segmenter(plane, reach=2.0)
    first = made.predict([Click((200, 200))], hint=FocusHint(60, spread=1))
    assert first.window.side == 60
    assert first.touches_border
    second = made.predict([*first.clicks, Click((210, 210))], previous=first)
    assert second.window.side > 200  # the same click looked again
    assert not second.touches_border
    rest = [Click((200 + i, 205)) for i in range(4)]
    last = made.predict([*second.clicks, *rest], previous=second)
    assert not last.touches_border
    assert last.window.side > 200
    assert iou(last.mask, plane > 0) > 0.9


class Counter:
    """A huge plane that is computed where it is read; counts the pixels."""

    def __init__(self, side: int) -> None:
        self.shape, self.dtype, self.read_px = (side, side), np.dtype(np.uint8), 0

    def __getitem__(self, key: tuple[slice, slice]) -> np.ndarray:
        y, x = (np.arange(*k.indices(n)) for k, n in zip(key, self.shape, strict=True))
        self.read_px += len(y) * len(x)
        inside = np.add.outer((y - 400) ** 2, (x - 400) ** 2) <= 30**2
        return np.where(inside, 200, 40).astype(np.uint8)


def test_a_click_reads_its_windows_whatever_the_image():
    costs, windows, masks = [], [], []
    for side in (1000, 16_000, 64_000):
        plane = Counter(side)
        made = Segmenter(SimilarityNetwork(), device="cpu")
        made.set_image(plane, scaling=Scaling((40.0,), (200.0,)))
        assert plane.read_px == 0
        previous = None
        clicks = [Click((400, 400)), Click((395, 410)), Click((360, 370), False)]
        for count in (1, 2, 3):
            plane.read_px = 0
            previous = made.predict(clicks[:count], previous=previous)
            costs.append((count, plane.read_px))
        windows.append(previous.window)
        masks.append(previous.patch.read((300, 300, 500, 500)) > 0.5)
    most = (4 * 32) ** 2  # OVERSAMPLING · grid, per window
    around = 288**2  # the small windows of a first click, read at once
    assert all(px <= around + 5 * most for count, px in costs if count == 1)
    assert all(px <= most for count, px in costs if count > 1)
    # seen in the same windows, the object gets the same mask
    assert len(set(windows)) == 1
    assert all(np.array_equal(m, masks[0]) for m in masks)


def test_previews_come_before_every_further_step():
    shown = []
    made = segmenter()
    final = made.predict(
        [Click((80, 100))], refinement=Refinement.cfr(3), on_step=shown.append
    )
    assert [p.steps for p in shown] == [1, 2, 3]
    assert all(p.mask[80, 100] for p in shown)
    assert final.steps == 4
    alone = made.predict([Click((80, 100))])
    assert np.array_equal(shown[0].mask, alone.mask)


def test_the_last_step_of_an_adaptive_cascade_is_no_preview():
    shown = []
    made = segmenter()
    first = made.predict([Click((80, 100))])
    final = made.predict(
        [*first.clicks, Click((82, 110))],
        previous=first,
        refinement=Refinement.adaptive(4),
        on_step=shown.append,
    )
    assert final.steps < 5  # it stopped early
    assert [p.steps for p in shown] == list(range(1, final.steps))


def test_previous_of_the_same_clicks_is_the_answer():
    made = segmenter()
    first = made.predict([Click((80, 100))])
    calls = dict(made.network.calls)
    assert made.predict(first.clicks, previous=first) is first
    assert made.network.calls == calls
    imported = Prediction.from_mask(truth())
    assert made.predict([], previous=imported) is imported


def test_points_with_labels_are_clicks():
    clicks = [Click((80, 100)), Click((62, 82), is_positive=False)]
    expected = segmenter().predict(clicks, refinement=Refinement.adaptive(2))
    for points, labels in (
        ([[80, 100], [62, 82]], [1, 0]),
        (np.array([[80, 100], [62, 82]]), np.array([True, False])),
        (((80.0, 100.0), (62, 82)), (1, 0)),
    ):
        got = segmenter().predict(points, labels, refinement="A-CFR-2")
        assert got.clicks == tuple(clicks)
        assert np.array_equal(got.mask, expected.mask)
    positive = segmenter().predict(np.array([[80, 100]]))
    assert positive.clicks == (clicks[0],)
    assert segmenter().predict(np.zeros((0, 2))).clicks == ()


@pytest.mark.parametrize(
    ("points", "labels", "error"),
    [
        ([1, 2], None, r"\(N, 2\)"),
        ([[1, 2, 3]], None, r"\(N, 2\)"),
        ([[1, 2]], [1, 0], "expected 1"),
        ([[1, 2]], [2], "1 .positive. or 0"),
        ([[1, 2]], [-1], "1 .positive. or 0"),
        ([Click((1, 2))], [1], "its own sign"),
        ([[1, 2]], np.zeros((200, 240)), "previous="),
        ([[1, 2]], Prediction.empty((200, 240)), "previous="),
    ],
)
def test_points_or_labels_that_are_none_are_refused(points, labels, error):
    with pytest.raises((ValueError, TypeError), match=error):
        segmenter().predict(points, labels)


def test_a_preview_can_stop_the_work():
    class Stop(Exception):
        pass

    def stop(_: Prediction) -> None:
        raise Stop

    made = segmenter()
    with pytest.raises(Stop):
        made.predict([Click((80, 100))], refinement=Refinement.cfr(3), on_step=stop)
    assert made.predict([Click((80, 100))]).mask[80, 100]


def test_the_threshold_moves_the_outline_without_the_network():
    made = segmenter()
    clicks = [Click((80, 100)), Click((63, 83), is_positive=False)]
    alone = made.predict(clicks[:1])
    prediction = made.predict(clicks)
    calls = dict(made.network.calls)
    areas = [alone.mask_at(t).sum() for t in (0.05, 0.5, 0.95)]
    assert areas[0] >= areas[1] >= areas[2] > 0
    for t in (0.01, 0.3, 0.7, 0.99):
        mask = prediction.with_threshold(t).mask
        assert mask[80, 100]
        assert not mask[63, 83]
    assert made.network.calls == calls
    with pytest.raises(ValueError, match="between 0 and 1"):
        prediction.with_threshold(1.5)


def test_parts_of_a_prediction_agree():
    prediction = segmenter().predict([Click((80, 100))])
    mask = prediction.mask
    y0, x0, part = prediction.mask_patch()
    assert np.array_equal(mask[y0 : y0 + part.shape[0], x0 : x0 + part.shape[1]], part)
    assert part.sum() == mask.sum()
    top, left, bottom, right = prediction.mask_box
    assert mask[top:bottom, left:right].sum() == mask.sum()
    plane = prediction.probability_plane()
    assert prediction.patch.read((80, 100, 81, 101)).item() == plane[80, 100]
    a, b, c, d = prediction.window.clipped(prediction.shape)
    assert np.array_equal(prediction.probability, plane[a:c, b:d])
    assert plane.min() >= 0
    assert plane.max() <= 1


def test_focus_keys_look_closer_or_wider():
    made = segmenter()
    base = made.predict([Click((80, 100))])
    wider = made.predict([Click((80, 100))], focus_shift=1)
    assert wider.window.side == round(base.window.side * 2**0.5)
    number = made.predict([Click((80, 100))], hint=150)
    assert 75 <= number.window.side <= 240


@pytest.mark.parametrize("yx", [(-1, 5), (5, 240), (200, 0), (-0.6, 0), (199.5, 0)])
def test_a_click_outside_the_image_is_an_error(yx):
    with pytest.raises(ValueError, match="outside the image of 200 rows"):
        segmenter().predict([Click(yx)])


@pytest.mark.parametrize("yx", [(-0.4, 0), (199.4, 239.4), (0, 0)])
def test_clicks_at_the_very_edge_are_inside(yx):
    prediction = segmenter().predict([Click(yx)])
    assert prediction.mask[Click(yx).pixel]


def test_wrong_arguments_say_what_to_do():
    made = Segmenter(SimilarityNetwork(), device="cpu")
    with pytest.raises(ValueError, match="set_image first"):
        made.predict([Click((1, 1))])
    with pytest.raises(ImageError, match="1 to 4"):
        made.set_image(np.zeros((3, 3, 9)))
    made.set_image(image())
    with pytest.raises(ValueError, match=r"\(5, 5\).*\(200, 240\)"):
        made.predict([Click((1, 1))], previous=np.zeros((5, 5), dtype=bool))
    first = made.predict([Click((80, 100))])
    with pytest.raises(ValueError, match="not the first of these"):
        made.predict([Click((81, 100)), Click((1, 1))], previous=first)


def test_a_device_that_is_not_there_is_refused():
    for name in ("nonsense", "cuda:99", "meta"):
        with pytest.raises(DeviceError, match="auto"):
            Segmenter(SimilarityNetwork(), device=name)


class Starved(SimilarityNetwork):
    """Runs out of memory the first times, as a full GPU does."""

    failures = 1

    def embed_image(self, image: torch.Tensor) -> torch.Tensor:
        if self.failures:
            self.failures -= 1
            raise torch.OutOfMemoryError("full")
        return super().embed_image(image)


def test_out_of_memory_on_the_cpu_is_not_hidden():
    made = Segmenter(Starved(), device="cpu")
    made.set_image(image())
    with pytest.raises(torch.OutOfMemoryError):
        made.predict([Click((80, 100))])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_out_of_memory_on_the_gpu_goes_on_on_the_cpu():
    made = Segmenter(Starved(), device="cuda")
    made.set_image(image())
    with pytest.warns(UserWarning, match="out of memory") as caught:
        got = made.predict([Click((80, 100)), Click((90, 110))])
    assert len(caught) == 1
    assert made.device == "cpu"
    assert got.mask[80, 100]


def test_bfloat16_gives_nearly_the_same_mask():
    exact = segmenter().predict([Click((80, 100))])
    made = Segmenter(SimilarityNetwork(), device="cpu", precision="bfloat16")
    made.set_image(image())
    assert iou(made.predict([Click((80, 100))]).mask, exact.mask) > 0.95
    with pytest.raises(ValueError, match="float32"):
        Segmenter(SimilarityNetwork(), device="cpu", precision="int8")


def test_objects_of_an_almost_empty_field_are_seen_apart():
    """The sample shows noise: without more, both squares would be white alike."""
    field = np.random.default_rng(0).integers(0, 8, (2000, 2000)).astype(np.uint16)
    field[900:920, 900:920], field[900:920, 920:940] = 500, 900
    half = np.zeros(field.shape, bool)
    half[900:920, 900:920] = True
    made = segmenter(field)
    noise = made.scaling
    first = made.predict([Click((910, 910))])
    assert iou(first.mask, half) > 0.8
    assert first.scaling == made.scaling == noise  # what a session records
    # the same window of another object, seen otherwise, and this one again
    made.predict([Click((100, 100))], hint=first.window.side)
    again = made.predict([Click((910, 910))])
    assert np.array_equal(again.patch.probability, first.patch.probability)
    late = made.predict([Click((910, 910)), Click((910, 930), False)], previous=first)
    assert iou(late.mask, half) > 0.8
    made.set_image(field, scaling=noise)  # a replay
    assert np.array_equal(made.predict([Click((910, 910))]).mask, first.mask)
