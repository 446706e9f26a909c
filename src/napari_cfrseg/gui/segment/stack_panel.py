"""The stack controls of the dock: propagation, and a strip with a cell per plane."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QEvent, QRectF, QSignalBlocker, Qt, Signal
from qtpy.QtGui import QColor, QMouseEvent, QPainter, QPaintEvent
from qtpy.QtWidgets import QComboBox, QLabel, QSpinBox, QToolTip, QWidget

from napari_cfrseg.gui.dock_widget import button, check_box, column_in, on_current, row
from napari_cfrseg.gui.segment.dock_view import DockView, StackView, StripCell
from napari_cfrseg.gui.segment.layer_axes import along

if TYPE_CHECKING:
    from napari_cfrseg.gui.dock_widget import Current

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
        self.axis.setToolTip("What to propagate along")
        self.backward = button("◀ Back", "From this plane to the first")
        self.both = button("Both", "To all planes; what is up to date stays (Shift+D)")
        self.forward = button("Forward ▶", "From this plane to the last (D)")
        self.first, self.last = QSpinBox(), QSpinBox()
        self.range = button("Fill", "Carry the object to these planes only")
        said = "Fill: the object is on every one of these planes, and ends on none"
        self.spans = check_box("on each", said)
        said = "Every unlocked object, not just the selected one"
        self.every = check_box("all objects", said)
        self.strip = Strip()
        self.worst = button("Worst plane", "Go where a click helps most")
        self.confirm = button("Confirm", "The mask on this plane is right: an anchor")
        column = column_in(self, 4)
        column.addLayout(row(self.axis, self.every))
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
        over = does(lambda c, *planes: c.stack.over(*planes), takes=3)
        self.range.clicked.connect(
            lambda: over(self.first.value(), self.last.value(), self.spans.isChecked())
        )
        self.worst.clicked.connect(does(lambda c: c.stack.jump_to_worst()))
        self.confirm.clicked.connect(does(lambda c: c.stack.confirm()))
        self.every.toggled.connect(does(lambda c, on: c.stack.choose_all(on), takes=1))
        self.axis.activated.connect(does(lambda c, i: c.stack.choose_axis(i), takes=1))
        jump = does(lambda c, i: c.stack.jump(i), takes=1, at_once=True)
        self.strip.chosen.connect(jump)

    def show_view(self, view: DockView) -> None:
        """Show the state."""
        stack = view.stack
        with QSignalBlocker(self.every):
            self.every.setChecked(stack.all_objects)
        shown = [self.axis.itemText(i) for i in range(self.axis.count())]
        words = [along(name) for name in stack.axes]
        if shown != words:
            self.axis.clear()
            self.axis.addItems(words)
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
