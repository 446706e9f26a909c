"""The dock's settings, its stack controls, and its status line."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from magicgui.widgets import ComboBox, FloatSlider, SpinBox
from qtpy.QtCore import QEvent, QRectF, Qt, Signal
from qtpy.QtGui import QColor, QMouseEvent, QPainter, QPaintEvent
from qtpy.QtWidgets import (
    QComboBox,
    QLabel,
    QMessageBox,
    QProgressBar,
    QSpinBox,
    QToolTip,
    QWidget,
)

from napari_cfrseg.annotation.events import OverlapRule
from napari_cfrseg.engine.refinement import Refinement
from napari_cfrseg.gui.dock_widget import (
    button,
    check_box,
    column_in,
    form,
    on_current,
    row,
)
from napari_cfrseg.gui.preferences import ACTIONS, Preferences, shown_key
from napari_cfrseg.gui.segment.projection import DockView
from napari_cfrseg.gui.segment.propagator import StackView, StripCell

if TYPE_CHECKING:
    from napari_cfrseg.gui.dock_widget import Current
    from napari_cfrseg.gui.segment.controller import Controller

_REFINEMENTS = {
    "once": "standard",
    "a fixed number of times (CFR)": "cfr",
    "until it stops changing (A-CFR)": "a-cfr",
}
_MOUSE = "".join(
    f"<tr><td><b>{how}</b></td><td>{what}</td></tr>"
    for how, what in (
        ("click", "belongs to the object"),
        ("right-click", "the other sign"),
        ("Alt+click", "select the object there"),
        ("Tab, Shift+Tab", "another mask, the mask before"),
        ("Ctrl+wheel, Shift+wheel", "outline wider, tighter (in a stack: Shift)"),
        ("?", "show all keys"),
    )
)
_RULES = {
    "neighbours keep their pixels": OverlapRule.KEEP,
    "this object takes them": OverlapRule.OVERWRITE,
}


class SettingsPanel(QWidget):  # type: ignore[misc]  # qtpy is untyped
    """Outline, overlap, how often the network looks, and what is displayed."""

    def __init__(self, preferences: Preferences) -> None:
        super().__init__()
        refinement = preferences.refinement
        self.kind = ComboBox(
            label="Looks",
            choices=list(_REFINEMENTS.items()),
            value=refinement.kind,
            tooltip="How the network refines its own mask after a click",
        )
        self.steps = SpinBox(
            label="More looks",
            value=refinement.extra_steps or Refinement.adaptive().extra_steps,
            min=1,
            max=20,
            tooltip="At most this many refinement steps (n of CFR-n and A-CFR-n)",
        )
        self.changed_px = SpinBox(
            label="Still at",
            value=refinement.stop_changed_px,
            min=0,
            max=10_000,
            tooltip="Stop once a step changes at most this many pixels",
        )
        self.threshold = FloatSlider(
            label="Outline",
            value=preferences.threshold,
            min=0.05,
            max=0.95,
            step=0.01,
            tooltip="Left: wider, right: tighter. The selected object follows at once",
        )
        self.rule = ComboBox(
            label="Overlap",
            choices=list(_RULES.items()),
            value=preferences.rule,
            tooltip="Who gets a pixel of two objects; locked ones always keep theirs",
        )
        said = "Draw objects as outlines, not as filled areas"
        self.outlines = check_box("outlines only", said)
        said = "Show the clicks of the selected object only"
        self.own_clicks = check_box("only its clicks", said)
        column = column_in(self)
        looks = (self.kind, self.steps, self.changed_px)
        column.addLayout(form(self.threshold, self.rule, *looks))
        column.addLayout(row(self.outlines, self.own_clicks))
        self._enable()

    def connect_to(self, current: Current) -> None:
        """Let the controls act on the controller that ``current`` returns."""
        does = partial(on_current, current)
        for widget in (self.kind, self.steps, self.changed_px):
            widget.changed.connect(self._enable)
            widget.changed.connect(does(lambda c: c.set_refinement(self.refinement)))
        self.threshold.changed.connect(
            does(lambda c: c.set_threshold(float(self.threshold.value)))
        )
        self.rule.changed.connect(does(lambda c: c.set_rule(self.rule.value)))
        for box in (self.outlines, self.own_clicks):
            box.toggled.connect(does(self.display_on))

    def display_on(self, controller: Controller) -> None:
        """Let a controller's layers be displayed as chosen here."""
        controller.labels.show_outlines(self.outlines.isChecked())
        controller.clicks.show_own_only(self.own_clicks.isChecked())

    @property
    def refinement(self) -> Refinement:
        """The refinement chosen."""
        kind = self.kind.value
        steps = 0 if kind == "standard" else int(self.steps.value)
        return Refinement(kind, steps, int(self.changed_px.value))

    def show_view(self, view: DockView) -> None:
        """Show the state; what is shown already is not touched."""
        shown: list[tuple[Any, Any]] = [(self.rule, view.rule)]
        if abs(self.threshold.value - view.threshold) > 1e-6:
            shown.append((self.threshold, view.threshold))
        if self.refinement != view.refinement:
            found = view.refinement
            shown += [(self.kind, found.kind), (self.changed_px, found.stop_changed_px)]
            if found.extra_steps:
                shown.append((self.steps, found.extra_steps))
        for widget, value in shown:
            with widget.changed.blocked():
                widget.value = value
        self._enable()

    def _enable(self, _: Any = None) -> None:
        self.steps.enabled = self.kind.value != "standard"
        self.changed_px.enabled = self.kind.value == "a-cfr"


