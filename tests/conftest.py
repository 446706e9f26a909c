"""What all tests share: displays, and the profile of the property tests."""

from __future__ import annotations

import os
from functools import cache

import pytest
from hypothesis import settings

from napari_cfrseg.cli.display import display_problem

settings.register_profile("napari-cfrseg", deadline=None)
settings.load_profile("napari-cfrseg")

_WINDOW_FIXTURES = {"make_napari_viewer", "make_napari_viewer_proxy", "qtbot", "qapp"}


@cache
def _window_problem() -> str | None:
    return display_problem()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _WINDOW_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.gui)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gui") is None:
        return
    problem = _window_problem()
    if problem is None:
        return
    if os.environ.get("CI"):
        pytest.fail(f"needs a window, and with CI set that is no excuse: {problem}")
    pytest.skip(f"needs a window: {problem}")
