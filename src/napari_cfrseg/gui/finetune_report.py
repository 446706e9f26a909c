"""What a fine-tuning came to: a table of figures before and after, and sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qtpy.QtWidgets import QTableWidget, QTableWidgetItem

from napari_cfrseg.training_job import JobStatus

_COLUMNS = ("", "objects", "NoC@85", "NoC@90", "IoU@1", "IoU@5")
_KEYS = ("objects", "noc85", "noc90", "iou1", "iou5")
_ROWS = (
    ("held out, before", "before"),
    ("held out, after", "after"),
    ("bundled, before", "bundled_before"),
    ("bundled, after", "bundled_after"),
)
_ROW_PX = 24


class ReportTable(QTableWidget):  # type: ignore[misc]  # qtpy is untyped
    """Clicks and IoU before and after; hidden until there is a report."""

    def __init__(self) -> None:
        super().__init__(len(_ROWS), len(_COLUMNS))
        self.setHorizontalHeaderLabels(list(_COLUMNS))
        self.verticalHeader().hide()
        self.setEditTriggers(QTableWidget.EditTrigger.NoEditTriggers)
        for index, (title, _) in enumerate(_ROWS):
            self.setItem(index, 0, QTableWidgetItem(title))
        for index in range(len(_ROWS)):
            self.setRowHeight(index, _ROW_PX)
        self.resizeColumnsToContents()
        header = self.horizontalHeader().height()
        self.setFixedHeight(_ROW_PX * len(_ROWS) + header + 20)
        self.hide()

    def show_report(self, report: Mapping[str, Any]) -> None:
        """Show a job's report; an empty one hides the table."""
        for index, (_, key) in enumerate(_ROWS):
            figures = report.get(key) or {}
            for column, name in enumerate(_KEYS, 1):
                value = figures.get(name)
                text = "" if value is None else f"{value:.3g}"
                self.setItem(index, column, QTableWidgetItem(text))
        self.setVisible(bool(report))


def advice(report: Mapping[str, Any]) -> str:
    """Return the change in clicks and what the program suggests, a line each."""
    lines = [str(line) for line in report.get("suggestions", ())]
    if report:
        lines.insert(
            0,
            f"Change {report['difference']:+.2f} clicks (95 % interval "
            f"{report['low']:+.2f} to {report['high']:+.2f}), by {report['how']}.",
        )
    return "\n".join(f"• {line}" for line in lines)


def how_far(status: JobStatus) -> str:
    """Return a job's phase, the time left and its message in two lines."""
    left = "" if status.eta_s is None else f" · {_minutes(status.eta_s)} left"
    phase = status.phase.capitalize()
    if status.phase in ("done", "failed"):
        left = ""
    return f"{phase}{left}\n{status.message}"


def _minutes(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min"
