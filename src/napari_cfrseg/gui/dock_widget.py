"""The base of both docks, and the small widgets they are made of."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_error, show_info, show_warning
from qtpy.QtCore import QEvent, Qt, QTimer, Signal
from qtpy.QtGui import QIcon
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDockWidget,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QMainWindow,
    QMessageBox,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)
from superqt import QCollapsible

if TYPE_CHECKING:
    import napari
    from napari.layers import Image

    from napari_cfrseg.gui.segment.controller import Controller

    Current = Callable[[], Controller | None]


class DockWidget(QWidget):  # type: ignore[misc]  # qtpy is untyped
    """A dock's contents; ``left`` is emitted when it goes, maybe more than once."""

    left = Signal()

    def __init__(self) -> None:
        self._was_docked = False  # events come while Qt begins
        super().__init__()

    def fill_with(self, column: QWidget, narrowest_px: int) -> None:
        """Fill the dock with a column that scrolls where it is too low for it."""
        self.area = QScrollArea()
        self.area.setWidgetResizable(True)
        self.area.setFrameShape(QScrollArea.Shape.NoFrame)
        self.area.setWidget(column)
        column_in(self).addWidget(self.area)
        self.setMinimumWidth(narrowest_px)

    def fold_where_full(self, sections: Collection[Section]) -> None:
        """Fold others away where a section that a person unfolds would not fit."""

        def fit(unfolded: Section) -> None:
            column = self.area.widget()
            for other in sections:
                column.layout().activate()
                if column.minimumSizeHint().height() <= self.height():
                    return
                if other is not unfolded:
                    other.collapse(animate=False)

        for one in sections:
            one.toggleButton().clicked.connect(
                lambda on, one=one: on and QTimer.singleShot(0, lambda: fit(one))
            )

    def changeEvent(self, event: QEvent) -> None:
        """Notice when napari takes the dock away (its × button)."""
        super().changeEvent(event)
        if event.type() == QEvent.Type.ParentChange:
            if self.parent() is not None:
                self._was_docked = True
                QTimer.singleShot(0, self.docked)
            elif self._was_docked:
                self.left.emit()

    def docked(self) -> None:
        """Share a place with the plugin's other dock, in tabs."""
        main, mine = self.window(), _dock_around(self)
        if mine is None or not isinstance(main, QMainWindow):
            return
        for other in main.findChildren(DockWidget):
            dock = _dock_around(other)
            if other is self or dock is None or mine in main.tabifiedDockWidgets(dock):
                continue
            if main.dockWidgetArea(dock) == main.dockWidgetArea(mine):
                main.tabifyDockWidget(dock, mine)
                QTimer.singleShot(0, mine.raise_)  # once there are tabs

    def closeEvent(self, event: QEvent) -> None:
        """Go with the window."""
        self.left.emit()
        super().closeEvent(event)


class TextLine(QWidget):  # type: ignore[misc]  # qtpy is untyped
    """A wrapped text that needs no new layout unless it needs more lines.

    SPEED: a QLabel has all layouts around it done again for any other text, one after
    the other, and after each Qt composes the whole window.
    """

    def __init__(self, lines: int = 1) -> None:
        super().__init__()
        self.label = QLabel(self)
        self.label.setWordWrap(True)
        self.label.setIndent(0)  # Qt would leave room above it
        #: never shown; as high as so many lines in the theme and font there are then
        self._lines = QLabel("\n".join("0" * lines), self)
        self._lines.hide()

    def text(self) -> str:
        """Return what it says."""
        return str(self.label.text())

    def setText(self, text: str) -> None:
        """Say something else."""
        if text != self.label.text():
            self.label.setText(text)
            self._fit()

    def resizeEvent(self, event: Any) -> None:
        """Break the lines at the new width."""
        super().resizeEvent(event)
        self._fit()

    def _fit(self) -> None:
        least = self._lines.sizeHint().height()
        needed = max(least, self.label.heightForWidth(self.width()))
        if needed != self.minimumHeight():
            self.setMinimumHeight(needed)
        self.label.resize(self.width(), max(self.height(), needed))


def _dock_around(widget: Any) -> QDockWidget | None:
    while widget is not None and not isinstance(widget, QDockWidget):
        widget = widget.parent()
    return widget