#: cividis, dark for unsure to bright for sure: readable without seeing red and green
_UNSURE, _MIDDLE, _SURE = (0, 50, 110), (124, 123, 120), (254, 232, 56)
_COLOURS = {"anchor": "#ffffff", "none": "#30343c", "stopped": "#b4413c"}


def colour_of(cell: StripCell) -> QColor:
    """Return a cell's colour."""
    if cell.kind != "carried":
        return QColor(_COLOURS[cell.kind])
    share = min(max(cell.confidence, 0.0), 1.0)
    scale = zip(_UNSURE, _MIDDLE, _SURE, strict=True)
    return QColor(*(round(np.interp(share, (0, 0.5, 1), rgb)) for rgb in scale))


class Strip(QWidget):  # type: ignore[misc]  # qtpy is untyped
    """One cell per plane: white where annotated, else coloured by confidence."""

    chosen = Signal(int)

    def __init__(self) -> None:
        super().__init__()
        self.setFixedHeight(26)
        self.setMouseTracking(True)
        self._view = StackView()

    def show_view(self, view: StackView) -> None:
        """Show other planes."""
        self._view = view
        self.update()

    def plane_at(self, x: float) -> int | None:
        """Return the plane under a horizontal place, None if there is none."""
        count = len(self._view.cells)
        if not count or not 0 <= x < self.width():
            return None
        return min(int(x * count / self.width()), count - 1)

    def paintEvent(self, _: QPaintEvent) -> None:
        """Draw the cells, and a mark at the plane shown."""
        painter = QPainter(self)
        count = len(self._view.cells)
        if not count:
            return
        width = self.width() / count
        gap = 1.0 if width >= 4 else 0.0
        for index, cell in enumerate(self._view.cells):
            box = QRectF(index * width, 4, max(width - gap, 1.0), self.height() - 8)
            painter.fillRect(box, colour_of(cell))
        here = QRectF(self._view.here * width, 0, max(width - gap, 2.0), 3)
        painter.fillRect(here, QColor("#ff9f1c"))
        if self._view.worst is not None:
            left = self._view.worst * width
            low = QRectF(left, self.height() - 3, max(width - gap, 2.0), 3)
            painter.fillRect(low, QColor("#e84a8a"))

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Go to the plane clicked on."""
        index = self.plane_at(event.position().x())
        if index is not None and event.button() == Qt.MouseButton.LeftButton:
            self.chosen.emit(index)

    def event(self, event: QEvent) -> bool:
        """Say what is on the plane under the mouse."""
        if event.type() == QEvent.Type.ToolTip:
            index = self.plane_at(event.pos().x())
            if index is not None:
                text = self._view.cells[index].text
                QToolTip.showText(event.globalPos(), text, self)
            return True
        return bool(super().event(event))


class StackPanel(QWidget):  # type: ignore[misc]  # qtpy is untyped
    """Propagation; hidden where the image has one plane."""

    def __init__(self) -> None:
        super().__init__()
        self.axis = QComboBox()
        self.axis.setToolTip("The axis to propagate along")
        self.backward = button("◀ Back", "From this plane to the first")
        self.both = button("Both", "To all planes; what is up to date stays (Shift+D)")
        self.forward = button("Forward ▶", "From this plane to the last (D)")
        self.first, self.last = QSpinBox(), QSpinBox()
        self.range = button("Only", "Propagate within these planes")
        said = "Range only: the object reaches from the first of its planes to the last"
        self.spans = check_box("spans it", said)
        said = "Every unlocked object, not just the selected one"
        self.every = check_box("all objects", said)
        self.strip = Strip()
        self.worst = button("Worst plane", "Go where a click helps most")
        self.confirm = button("Confirm", "The mask on this plane is right: an anchor")
        column = column_in(self, 4)
        column.addLayout(row(QLabel("Along"), self.axis, self.every))
        column.addLayout(row(self.backward, self.both, self.forward))
        for box in (self.first, self.last):
            # arrows would make the dock wider than its other rows
            box.setButtonSymbols(QSpinBox.ButtonSymbols.NoButtons)
            box.setMaximumWidth(48)
        column.addLayout(
            row(self.range, self.first, QLabel("to"), self.last, self.spans)
        )
        column.addWidget(self.strip)
        column.addLayout(row(self.worst, self.confirm))

    def connect_to(self, current: Current) -> None:
        """Let the controls act on the controller that ``current`` returns."""
        does = partial(on_current, current)

        self.forward.clicked.connect(does(lambda c: c.stack.forward()))
        self.backward.clicked.connect(does(lambda c: c.stack.backward()))
        self.both.clicked.connect(does(lambda c: c.stack.both()))
        self.range.clicked.connect(does(self._over))
        self.worst.clicked.connect(does(lambda c: c.stack.jump_to_worst()))
        self.confirm.clicked.connect(does(lambda c: c.stack.confirm()))
        self.every.toggled.connect(
            does(lambda c: c.stack.choose_all(self.every.isChecked()))
        )
        self.axis.activated.connect(
            does(lambda c: c.stack.choose_axis(self.axis.currentText()))
        )
        self.strip.chosen.connect(lambda i: does(lambda c: c.stack.jump(i))())

    def show_view(self, view: DockView) -> None:
        """Show the state."""
        stack = view.stack
        names = [self.axis.itemText(i) for i in range(self.axis.count())]
        if tuple(names) != stack.axes:
            self.axis.clear()
            self.axis.addItems(list(stack.axes))
        if stack.axes:
            self.axis.setCurrentIndex(stack.axis)
            self.axis.setEnabled(len(stack.axes) > 1)
        count = len(stack.cells)
        if count and self.last.maximum() != count - 1:
            for box, value in ((self.first, 0), (self.last, count - 1)):
                box.setRange(0, count - 1)
                box.setValue(value)
        self.strip.show_view(stack)
        self.worst.setEnabled(stack.worst is not None)

    def _over(self, controller: Controller) -> None:
        controller.stack.spans = self.spans.isChecked()
        controller.stack.over(self.first.value(), self.last.value())
        controller.stack.spans = False


class StatusPanel(QWidget):  # type: ignore[misc]  # qtpy is untyped
    """The status line, with a button that mends what it speaks of, and progress.

    Nothing here is animated: any repaint in the dock makes Qt compose the whole window
    again, the canvas included, and takes the processor from the click.
    """

    def __init__(self, keys: dict[str, str]) -> None:
        super().__init__()
        self.text = QLabel()
        self.text.setWordWrap(True)
        self.text.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.text.setMinimumHeight(2 * self.text.fontMetrics().height())
        self.text.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.remedy = button("", "")
        self.remedy.setVisible(False)
        self.timing = QLabel()
        self.timing.setToolTip("Device, time and refinement steps of the last click")
        self.bar = QProgressBar()
        self.bar.setFixedHeight(12)
        self.bar.setVisible(False)
        self.cancel = button("Cancel", "Cancel what is being computed (Esc)")
        self.cancel.setEnabled(False)
        self.help = button("?", "All keys (F1 or ?)")
        self.help.setFixedWidth(28)
        self.help.clicked.connect(lambda: self.show_keys())
        self._keys = keys
        column = column_in(self, 2)
        column.addWidget(self.text)
        column.addWidget(self.remedy)
        below = row(self.timing, self.bar, self.cancel, self.help)
        below.setStretch(0, 1)
        below.setStretch(1, 2)
        column.addLayout(below)

    def connect_to(self, current: Current) -> None:
        """Let the controls act on the controller that ``current`` returns."""
        self.cancel.clicked.connect(on_current(current, lambda c: c.cancel_pending()))
        self.remedy.clicked.connect(on_current(current, lambda c: c.mend()))

    def show_view(self, view: DockView) -> None:
        """Show the state."""
        self.text.setText(view.status)
        self.remedy.setVisible(view.remedy is not None)
        self.remedy.setText("" if view.remedy is None else view.remedy.text)
        self.cancel.setEnabled(view.pending > 0)
        done, total = view.progress
        self.bar.setVisible(total > 0)
        self.bar.setMaximum(max(total, 1))
        self.bar.setValue(done)
        self.timing.setVisible(total == 0)
        waiting = f" ({view.pending})" if view.pending > 1 else ""
        self.timing.setText(f"computing …{waiting}" if view.pending else view.timing)

    def show_keys(self) -> None:
        """Show all keys in a window of their own."""
        rows = [(shown_key(self._keys, a.name), a.text) for a in ACTIONS]
        text = "".join(f"<tr><td><b>{k}</b></td><td>{t}</td></tr>" for k, t in rows)
        box = QMessageBox(self)
        box.setWindowTitle("Keys")
        box.setText(f"<table cellpadding=3>{text}{_MOUSE}</table>")
        box.setInformativeText("Keys can be changed in Preferences → CFR-Seg.")
        box.setModal(False)
        box.show()
