"""Shared by all tests: displays, and the profile of the property tests."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import pytest
from hypothesis import settings
from npe2 import PluginManifest

from napari_cfrseg.cli.demo import display_problem

settings.register_profile("napari-cfrseg", deadline=None)
settings.load_profile("napari-cfrseg")

#: napari keeps its settings in memory: every window resets them, a person's own stay
os.environ["NAPARI_CONFIG"] = ""

_WINDOW_FIXTURES = {"make_napari_viewer", "make_napari_viewer_proxy", "qtbot", "qapp"}


@cache
def _window_problem() -> str | None:
    return display_problem()


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    for item in items:
        if _WINDOW_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.gui)
    if "slow" in config.option.markexpr:
        return
    # ``-m golden`` replaces the default ``-m 'not slow'``: minutes are for who asks
    slow = [item for item in items if item.get_closest_marker("slow")]
    items[:] = [item for item in items if not item.get_closest_marker("slow")]
    config.hook.pytest_deselected(items=slow)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gui") is None:
        return
    problem = _window_problem()
    if problem is None:
        from napari_cfrseg.gui.segment.model_loading import import_triton_apart

        import_triton_apart()  # before any OpenGL, as the dock does before its torch
        return
    if os.environ.get("CI"):
        pytest.fail(f"needs a window, and with CI set that is no excuse: {problem}")
    pytest.skip(f"needs a window: {problem}")


@pytest.fixture
def qtbot(qtbot):
    """Wait as long as a busy machine needs: the test's own limit ends it."""
    until, exposed, most_ms = qtbot.waitUntil, qtbot.waitExposed, 3_600_000
    qtbot.waitUntil = lambda condition: until(condition, timeout=most_ms)
    qtbot.wait_exposed = lambda widget, **_: exposed(widget, timeout=most_ms)
    return qtbot


@pytest.fixture(scope="session")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights file of the default architecture, seeded and untrained."""
    import torch

    from napari_cfrseg.model import weights_file as checkpoint
    from napari_cfrseg.model.cfrnet import CfrNet, CfrNetConfig

    torch.manual_seed(0)
    network = CfrNet(CfrNetConfig()).eval()
    path = tmp_path_factory.mktemp("models") / "random.safetensors"
    said = checkpoint.Metadata(
        architecture=dict(network.architecture()),
        name="random",
        training_data=["none"],
        licence="BSD-3-Clause",
        seed=0,
        steps=0,
        validation={"noc90": 20.0},
    )
    checkpoint.save(path, network, said)
    return path


@pytest.fixture(autouse=True)
def _sessions_apart(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Docks opened by tests autosave, but not among a person's own sessions.

    And they start no process that prepares OpenVINO.
    """
    monkeypatch.setenv("CFRSEG_BACKEND", "torch")
    folder = tmp_path_factory.getbasetemp() / "sessions" / uuid4().hex
    monkeypatch.setenv("CFRSEG_SESSIONS", str(folder))


@pytest.fixture(scope="session", autouse=True)
def _manifests_read_once() -> Iterator[None]:
    """Spare each window the reading of napari's and our manifest, a fifth of its time.

    Every window still has its own copy of them.
    """
    read = cache(PluginManifest.from_file)

    def copied(path: Path | str) -> PluginManifest:
        return read(path).model_copy(deep=True)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PluginManifest, "from_file", copied)
        yield


@pytest.fixture(autouse=True)
def _short_collections(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Let napari, when layers go, collect what is new and not all that torch brought.

    It does so for drivers on Windows; here it would be a quarter of a window's test.
    """
    if request.node.get_closest_marker("gui") is not None:
        quick = SimpleNamespace(collect=partial(gc.collect, 1))
        monkeypatch.setattr("napari._vispy.canvas.gc", quick)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread: sums come out the same in every process."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
