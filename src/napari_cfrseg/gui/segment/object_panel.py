"""The dock's objects: polarity, the table of objects, undo and focus."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtGui import QColor, QIcon, QPixmap
from qtpy.QtWidgets import (
    QAbstractItemView,
    QButtonGroup,
    QColorDialog,
    QHeaderView,
    QTableWidget,
    QTableWidgetItem,
    QWidget,
)

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.gui.dock_widget import button, check_box, column_in, on_current, row
from napari_cfrseg.gui.preferences import ACTIONS, shown_key
from napari_cfrseg.gui.segment.click_layer import COLOURS
from napari_cfrseg.gui.segment.projection import DockView, ObjectRow

if TYPE_CHECKING:
    from napari_cfrseg.gui.dock_widget import Current

_COLOUR, _NAME, _CLASS, _CLICKS, _LOCKED = range(5)
_FIXED = Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable
_CHECKABLE = _FIXED | Qt.ItemFlag.ItemIsUserCheckable


def _item(text: str, tooltip: str, flags: Any = None) -> QTableWidgetItem:
    made = QTableWidgetItem(text)
    made.setToolTip(tooltip)
    if flags is not None:
        made.setFlags(flags)
    return made


class ObjectTable(QTableWidget):  # type: ignore[misc]  # qtpy is untyped
    """Shows the objects; signals the object chosen and events made of edits."""

    chosen = Signal(int)
    acted = Signal(object)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(0, 5, parent)
        self._rows: tuple[ObjectRow, ...] = ()
        self._filling = False
        self.setHorizontalHeaderLabels(["", "Object", "Class", "Clicks", "Locked"])
        header = self.horizontalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(_NAME, QHeaderView.ResizeMode.Stretch)
        header.setMinimumSectionSize(24)
        header.setHighlightSections(False)
        self.verticalHeader().setVisible(False)
        self.verticalHeader().setDefaultSectionSize(24)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.DoubleClicked)
        self.setMinimumHeight(120)
        # keys stay with the canvas
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.setToolTip(
            "Click a row to continue with that object; double-click its name, "
            "class or colour to change it."
        )
        self.itemSelectionChanged.connect(self._on_selection)
        self.itemChanged.connect(self._on_item)
        self.cellDoubleClicked.connect(self._on_double_click)

    def sizeHint(self) -> QSize:
        """Ask for a few rows; the layout gives all the room there is."""
        return QSize(240, self.minimumHeight())

    def show_rows(self, rows: Sequence[ObjectRow], selected: int | None) -> None:
        """Show the objects and select one."""
        self._filling = True
        try:
            if tuple(rows) != self._rows:
                self._fill(tuple(rows))
            ids = [one.object_id for one in self._rows]
            if selected in ids:
                self.selectRow(ids.index(selected))
                self.scrollToItem(self.item(ids.index(selected), _NAME))
            else:
                self.clearSelection()
        finally:
            self._filling = False

    def _fill(self, rows: tuple[ObjectRow, ...]) -> None:
        self.setRowCount(len(rows))
        for y, one in enumerate(rows):
            if y < len(self._rows) and self._rows[y] == one:
                continue
            swatch = QPixmap(14, 14)
            swatch.fill(QColor(one.colour))
            number = f"Label {one.object_id}"
            items = (
                _item("", f"{number}. Double-click: another colour", _FIXED),
                _item(one.name, number),
                _item(one.object_class, "For exports; double-click to change it"),
                _item(str(one.clicks), "", _FIXED),
                _item("", "A locked object never changes", _CHECKABLE),
            )
            items[_COLOUR].setIcon(QIcon(swatch))
            items[_CLICKS].setTextAlignment(Qt.AlignmentFlag.AlignCenter)
            check = Qt.CheckState.Checked if one.locked else Qt.CheckState.Unchecked
            items[_LOCKED].setCheckState(check)
            for x, item in enumerate(items):
                self.setItem(y, x, item)
        self._rows = rows

    def _on_selection(self) -> None:
        chosen = self.selectionModel().selectedRows()
        if not self._filling and chosen:
            self.chosen.emit(self._rows[chosen[0].row()].object_id)

    def _on_item(self, item: QTableWidgetItem) -> None:
        if self._filling:
            return
        changed = self._rows[item.row()]
        text = item.text().strip()
        if item.column() == _NAME and text and text != changed.name:
            self.acted.emit(ev.ObjectRenamed(changed.object_id, text))
        elif item.column() == _CLASS and text != changed.object_class:
            self.acted.emit(ev.ObjectClassified(changed.object_id, text))
        elif item.column() == _LOCKED:
            locked = item.checkState() == Qt.CheckState.Checked
            if locked != changed.locked:
                self.acted.emit(ev.ObjectLocked(changed.object_id, locked))

    def _on_double_click(self, y: int, x: int) -> None:
        if x != _COLOUR:
            return
        clicked = self._rows[y]
        title = "Colour of the object"
        colour = QColorDialog.getColor(QColor(clicked.colour), self, title)
        if colour.isValid():
            self.acted.emit(ev.ObjectRecoloured(clicked.object_id, colour.name()))


class ObjectPanel(QWidget):  # type: ignore[misc]  # qtpy is untyped
    """Polarity, objects, undo."""

    def __init__(self, keys: dict[str, str]) -> None:
        super().__init__()
        key = {action.name: shown_key(keys, action.name) for action in ACTIONS}
        swap = f"{key['polarity']} swaps; right-click: the other"
        self.positive = button("● Positive", f"Belongs to it. {swap}", checkable=True)
        self.negative = button("✕ Negative", f"Does not. {swap}", checkable=True)
        for is_positive, sign in ((True, self.positive), (False, self.negative)):
            sign.setStyleSheet(
                f"QPushButton:checked {{ background: {COLOURS[is_positive]}; "
                "color: black; font-weight: bold; }"
            )
        group = QButtonGroup(self)
        group.addButton(self.positive)
        group.addButton(self.negative)
        text = f"Another mask of the object's first click ({key['other_mask']})"
        self.other = button("Other mask", text)
        self.table = ObjectTable()
        self.new = button("Next", f"Start the next object ({key['new_object']})")
        said = "A click far from the object begins the next one"
        self.auto_next = check_box("auto-next", said)
        self.delete = button("Delete", "Delete the selected object")
        self.reset = button(
            "Reset", f"Remove its clicks on this plane ({key['reset_object']})"
        )
        self.undo = button("Undo", f"Clicks and labels together ({key['undo']})")
        self.redo = button("Redo", f"Clicks and labels together ({key['redo']})")
        self.closer = button("Smaller", f"It is a smaller structure ({key['closer']})")
        self.wider = button("Larger", f"It is a larger structure ({key['wider']})")
        column = column_in(self, 4)
        column.addLayout(row(self.positive, self.negative, self.other))
        column.addWidget(self.table, stretch=1)
        column.addLayout(row(self.new, self.undo, self.redo, self.auto_next))
        column.addLayout(row(self.closer, self.wider, self.reset, self.delete))

    def connect_to(self, current: Current) -> None:
        """Let the controls act on the controller that ``current`` returns."""
        does = partial(on_current, current)
        self.positive.clicked.connect(does(lambda c: c.set_polarity(True)))
        self.negative.clicked.connect(does(lambda c: c.set_polarity(False)))
        self.new.clicked.connect(does(lambda c: c.new_object()))
        self.other.clicked.connect(does(lambda c: c.other_mask()))
        self.reset.clicked.connect(does(lambda c: c.reset_object()))
        self.undo.clicked.connect(does(lambda c: c.undo()))
        self.redo.clicked.connect(does(lambda c: c.redo()))
        self.closer.clicked.connect(does(lambda c: c.shift_focus(-1)))
        self.wider.clicked.connect(does(lambda c: c.shift_focus(+1)))
        self.delete.clicked.connect(does(lambda c: c.delete_selected()))
        self.auto_next.toggled.connect(
            lambda on: does(lambda c: setattr(c, "auto_next", on))()
        )
        self.table.chosen.connect(lambda i: does(lambda c: c.choose(i))())
        self.table.acted.connect(lambda event: does(lambda c: c.submit(event))())

    def show_view(self, view: DockView) -> None:
        """Show the state."""
        self.positive.setChecked(view.is_positive)
        self.negative.setChecked(not view.is_positive)
        self.table.show_rows(view.objects, view.selected)
        has_object = view.selected is not None
        self.delete.setEnabled(has_object)
        self.reset.setEnabled(has_object)
        self.undo.setEnabled(view.undo_depth > 0 or view.pending > 0)
        self.redo.setEnabled(view.redo_depth > 0)
