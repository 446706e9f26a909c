"""The plots and the table in the fine-tuning dock: loss, clicks, before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from qtpy.QtCore import QPointF, QRectF, Qt
from qtpy.QtGui import QColor, QPainter, QPaintEvent, QPen, QPolygonF
from qtpy.QtWidgets import QHeaderView, QTableWidget, QTableWidgetItem, QWidget

from napari_cfrseg.overlay import ORANGE, SKY_BLUE

#: what stands in a report, its title and its meaning
_COLUMNS = (
    ("objects", "objects", "Objects that a robot user clicked"),
    ("noc85", "to 85 %", "Clicks until the mask overlaps the object by 85 %"),
    ("noc90", "to 90 %", "Clicks until the mask overlaps the object by 90 %"),
    ("iou1", "IoU 1", "Overlap with the object after the first click"),
    ("iou5", "IoU 5", "Overlap with the object after five clicks"),
)
_ROWS = (
    ("before", "yours, before"),
    ("after", "yours, after"),
    ("bundled_before", "samples, before"),
    ("bundled_after", "samples, after"),
)
_ROW_PX = 24


class ReportTable(QTableWidget):  # type: ignore[misc]  # qtpy is untyped
    """Clicks and IoU before and after; hidden until there is a report."""

    def __init__(self) -> None:
        super().__init__(len(_ROWS), 1 + len(_COLUMNS))
        said = ("", "Your images that it did not learn from; the bundled micrographs")
        for column, (title, hint) in enumerate((said, *(c[1:] for c in _COLUMNS))):
            item = QTableWidgetItem(title)
            item.setToolTip(hint)
            self.setHorizontalHeaderItem(column, item)
        self.verticalHeader().hide()
        self.setEditTriggers(QTableWidget.EditTrigger.NoEditTriggers)
        for index, (_, title) in enumerate(_ROWS):
            self.setItem(index, 0, QTableWidgetItem(title))
            self.setRowHeight(index, _ROW_PX)
        header = self.horizontalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeMode.Stretch)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.ResizeToContents)
        self.setFixedHeight(_ROW_PX * len(_ROWS) + header.height() + 4)
        self.hide()

    def show_report(self, report: Mapping[str, Any]) -> None:
        """Show a job's report; an empty one hides the table."""
        for index, (key, _) in enumerate(_ROWS):
            figures = report.get(key) or {}
            for column, (name, *_) in enumerate(_COLUMNS, 1):
                value = figures.get(name)
                text = "" if value is None else f"{value:.3g}"
                self.setItem(index, column, QTableWidgetItem(text))
        self.setVisible(bool(report))


LOSS_COLOUR, CLICKS_COLOUR = QColor(*SKY_BLUE), QColor(*ORANGE)


class Curve(QWidget):  # type: ignore[misc]  # qtpy is untyped
    """Two small plots over the minutes of training; hidden while there is nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.loss: list[tuple[float, float]] = []
        self.clicks: list[tuple[float, float]] = []
        self.setMinimumHeight(170)

    def show_rows(self, rows: Sequence[dict[str, float]]) -> None:
        """Take the job's entries: those with ``loss``, those with ``noc90``.

        Several trainings (one for each held-out image) follow each other.
        """
        self.loss, self.clicks = [], []
        offset, last, training = 0.0, 0.0, 0.0
        for entry in rows:
            if entry.get("training", 0.0) != training:
                training, offset = entry["training"], last
            last = offset + entry.get("elapsed_s", 0.0) / 60
            if "noc90" in entry:
                self.clicks.append((last, entry["noc90"]))
            elif "loss" in entry:
                self.loss.append((last, entry["loss"]))
        self.setVisible(bool(self.loss or self.clicks))
        self.update()

    def paintEvent(self, _: QPaintEvent) -> None:
        """Draw both plots."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        half = self.height() / 2
        until = max([x for x, _ in (*self.loss, *self.clicks)], default=1.0)
        for top, title, points, colour in (
            (0.0, "Loss", self.loss, LOSS_COLOUR),
            (half, "Clicks to 90 % (held out)", self.clicks, CLICKS_COLOUR),
        ):
            area = QRectF(34, top + 18, self.width() - 40, half - 34)
            self._plot(painter, area, title, points, colour, max(until, 1e-3))
        painter.end()

    def _plot(
        self,
        painter: QPainter,
        area: QRectF,
        title: str,
        points: Sequence[tuple[float, float]],
        colour: QColor,
        until: float,
    ) -> None:
        text = self.palette().text().color()
        painter.setPen(QPen(text))
        small = self.font()
        small.setPointSizeF(max(7.0, small.pointSizeF() * 0.85))
        painter.setFont(small)
        painter.drawText(QPointF(area.left(), area.top() - 5), title)
        faint = QColor(text)
        faint.setAlpha(70)
        painter.setPen(QPen(faint))
        painter.drawRect(area)
        if not points:
            return
        values = [y for _, y in points]
        low, high = min(values), max(values)
        if high - low < 1e-9:
            low, high = low - 0.5, high + 0.5

        def place(x: float, y: float) -> QPointF:
            return QPointF(
                area.left() + x / until * area.width(),
                area.bottom() - (y - low) / (high - low) * area.height(),
            )

        painter.setPen(QPen(text))
        right = Qt.AlignmentFlag.AlignRight
        for value, y in ((high, area.top()), (low, area.bottom() - 10)):
            painter.drawText(QRectF(0, y - 2, 31, 14), int(right), f"{value:.2f}")
        below = QRectF(area.left(), area.bottom() + 1, area.width(), 14)
        painter.drawText(below, int(right), f"{until:.1f} min")
        painter.setPen(QPen(colour, 2))
        painter.drawPolyline(QPolygonF([place(x, y) for x, y in points]))
        painter.setBrush(colour)
        marks = points if len(points) <= 30 else points[-1:]
        for x, y in marks:
            painter.drawEllipse(place(x, y), 2.5, 2.5)
        painter.setBrush(Qt.BrushStyle.NoBrush)
