"""Controls show the image that is chosen, in a real window with several."""

from __future__ import annotations

import numpy as np
import pytest
from gui_window import squares

pytestmark = pytest.mark.gui


def test_controls_show_what_holds_for_the_image_that_is_chosen(window) -> None:
    stacks = [
        window.viewer.add_image(np.stack([squares()] * 3), name=name)
        for name in ("first", "second")
    ]
    objects, settings, stack = (
        window.dock.objects,
        window.dock.settings,
        window.dock.stack,
    )

    def choose(layer) -> None:
        window.dock.image_choice.value = layer
        window.until(lambda: not window.view.loading)
        window.settle()

    def is_true() -> None:
        controller, view = window.dock.controller, window.view
        assert (controller.labels.layer.contour > 0) == settings.outlines.isChecked()
        assert controller.auto_next == settings.auto_next.isChecked()
        assert controller.clicks._own_only == settings.own_clicks.isChecked()
        assert view.stack.all_objects == stack.every.isChecked()
        assert view.suggestions.follows == objects.follow.isChecked()
        assert round(100 * view.suggestions.threshold) == objects.sure.value()

    for layer in stacks:
        choose(layer)
        is_true()
    for box in (settings.outlines, settings.own_clicks, settings.auto_next):
        box.click()
    stack.every.click()
    objects.follow.click()
    objects.sure.setValue(30)
    is_true()
    assert stack.every.isChecked()
    choose(stacks[0])
    is_true()
    assert not stack.every.isChecked()
    choose(stacks[1])
    is_true()
    assert stack.every.isChecked()
    assert objects.sure.value() == 30
