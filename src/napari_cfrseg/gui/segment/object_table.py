"""The table of objects: colour, name, class, clicks, lock."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QColor, QIcon, QPixmap
from qtpy.QtWidgets import (
    QAbstractItemView,
    QColorDialog,
    QHeaderView,
    QTableWidget,
    QTableWidgetItem,
    QWidget,
)

from napari_cfrseg.gui.segment.dock_state import ObjectRow

_COLOUR, _NAME, _CLASS, _CLICKS, _LOCKED = range(5)


class ObjectTable(QTableWidget):  # type: ignore[misc]  # qtpy is untyped
    """Shows the objects and says what a person does with them.

    Signals carry the object's id: ``chosen(id)``, ``renamed(id, name)``,
    ``classified(id, class)``, ``recoloured(id, colour)``, ``locked(id, bool)``.
    """

    chosen = Signal(int)
    renamed = Signal(int, str)
    classified = Signal(int, str)
    recoloured = Signal(int, str)
    locked = Signal(int, bool)

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
        self.setMinimumHeight(110)
        # keys stay with the canvas
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.setToolTip(
            "Click a row to go on with that object; double-click its name, "
            "class or colour to change it."
        )
        self.itemSelectionChanged.connect(self._on_selection)
        self.itemChanged.connect(self._on_item)
        self.cellDoubleClicked.connect(self._on_double_click)

    def show_rows(self, rows: Sequence[ObjectRow], selected: int | None) -> None:
        """Show the objects and select one."""
        self._filling = True
        try:
            if tuple(rows) != self._rows:
                self._fill(tuple(rows))
            ids = [row.object_id for row in self._rows]
            if selected in ids:
                self.selectRow(ids.index(selected))
                self.scrollToItem(self.item(ids.index(selected), _NAME))
            else:
                self.clearSelection()
        finally:
            self._filling = False

    def _fill(self, rows: tuple[ObjectRow, ...]) -> None:
        self.setRowCount(len(rows))
        for y, row in enumerate(rows):
            if y < len(self._rows) and self._rows[y] == row:
                continue
            colour = QTableWidgetItem()
            swatch = QPixmap(14, 14)
            swatch.fill(QColor(row.colour))
            colour.setIcon(QIcon(swatch))
            colour.setFlags(Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable)
            colour.setToolTip(f"Label {row.object_id}. Double-click: another colour")
            name = QTableWidgetItem(row.name)
            name.setToolTip(f"Label {row.object_id}")
            kind = QTableWidgetItem(row.object_class)
            kind.setToolTip("What it is, for exports; double-click to say")
            clicks = QTableWidgetItem(str(row.clicks))
            clicks.setFlags(Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable)
            clicks.setTextAlignment(Qt.AlignmentFlag.AlignCenter)
            locked = QTableWidgetItem()
            locked.setFlags(
                Qt.ItemFlag.ItemIsEnabled
                | Qt.ItemFlag.ItemIsSelectable
                | Qt.ItemFlag.ItemIsUserCheckable
            )
            locked.setCheckState(
                Qt.CheckState.Checked if row.locked else Qt.CheckState.Unchecked
            )
            locked.setToolTip("A locked object never changes")
            for x, item in enumerate((colour, name, kind, clicks, locked)):
                self.setItem(y, x, item)
        self._rows = rows

    def _on_selection(self) -> None:
        chosen = self.selectionModel().selectedRows()
        if not self._filling and chosen:
            self.chosen.emit(self._rows[chosen[0].row()].object_id)

    def _on_item(self, item: QTableWidgetItem) -> None:
        if self._filling:
            return
        row = self._rows[item.row()]
        if item.column() == _NAME:
            self.renamed.emit(row.object_id, item.text())
        elif item.column() == _CLASS:
            self.classified.emit(row.object_id, item.text())
        elif item.column() == _LOCKED:
            locked = item.checkState() == Qt.CheckState.Checked
            if locked != row.locked:
                self.locked.emit(row.object_id, locked)

    def _on_double_click(self, y: int, x: int) -> None:
        if x != _COLOUR:
            return
        row = self._rows[y]
        colour = QColorDialog.getColor(QColor(row.colour), self, "Colour of the object")
        if colour.isValid():
            self.recoloured.emit(row.object_id, colour.name())
