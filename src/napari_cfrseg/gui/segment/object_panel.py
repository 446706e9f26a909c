"""The dock's objects: polarity, the table of objects, undo and focus."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QItemSelectionModel, QSignalBlocker, QSize, Qt, Signal
from qtpy.QtGui import QColor, QIcon, QPixmap
from qtpy.QtWidgets import (
    QAbstractItemView,
    QButtonGroup,
    QColorDialog,
    QHeaderView,
    QInputDialog,
    QMenu,
    QSlider,
    QTableWidget,
    QTableWidgetItem,
    QWidget,
)

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.errors import counted
from napari_cfrseg.gui.dock_widget import button, check_box, column_in, on_current, row
from napari_cfrseg.gui.preferences import ACTIONS, shown_key
from napari_cfrseg.gui.segment.click_layer import COLOURS
from napari_cfrseg.gui.segment.dock_view import DockView, ObjectRow

if TYPE_CHECKING:
    from napari_cfrseg.gui.dock_widget import Current
    from napari_cfrseg.gui.segment.controller import Controller

_COLOUR, _NAME, _CLASS, _AREA, _CLICKS, _LOCKED, _PLANES = range(7)
#: by what a column is sorted; a name by its words, then by the object's number
_KEYS: dict[int, Callable[[ObjectRow], Any]] = {
    _COLOUR: lambda one: one.object_id,
    _NAME: lambda one: (one.name.rstrip("0123456789"), one.object_id),
    _CLASS: lambda one: (one.object_class, one.object_id),
    _AREA: lambda one: one.area_px,
    _CLICKS: lambda one: one.clicks,
    _LOCKED: lambda one: not one.locked,
    _PLANES: lambda one: one.planes,
}
#: Qt frames check boxes in a colour that the dark theme hides
_BOXES = (
    "QTableView::indicator:unchecked "
    "{ border: 1px solid #8f8f8f; width: 12px; height: 12px; }"
)
_FIXED = Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable
_CHECKABLE = _FIXED | Qt.ItemFlag.ItemIsUserCheckable


def _item(text: str, tooltip: str, flags: Any = None) -> QTableWidgetItem:
    made = QTableWidgetItem(text)
    made.setToolTip(tooltip)
    if flags is not None:
        made.setFlags(flags)
    return made


class ObjectTable(QTableWidget):  # type: ignore[misc]  # qtpy is untyped
    """Shows the objects; signals the object chosen, and what is to be done with some.

    ``edited`` is emitted with a function of the controller.
    """

    chosen = Signal(int)
    edited = Signal(object)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(0, 7, parent)
        self._rows: tuple[ObjectRow, ...] = ()
        self._pixel_size = (1.0, "px")
        self._order = (_COLOUR, False)
        self._view = DockView()
        self._filling = False
        self.setHorizontalHeaderLabels(
            ["", "Object", "Class", "Area", "Clicks", "Lock", "Planes"]
        )
        header = self.horizontalHeader()
        header.moveSection(_PLANES, _CLICKS)
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(_NAME, QHeaderView.ResizeMode.Stretch)
        header.setMinimumSectionSize(24)
        header.setHighlightSections(False)
        header.setSectionsClickable(True)
        header.sectionClicked.connect(self._sort_by)
        self.verticalHeader().setVisible(False)
        self.verticalHeader().setDefaultSectionSize(24)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.DoubleClicked)
        self.setMinimumHeight(72)  # with the stack's controls, too, 720 px suffice
        # keys stay with the canvas
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.setStyleSheet(_BOXES)
        self.setToolTip(
            "Click a row to continue with that object; double-click its name, class or "
            "colour to change it, its area to go there. Right-click: merge and more."
        )
        self.itemSelectionChanged.connect(self._on_selection)
        self.itemChanged.connect(self._on_item)
        self.cellDoubleClicked.connect(self._on_double_click)
        self.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        self.customContextMenuRequested.connect(
            lambda place: self.menu().popup(self.viewport().mapToGlobal(place))
        )

    def sizeHint(self) -> QSize:
        """Ask for a few rows; the layout gives all the room there is."""
        return QSize(240, self.minimumHeight())

    @property
    def chosen_ids(self) -> list[int]:
        """The objects whose rows are selected, the one that clicks go to first."""
        rows = sorted(index.row() for index in self.selectionModel().selectedRows())
        ids = [self._rows[y].object_id for y in rows]
        return sorted(ids, key=lambda i: i != self._view.selected)

    def show_view(self, view: DockView) -> None:
        """Show the objects; the selected one's row is among those selected.

        While a text is edited, its row stays that of its object.
        """
        self._view = view
        if self.state() == QAbstractItemView.State.EditingState:
            return
        self._filling = True
        try:
            self.setColumnHidden(_PLANES, len(view.stack.cells) < 2)
            column, falls = self._order
            rows = sorted(view.objects, key=_KEYS[column], reverse=falls)
            kept = self.chosen_ids
            rescaled = view.pixel_size != self._pixel_size
            if rescaled:
                self._rows, self._pixel_size = (), view.pixel_size
                head = "Volume" if view.pixel_size[1].endswith("³") else "Area"
                self.horizontalHeaderItem(_AREA).setText(head)
            if rescaled or tuple(rows) != self._rows:
                self._fill(tuple(rows))
                self._select(kept)
            if view.selected not in self.chosen_ids:
                self._select([] if view.selected is None else [view.selected])
        finally:
            self._filling = False

    def closeEditor(self, editor: QWidget, hint: Any) -> None:
        """Show what changed while a text was edited."""
        super().closeEditor(editor, hint)
        self.show_view(self._view)

    def _select(self, ids: Sequence[int]) -> None:
        numbers = [one.object_id for one in self._rows]
        self.clearSelection()
        select = QItemSelectionModel.SelectionFlag
        for object_id in [i for i in ids if i in numbers]:
            index = self.model().index(numbers.index(object_id), _NAME)
            flags = select.Select | select.Rows
            self.selectionModel().select(index, flags)
            if object_id == ids[0]:
                self.selectionModel().setCurrentIndex(index, select.NoUpdate)
                self.scrollTo(index)

    def _sort_by(self, column: int) -> None:
        self._order = (column, self._order == (column, False))
        self.show_view(self._view)

    def menu(self) -> QMenu:
        """Return what can be done with the selected rows."""
        ids, menu = self.chosen_ids, QMenu(self)
        for text, needed, act in (
            ("Go to it", 1, lambda c: c.edits.go_to(ids[0])),
            ("Merge into one", 2, lambda c: c.edits.merge(ids)),
            ("Class…", 1, lambda c: self._ask_class(c, ids)),
            ("Lock", 1, lambda c: c.edits.lock(ids, True)),
            ("Unlock", 1, lambda c: c.edits.lock(ids, False)),
            ("Delete", 1, lambda c: c.edits.delete(ids)),
        ):
            action = menu.addAction(text)
            action.setEnabled(len(ids) >= needed)
            action.triggered.connect(lambda _=False, act=act: self.edited.emit(act))
        return menu

    def _ask_class(self, controller: Controller, ids: Sequence[int]) -> None:
        known = sorted({one.object_class for one in self._rows})
        said = f"Class of {counted(len(ids), 'object')}"
        text, taken = QInputDialog.getItem(self, "Class", said, known, 0, True)
        if taken:
            controller.edits.classify(ids, text.strip())

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
                _item(
                    self._area(one), f"{one.area_px} px. Double-click: go to it", _FIXED
                ),
                _item(str(one.clicks), "", _FIXED),
                _item("", "A locked object never changes", _CHECKABLE),
                _item(str(one.planes), "Planes that it is on", _FIXED),
            )
            items[_COLOUR].setIcon(QIcon(swatch))
            for counts in (_CLICKS, _PLANES):
                items[counts].setTextAlignment(Qt.AlignmentFlag.AlignCenter)
            check = Qt.CheckState.Checked if one.locked else Qt.CheckState.Unchecked
            items[_LOCKED].setCheckState(check)
            for x, item in enumerate(items):
                self.setItem(y, x, item)
        self._rows = rows

    def _area(self, one: ObjectRow) -> str:
        size, unit = self._pixel_size
        measured = one.area_px * size
        digits = ".3g" if round(measured) < 1000 and unit != "px" else ".0f"
        return f"{measured:{digits}} {unit}"

    def _on_selection(self) -> None:
        if not self._filling and self.chosen_ids:
            self.chosen.emit(self.chosen_ids[0])

    def _on_item(self, item: QTableWidgetItem) -> None:
        if self._filling:
            return
        changed = self._rows[item.row()]
        text = item.text().strip()
        if item.column() == _NAME and text and text != changed.name:
            self._submit(ev.ObjectRenamed(changed.object_id, text))
        elif item.column() == _CLASS and text != changed.object_class:
            ids = [changed.object_id]
            self.edited.emit(lambda c: c.edits.classify(ids, text))
        elif item.column() == _LOCKED:
            locked = item.checkState() == Qt.CheckState.Checked
            if locked != changed.locked:
                self._submit(ev.ObjectLocked(changed.object_id, locked))

    def _submit(self, event: ev.Event) -> None:
        self.edited.emit(lambda c: c.submit(event))

    def _on_double_click(self, y: int, x: int) -> None:
        clicked = self._rows[y].object_id
        if x == _AREA:
            self.edited.emit(lambda c: c.edits.go_to(clicked))
        if x != _COLOUR:
            return
        title = "Colour of the object, and of its class"
        colour = QColorDialog.getColor(QColor(self._rows[y].colour), self, title)
        if colour.isValid():
            name = colour.name()
            self.edited.emit(lambda c: c.edits.recolour(clicked, name))


class ObjectPanel(QWidget):  # type: ignore[misc]  # qtpy is untyped
    """Polarity, objects, undo, suggestions."""

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
        masks = f"{key['other_mask_too']} or {key['other_mask']}"
        text = f"Another mask of the first click ({masks})"
        self.other = button("Other mask", text)
        self.table = ObjectTable()
        self.new = button("Next", f"Start the next object ({key['new_object']})")
        self.delete = button("Delete", "Delete the selected object")
        self.reset = button(
            "Reset", f"Remove its clicks on this plane ({key['reset_object']})"
        )
        self.undo = button("Undo", f"Clicks and labels together ({key['undo']})")
        self.redo = button("Redo", f"Clicks and labels together ({key['redo']})")
        self.closer = button("Smaller", f"It is a smaller structure ({key['closer']})")
        self.wider = button("Larger", f"It is a larger structure ({key['wider']})")
        said = f"Find objects like those finished, in what is seen ({key['suggest']})"
        self.suggest = button("Suggest", said)
        said = "Suggest again by itself when the view moves or shows another plane"
        self.follow = check_box("follow", said)
        self.sure = QSlider(Qt.Orientation.Horizontal)
        self.sure.setRange(10, 99)
        self.sure.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.sure.setToolTip("Right: only those that are surely right are accepted")
        said = "Make objects of all that are as sure as the slider says"
        self.accept = button("Accept 0", said)
        said = f"Reject all outlines that are left ({key['reject_all']})"
        self.reject = button("Reject all", said)
        self._lay_out()

    def _lay_out(self) -> None:
        column = column_in(self, 4)
        column.addLayout(row(self.positive, self.negative, self.other))
        column.addWidget(self.table, stretch=1)
        # in sight while there are suggestions; all below it stays where it is
        self.suggested = QWidget()
        self.suggested.setLayout(row(self.follow, self.sure, self.accept, self.reject))
        self.suggested.layout().setContentsMargins(0, 0, 0, 0)
        self.suggested.hide()
        column.addWidget(self.suggested)
        column.addLayout(row(self.new, self.undo, self.redo, self.suggest))
        #: seldom needed, and laid out elsewhere
        self.more = row(self.closer, self.wider, self.reset, self.delete)

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
        self.closer.clicked.connect(does(lambda c: c.steps.shift_focus(-1)))
        self.wider.clicked.connect(does(lambda c: c.steps.shift_focus(+1)))
        self.suggest.clicked.connect(does(lambda c: c.suggestions.start()))
        self.follow.toggled.connect(
            does(lambda c, on: c.suggestions.follow(on), takes=1)
        )
        self.accept.clicked.connect(does(lambda c: c.suggestions.accept_sure()))
        self.reject.clicked.connect(does(lambda c: c.suggestions.reject_all()))
        self.sure.valueChanged.connect(
            does(lambda c, score: c.suggestions.set_threshold(score / 100), takes=1)
        )
        self.delete.clicked.connect(does(lambda c: c.delete_selected()))
        self.table.chosen.connect(does(lambda c, i: c.choose(i), takes=1))
        self.table.edited.connect(does(lambda c, act: act(c), takes=1))

    def show_view(self, view: DockView) -> None:
        """Show the state."""
        self.positive.setChecked(view.is_positive)
        self.negative.setChecked(not view.is_positive)
        self.table.show_view(view)
        self.suggest.setEnabled(bool(view.objects) and not view.loading)
        with QSignalBlocker(self.follow), QSignalBlocker(self.sure):
            self.follow.setChecked(view.suggestions.follows)
            self.sure.setValue(round(100 * view.suggestions.threshold))
        self.accept.setText(f"Accept {view.suggestions.sure}")
        self.accept.setEnabled(view.suggestions.sure > 0)
        self.reject.setEnabled(bool(view.suggestions.scores))
        self.suggested.setVisible(
            bool(view.suggestions.scores) or view.suggestions.running
        )
        has_object = view.selected is not None
        self.delete.setEnabled(has_object)
        self.reset.setEnabled(has_object)
        self.undo.setEnabled(view.undo_depth > 0 or view.pending > 0)
        self.redo.setEnabled(view.redo_depth > 0)
