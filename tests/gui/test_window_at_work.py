"""The window of a person at work: what repaints, what stays, where clicks go."""

from __future__ import annotations

import gc
import threading
import time
import weakref

import numpy as np
import pytest
from closed_form import FloodNetwork
from gui_window import DOCK, PLUGIN, flood, flood_window, squares
from qtpy.QtCore import QEvent, QObject, Qt, QTimer
from qtpy.QtTest import QTest
from qtpy.QtWidgets import (
    QDockWidget,
    QFileDialog,
    QMessageBox,
    QProgressBar,
    QPushButton,
    QWidget,
)

from napari_cfrseg.annotation.events import OverlapRule
from napari_cfrseg.engine.segmenter import Segmenter
from napari_cfrseg.gui.segment import dock as dock_module
from napari_cfrseg.gui.segment.click_layer import COLOURS
from napari_cfrseg.gui.segment.layers import to_rgba
from napari_cfrseg.gui.segment.worker import Job
from napari_cfrseg.session.session_file import journal_path, lock_path

pytestmark = [pytest.mark.gui, pytest.mark.timeout(600)]

FIRST, SECOND = (60, 60), (60, 180)
CONTROL = Qt.KeyboardModifier.ControlModifier
SHIFT = Qt.KeyboardModifier.ShiftModifier


@pytest.fixture
def window(make_napari_viewer, qtbot, npe2pm, plugin_settings, monkeypatch):
    with flood_window(
        make_napari_viewer, qtbot, npe2pm, monkeypatch, squares()
    ) as made:
        yield made


class SlowNetwork(FloodNetwork):
    """Waits in the middle of a click until it is released."""

    def __init__(self) -> None:
        super().__init__(0.2)
        self.reached, self.go_on = threading.Event(), threading.Event()

    def refine(self, *args, **kwargs):
        if self.go_on is not None:
            self.reached.set()
            self.go_on.wait(300)
        return super().refine(*args, **kwargs)


class Paints(QObject):
    """Counts the paint events of widgets."""

    count = 0

    def eventFilter(self, watched, event) -> bool:
        self.count += event.type() == QEvent.Type.Paint
        return False


def shown_colours(window) -> np.ndarray:
    """Return the canvas's (N, 3) pixels in 0 … 1."""
    return window.viewer.screenshot(flash=False)[..., :3].reshape(-1, 3) / 255


def has(colours: np.ndarray, wanted: str) -> bool:
    return bool((np.abs(colours - to_rgba(wanted)[:3]).max(axis=1) < 0.06).any())


def test_nothing_repaints_while_a_click_is_computed(window):
    """Any repaint in the window draws the canvas again and slows the click down."""
    network = SlowNetwork()
    network.go_on.set()
    window.dock.controller.load_model(lambda: Segmenter(network, device="cpu"))
    window.until(lambda: not window.view.loading)
    network.go_on.clear()
    network.reached.clear()
    window.click(*FIRST, settle=False)
    window.until(network.reached.is_set)
    window.qtbot.wait(300)  # what follows the click itself
    paints = Paints()
    watched = [window.canvas, *window.dock.findChildren(QWidget), window.dock]
    for widget in watched:
        widget.installEventFilter(paints)
    window.qtbot.wait(600)
    assert window.view.pending == 1
    assert paints.count == 0
    network.go_on.set()
    window.settle()
    for widget in watched:
        widget.removeEventFilter(paints)
    assert window.area(1) == 1600


def test_pressing_the_other_button_paints_nothing(window):
    """A frame then takes the processor from the click that is being computed."""
    window.click(*FIRST)
    place, paints = window.at(45, 45), Paints()
    controls = window.viewer.window._qt_viewer.controls.findChildren(QWidget)
    window.point(45, 45)
    window.qtbot.wait(700)  # what follows the click itself
    for widget in controls:
        widget.installEventFilter(paints)
    QTest.mousePress(window.canvas, Qt.MouseButton.RightButton, pos=place)
    window.qtbot.wait(300)
    assert paints.count == 0
    for widget in controls:
        widget.removeEventFilter(paints)
    QTest.mouseRelease(window.canvas, Qt.MouseButton.RightButton, pos=place)
    window.settle()
    assert [str(one) for one in window.points.symbol] == ["disc", "x"]
    assert np.allclose(window.points.face_color[1], to_rgba(COLOURS[False]))