class Section(QCollapsible):  # type: ignore[misc]  # superqt is untyped
    """A group of controls that folds away under its title; unfolds at once."""

    def __init__(self, title: str, content: QWidget) -> None:
        # icons of signs are painted black, whatever the theme
        super().__init__(expandedIcon=QIcon(), collapsedIcon=QIcon())
        self._title = title
        self.toggled.connect(self._show_title)
        self._show_title()
        self.setDuration(0)
        self.layout().setContentsMargins(0, 0, 0, 0)
        self.layout().setSpacing(0)
        self.content().layout().setContentsMargins(0, 2, 0, 2)
        self.toggleButton().setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.addWidget(content)

    def _show_title(self, _: bool = False) -> None:
        self.setText(f"{'▾' if self.isExpanded() else '▸'}  {self._title}")


def images_of(viewer: napari.Viewer) -> list[Image]:
    """Return the viewer's images; other layers that derive from Image are not."""
    from napari.layers import Image

    return [layer for layer in viewer.layers if type(layer) is Image]


def form(*widgets: Any) -> QFormLayout:
    """Return labelled rows of magicgui widgets."""
    layout = QFormLayout()
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setVerticalSpacing(4)
    layout.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.ExpandingFieldsGrow)
    for widget in widgets:
        policy = QSizePolicy.Policy
        widget.native.setSizePolicy(policy.Expanding, policy.Fixed)
        if isinstance(widget.native, QComboBox):  # long names would widen the dock
            shorten = QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
            widget.native.setSizeAdjustPolicy(shorten)
        layout.addRow(widget.label, widget.native)
        if widget.tooltip:
            layout.labelForField(widget.native).setToolTip(widget.tooltip)
    return layout


def button(text: str, tooltip: str, *, checkable: bool = False) -> QPushButton:
    """Return a button that leaves the keys to the canvas."""
    made = QPushButton(text)
    made.setToolTip(tooltip)
    made.setCheckable(checkable)
    made.setFocusPolicy(Qt.FocusPolicy.NoFocus)
    return made


def check_box(text: str, tooltip: str) -> QCheckBox:
    """Return a check box that leaves the keys to the canvas."""
    made = QCheckBox(text)
    made.setToolTip(tooltip)
    made.setFocusPolicy(Qt.FocusPolicy.NoFocus)
    return made


def column_in(widget: QWidget, spacing: int = -1) -> QVBoxLayout:
    """Return a widget's new column without margins; −1 is the style's spacing."""
    layout = QVBoxLayout(widget)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(spacing)
    return layout


def row(*widgets: QWidget) -> QHBoxLayout:
    """Return widgets side by side."""
    layout = QHBoxLayout()
    layout.setSpacing(4)
    for widget in widgets:
        layout.addWidget(widget)
    return layout


def on_current(
    current: Current,
    action: Callable[..., None],
    *,
    takes: int = 0,
    at_once: bool = False,
) -> Callable[..., None]:
    """Return what acts on the controller there is then.

    ``action`` gets it, and the first values that Qt sends, as many as it ``takes``.
    ``at_once``: also while a session is being reopened.
    """

    def run(*values: Any) -> None:
        controller = current()
        if controller is None:
            return
        if at_once:
            action(controller, *values[:takes])
        else:
            controller.do(lambda c: action(c, *values[:takes]))

    return run


def asks(parent: QWidget, title: str, question: str) -> bool:
    """Ask a question; return whether the answer is yes."""
    answer = QMessageBox.question(parent, title, question)
    return bool(answer == QMessageBox.StandardButton.Yes)


def ask_where(
    parent: QWidget, title: str, start: str, kinds: Mapping[str, str]
) -> Path | None:
    """Ask where a file is to be written; None for nowhere.

    ``kinds`` are names of formats by their endings. A name without any gets that of the
    kind chosen; Qt has not looked then whether there is such a file.
    """
    endings = {f"{said} (*{ending})": ending for ending, said in kinds.items()}
    chosen, kind = QFileDialog.getSaveFileName(parent, title, start, ";;".join(endings))
    path = Path(chosen)
    if not chosen or path.name.lower().endswith(tuple(kinds)):
        return path if chosen else None
    ending = endings.get(kind, next(iter(kinds)))
    stem = path.name.removesuffix(".json" if ending.endswith(".json") else "")
    path = path.with_name(stem + ending)
    there = path.exists() and not asks(parent, title, f"Replace {path.name}?")
    return None if there else path


_TELL = {"info": show_info, "warning": show_warning, "error": show_error}


def notify(level: str, message: str) -> None:
    """Show a message the way napari shows its own."""
    _TELL[level](message)
