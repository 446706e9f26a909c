"""How much precision and threads change a session's labels: stated in the docs."""

from __future__ import annotations

import numpy as np
from replayed import replay

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.engine.segmenter import Segmenter
from napari_cfrseg.samples import load_demo, load_sample


def test_bfloat16_moves_few_pixels() -> None:
    demo = load_demo()
    image = load_sample(demo.sample).image
    events: list[ev.Event] = []
    for number, clicks in enumerate(demo.objects[:2], start=1):
        events.append(ev.ObjectCreated(number))
        events.append(ev.ClickAdded(number, (), clicks[0].yx, True, number))
    single, again, half = (
        replay(events, image, Segmenter.load("default", device="cpu", precision=p))
        for p in ("float32", "float32", "bfloat16")
    )
    assert np.array_equal(single, again)
    assert (single > 0).any()
    owned = (single > 0) | (half > 0)
    assert (single != half).sum() <= 0.02 * owned.sum()