def test_the_window_answers_between_a_mask_its_drawing_and_its_showing(window):
    """Changed layers are drawn, and what is drawn is shown, in turns of their own."""
    beats, log = [], []
    heart = QTimer(interval=1, timerType=Qt.TimerType.PreciseTimer)
    heart.timeout.connect(lambda: beats.append(0))

    def note(what: str) -> None:
        log.append((len(beats), what))
        time.sleep(0.005)  # a beat is due, as after a slow drawing

    window.click(*FIRST)
    window.press(Qt.Key.Key_N)
    window.labels.events.labels_update.connect(lambda: note("changed"))
    window.canvas._vispy_canvas.events.draw.connect(lambda _: note("drawn"))
    window.canvas.aboutToCompose.connect(lambda: note("shown"))
    heart.start()
    for attempt in range(10):
        log.clear()
        if attempt % 2:
            window.press(Qt.Key.Key_Z, CONTROL)
        else:
            window.click(*SECOND)
        window.until(lambda: any(what == "changed" for _, what in log))
        window.until(lambda: log[-1][1] == "shown")
        last = max(i for i, (_, what) in enumerate(log) if what == "changed")
        if not last or log[last - 1][1] != "drawn":
            break  # else what was drawn before is still to be shown
    heart.stop()
    (changed, _), (drawn, *is_drawn), (shown, *is_shown) = log[last : last + 3]
    assert [*is_drawn, *is_shown] == ["drawn", "shown"]
    assert changed < drawn < shown, log


def test_a_frame_is_whole_whatever_happens_before_it_is_shown(window):
    """The window is resized, and layers change again, between drawing and showing."""
    scene, window_of = window.canvas._vispy_canvas, window.canvas.window()
    acts = [
        lambda: window_of.resize(window_of.width() - 40, window_of.height() - 30),
        lambda: setattr(window.image, "visible", False),
        lambda: setattr(window.image, "visible", True),
        window_of.hide,
        window_of.show,
    ]
    for act in acts:
        waiting = [act]

        def on_draw(_, waiting=waiting) -> None:
            if waiting:  # its turn comes before Qt shows what is drawn
                QTimer.singleShot(0, waiting.pop())

        scene.events.draw.connect(on_draw)
        scene.update()
        if act == window_of.show:
            act()
        window.qtbot.wait(150)
        scene.events.draw.disconnect(on_draw)
        assert not waiting
    assert has(shown_colours(window), "#c8c8c8")
    shown = window.canvas.grabFramebuffer().pixelColor(window.at(60, 60))
    assert shown.lightness() > 150


def test_layers_that_change_before_the_window_is_shown_are_drawn_in_a_turn(window):
    """A mask may come between the request to show the window and its answer."""
    beats, log = [], []
    heart = QTimer(interval=1, timerType=Qt.TimerType.PreciseTimer)
    heart.timeout.connect(lambda: beats.append(0))

    def note(what: str) -> None:
        log.append((len(beats), what))
        time.sleep(0.005)  # a beat is due

    class Changes(QObject):
        requests = 0

        def eventFilter(self, watched, event) -> bool:
            self.requests += event.type() == QEvent.Type.UpdateRequest
            if self.requests == 2 and window.image.visible:
                window.image.visible = False  # the second one was to be answered
            return False

    window.qtbot.wait(100)
    window.canvas._vispy_canvas.events.draw.connect(lambda _: note("drawn"))
    window.canvas.aboutToCompose.connect(lambda: note("shown"))
    changes = Changes()
    window.canvas.window().installEventFilter(changes)
    heart.start()
    window.canvas.update()
    window.until(
        lambda: not window.image.visible and "shown" in dict(map(reversed, log))
    )
    window.until(lambda: log[-1][1] == "shown")
    heart.stop()
    window.canvas.window().removeEventFilter(changes)
    (drawn, *is_drawn), (shown, *is_shown) = log[-2:]
    assert [*is_drawn, *is_shown] == ["drawn", "shown"]
    assert drawn < shown, log


