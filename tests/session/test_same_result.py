"""How much precision and threads change a session's labels: stated in the docs."""

from __future__ import annotations

import numpy as np
import pytest
from replayed import replay

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.engine.segmenter import Segmenter
from napari_cfrseg.errors import CfrSegError
from napari_cfrseg.model import weights_file as checkpoint
from napari_cfrseg.samples import load_demo, load_sample


def has_weights() -> bool:
    try:
        checkpoint.resolve("default")
    except CfrSegError:
        return False
    return True


@pytest.mark.skipif(not has_weights(), reason="the default weights are not there")
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