def test_canvas_is_drawn_as_before_once_the_dock_is_closed(window):
    assert "paintGL" in vars(window.canvas)
    window.dock.let_go()
    assert not {"_vispy_update", "paintGL"} & {*vars(window.canvas)}
    drawn = []
    window.canvas._vispy_canvas.events.draw.connect(drawn.append)
    window.image.visible = False
    window.until(lambda: bool(drawn))


def test_a_click_made_while_the_model_loads_is_computed_once_it_is_there(window):
    gate = threading.Event()

    def load():
        gate.wait(300)
        return Segmenter(FloodNetwork(0.2), device="cpu")

    window.dock.controller.load_model(load)
    window.click(*FIRST, settle=False)
    window.qtbot.wait(50)
    assert window.view.loading
    assert window.view.pending == 1
    gate.set()
    window.until(lambda: not window.view.loading)
    window.settle()
    assert window.area(1) == 1600


def test_esc_while_another_model_loads_keeps_the_one_in_use(window):
    controller, go_on = window.dock.controller, threading.Event()
    other = Segmenter(FloodNetwork(0.9), device="cpu")
    before = controller.view.model

    def load():
        go_on.wait(300)
        return other

    assert before
    controller.load_model(load, "other")
    cancel = window.dock.status.cancel
    assert cancel.isEnabled()
    assert window.dock.model_choice.value == "other"
    cancel.click()
    assert controller.view.status == "Given up."
    go_on.set()
    window.until(lambda: not window.view.loading)
    assert controller.view.status == f"{before} stays in use."
    assert window.dock.model_choice.value == controller.annotator.model == before
    assert not cancel.isEnabled()
    window.click(*FIRST)
    assert window.area(1) == 1600
    controller.load_model(load, "other")
    window.until(lambda: not window.view.loading)
    assert controller.annotator.model == "other"


def test_the_first_model_s_loading_can_be_given_up_and_begun_again(window, monkeypatch):
    dock, _ = window.viewer.window.add_plugin_dock_widget(PLUGIN, DOCK)
    dock.title.close_button.click()
    gate = threading.Event()
    slow = (lambda _: gate.wait(300) and flood(), None)
    monkeypatch.setattr(dock_module.ClickDock.__init__, "__defaults__", slow)
    _, window.dock = window.viewer.window.add_plugin_dock_widget(PLUGIN, DOCK)
    window.until(lambda: window.dock.controller is not None)
    cancel, remedy = window.dock.status.cancel, window.dock.status.remedy
    window.until(cancel.isEnabled)
    cancel.click()
    gate.set()
    window.until(lambda: not window.view.loading)
    assert window.view.status == "No model is loaded."
    assert not cancel.isEnabled()
    assert remedy.text() == "Load the model"
    window.click(*FIRST)
    assert "no model is loaded" in window.view.status
    remedy.click()
    window.until(lambda: not window.view.loading)
    assert remedy.isHidden()
    window.click(*FIRST)
    assert window.area(1) == 1600


def test_markers_keep_the_colour_of_their_sign_when_selected(window):
    window.click(*FIRST)
    window.click(20, 60, Qt.MouseButton.RightButton)
    window.points.selected_data = {1}
    window.qtbot.wait(50)
    assert has(shown_colours(window), COLOURS[False])
    window.points.selected_data = set()


def test_after_undoing_and_redoing_all_the_next_click_goes_to_the_last_object(window):
    for place in (FIRST, SECOND):
        window.press(Qt.Key.Key_N)
        for shift in range(7):
            window.click(place[0] + shift, place[1])
    labels = window.labels.data.copy()
    for _ in range(14):
        window.press(Qt.Key.Key_Z, CONTROL)
    assert not window.view.objects
    for _ in range(14):
        window.press(Qt.Key.Key_Z, CONTROL | SHIFT)
    assert np.array_equal(window.labels.data, labels)
    assert window.view.selected == 2
    assert "Object 2" in window.view.status
    window.click(65, 185)
    assert [one.clicks for one in window.view.objects] == [7, 8]


def test_an_earlier_object_goes_with_its_clicks(window):
    """Those left have other colours: napari draws these while it still knows more."""
    window.click(*FIRST)
    window.press(Qt.Key.Key_N)
    window.click(*SECOND)
    window.click(20, 60, Qt.MouseButton.RightButton)
    window.dock.controller.select(1)
    window.dock.controller.delete_selected()
    window.qtbot.waitUntil(lambda: len(window.points.data) == 2)
    assert [row.object_id for row in window.dock.controller.clicks.rows] == [2, 2]
    assert [str(one) for one in window.points.symbol] == ["disc", "x"]


def test_a_click_where_an_object_is_selects_it_unless_it_gives_its_pixels(window):
    window.click(*FIRST)
    for move in (False, True):  # with and without a click computed ahead
        window.press(Qt.Key.Key_N)
        if move:
            window.point(*FIRST)
            window.qtbot.wait(400)
        window.click(*FIRST)
        assert window.view.selected == 1
        assert [one.clicks for one in window.view.objects] == [1]
        assert len(window.points.data) == 1
        assert window.view.status.startswith("Object 1 is there: clicks go to it now.")
    window.click(61, 62)
    assert [one.clicks for one in window.view.objects] == [2]
    window.press(Qt.Key.Key_N)
    window.dock.settings.rule.value = OverlapRule.OVERWRITE
    window.settle()
    window.click(*FIRST)
    assert [one.clicks for one in window.view.objects] == [2, 1]
    assert window.labels.data[FIRST] == 2


def test_a_click_in_a_neighbour_says_why_its_pixel_stays(window):
    window.click(*FIRST)
    window.press(Qt.Key.Key_N)
    window.click(*SECOND)
    window.click(*FIRST)
    assert window.area(1) == 1600
    assert window.view.status == "Object 1 keeps its pixels (overlap rule: keep)"


def test_sections_open_as_they_were_left_in_the_next_dock(window):
    sections = window.dock.sections
    assert not sections["outline"].isExpanded()
    sections["outline"].expand(animate=False)
    assert not sections["session"].isExpanded()
    sections["session"].expand(animate=False)
    viewer = window.viewer
    viewer.window.remove_dock_widget(window.dock)
    _, dock = viewer.window.add_plugin_dock_widget(PLUGIN, DOCK)
    window.until(lambda: dock.controller is not None)
    window.until(lambda: not dock.controller.view.loading)
    assert dock.sections["outline"].isExpanded()
    assert dock.sections["session"].isExpanded()
    assert dock.sections["outline"].text().startswith("▾")
    dock.sections["outline"].toggleButton().click()
    assert dock.sections["outline"].text().startswith("▸")
    dock.let_go()


def test_a_section_that_would_not_fit_folds_the_others(window):
    dock, sections = window.dock, window.dock.sections
    dock.sections["stack"].show()
    inner, area = dock.area.widget(), dock.area
    for height, all_fit in ((1000, True), (720, False)):
        window.viewer.window.resize(1280, height)
        for name in ("session", "stack", "outline"):
            sections[name].collapse(animate=False)
        for name in ("session", "stack", "outline"):
            sections[name].toggleButton().click()
            QTest.qWait(50)
        window.until(lambda fit=all_fit: sections["stack"].isExpanded() == fit)
        assert sections["outline"].isExpanded()
        assert not area.horizontalScrollBar().isVisible()
        window.until(lambda: inner.minimumSizeHint().height() <= dock.height())
        bar = area.verticalScrollBar().sizeHint().width()
        assert inner.minimumSizeHint().width() + bar <= dock.minimumWidth()


def test_all_keys_fit_a_small_screen(window):
    window.dock.status.show_keys()
    (box,) = window.dock.status.findChildren(QMessageBox)
    assert box.sizeHint().height() < 700
    assert box.sizeHint().width() < 1280
    assert "right-click" in box.text()
    box.close()


def test_one_progress_bar_and_one_cancel_and_the_docks_are_tabs(window):
    assert len(window.dock.findChildren(QProgressBar)) == 1
    buttons = [b.text() for b in window.dock.findChildren(QPushButton)]
    assert buttons.count("Cancel") == 1
    main = window.dock.window()
    _, other = window.viewer.window.add_plugin_dock_widget(
        PLUGIN, "Fine-tune on your labels"
    )

    def dock_of(widget):
        while not isinstance(widget, QDockWidget):
            widget = widget.parent()
        return widget

    window.until(
        lambda: dock_of(other) in main.tabifiedDockWidgets(dock_of(window.dock))
    )
    window.until(lambda: not other.visibleRegion().isEmpty())
    assert window.dock.visibleRegion().isEmpty()
    other.let_go()


def test_the_window_answers_while_objects_are_measured(window, tmp_path, monkeypatch):
    window.click(*FIRST)
    target, gate = tmp_path / "a.measurements.csv", threading.Event()
    monkeypatch.setattr(
        QFileDialog, "getSaveFileName", lambda *_: (str(target), "measurements")
    )
    window.dock.controller.runner.submit(
        Job(lambda _: gate.wait(300), lambda _: None, lambda _: None)
    )
    window.dock.sessions.export_button.click()
    assert window.view.status == "Exporting to a.measurements.csv …"
    assert window.dock.status.cancel.isEnabled()
    assert not target.exists()
    window.dock.status.cancel.click()
    gate.set()
    window.until(lambda: window.view.status == "a.measurements.csv was not exported.")
    assert not target.exists()
    assert not window.dock.status.cancel.isEnabled()
    window.dock.sessions.export_button.click()
    window.until(lambda: window.view.status == "Exported to a.measurements.csv.")
    assert list(window.labels.features["area_px"]) == [1600]
    assert len(target.read_text().splitlines()) == 2


def test_a_saved_session_leaves_no_journal_and_no_lock_when_the_window_closes(
    window, tmp_path
):
    window.click(*FIRST)
    target = tmp_path / "a.cfrseg.json"
    window.dock.sessions.keeper.save(target)
    window.click(60, 62)
    assert journal_path(target).exists()
    window.dock.let_go()
    assert [path.name for path in tmp_path.iterdir()] == [target.name]
    assert not lock_path(target).exists()


def test_a_click_paints_the_status_line_once_and_it_grows_with_its_text(window):
    window.click(*FIRST)
    window.qtbot.wait(300)
    line, paints = window.dock.status.text, Paints()
    line.label.installEventFilter(paints)
    window.click(60, 75)
    window.qtbot.wait(300)
    assert "2 clicks" in line.text()
    assert paints.count == 1  # no layout was done again, each of which paints it
    before = line.height()
    window.dock.controller.say("What is wrong, and what helps. " * 12)
    window.qtbot.wait(100)
    needed = line.label.heightForWidth(line.width())
    assert line.height() == line.label.height() >= needed > before
    window.dock.controller.say("Short.")
    window.qtbot.wait(100)
    assert line.height() < needed


def test_an_image_that_was_removed_is_freed_with_its_network(window):
    """The worker kept its last job, and by it the image, labels, undo and network."""
    window.click(*FIRST)
    controller = window.dock.controller
    gone = [weakref.ref(x) for x in (controller, controller.annotator)]
    del controller
    window.image = None
    window.viewer.layers.clear()
    window.until(lambda: window.dock.controller is None)

    def is_gone() -> bool:
        window.dock._collections.thaw()
        gc.collect()
        return not any(one() is not None for one in gone)

    window.qtbot.waitUntil(is_gone)
