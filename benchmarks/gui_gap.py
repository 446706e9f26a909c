"""The longest time the window does not answer, while it computes clicks or suggests.

A timer ticks every 2 ms in the window's thread; the longest time between two ticks is
how long the window would not respond to a person. Loading the model (importing
torch) is reported apart from clicking. On a busy machine the gaps measure the others'
work, too; the processor time of the window's own thread per click (that of an idle
window subtracted) does not::

    xvfb-run -a python benchmarks/gui_gap.py [--clicks 20] [--side 2048] [--json]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable

import napari
import numpy as np
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QApplication

from napari_cfrseg.gui.manifest import DOCK, PLUGIN
from napari_cfrseg.gui.segment.controller import Controller
from napari_cfrseg.samples import load_demo, load_sample

#: a longer gap is counted
COUNTED_S = 0.03


class Ticker:
    """Remembers the longest gap between two ticks of the window's event loop.

    ``apart_s`` is time since the last tick that is not ours: without it, gaps are
    counted a second time.
    """

    def __init__(self) -> None:
        self.restart()
        self._timer = QTimer()
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.timeout.connect(self._tick)
        self._timer.start(2)

    def _tick(self) -> None:
        now, cpu = time.perf_counter(), time.thread_time()
        rest, self.apart_s = now - self._last - self.apart_s, 0.0
        self.longest_rest_s = max(self.longest_rest_s, rest)
        self.counted_rest += rest > COUNTED_S
        self.longest_s = max(self.longest_s, now - self._last)
        self.longest_cpu_s = max(self.longest_cpu_s, cpu - self._last_cpu)
        self.counted += now - self._last > COUNTED_S
        self.counted_cpu += cpu - self._last_cpu > COUNTED_S
        self._last, self._last_cpu = now, cpu

    def read_s(self) -> tuple[float, float]:
        """Return the longest gap, and the most processor time in one, as of now."""
        self._tick()
        return self.longest_s, self.longest_cpu_s

    def restart(self) -> None:
        """Forget the gaps so far."""
        self.longest_s = self.longest_cpu_s = self.longest_rest_s = 0.0
        self.counted = self.counted_cpu = self.counted_rest = 0
        self.apart_s = 0.0
        self._last, self._last_cpu = time.perf_counter(), time.thread_time()


def run_until(condition: Callable[[], bool], patience_s: float = 300) -> None:
    end = time.perf_counter() + patience_s
    while not condition():
        if time.perf_counter() > end:
            raise TimeoutError
        QApplication.processEvents()
        time.sleep(0.0005)


def click(
    controller: Controller, count: int, idle_share: float
) -> tuple[list[float], list[float]]:
    """Click; return each click's time, and that of the window's own thread."""
    objects = load_demo().objects
    positions = [c.yx for clicks in objects for c in clicks if c.is_positive]
    seconds, own_seconds = [], []
    for number in range(count):
        if number % 3 == 0:
            controller.new_object()
        y, x = positions[number // 3 % len(positions)]
        begun, cpu = time.perf_counter(), time.thread_time()
        controller.clicks.layer.add((y + number % 3, x))
        run_until(lambda: controller.view.pending == 0)
        seconds.append(time.perf_counter() - begun)
        own = time.thread_time() - cpu
        own_seconds.append(max(0.0, own - idle_share * seconds[-1]))
    return seconds, own_seconds


def suggest(controller: Controller, ticker: Ticker) -> dict[str, float | int]:
    """Suggest for what is seen; click in between; return the times in milliseconds."""
    suggesting = controller.suggestions
    run_until(lambda: controller.view.pending == 0)
    ticker.restart()
    begun = time.perf_counter()
    suggesting.start()
    run_until(lambda: bool(suggesting.found))
    first = time.perf_counter() - begun
    seconds = []
    while controller.view.suggestions.running:
        until = time.perf_counter() + 0.5
        while controller.view.suggestions.running and time.perf_counter() < until:
            QApplication.processEvents()
            time.sleep(0.0005)
        if controller.view.suggestions.running:
            start = time.perf_counter()
            y, x = controller.clicks.layer.data[-1]
            controller.clicks.layer.add((y + 1, x))
            run_until(lambda: controller.view.pending == 0)
            seconds.append(time.perf_counter() - start)
    seconds = seconds or [float("nan")]  # the search ended before a click
    return {
        "suggestions": len(suggesting.found),
        "first_suggestions_ms": round(1000 * first, 1),
        "all_suggestions_ms": round(1000 * (time.perf_counter() - begun), 1),
        "longest_gap_while_suggesting_ms": round(1000 * ticker.longest_s, 1),
        "longest_gap_while_suggesting_cpu_ms": round(1000 * ticker.longest_cpu_s, 1),
        "click_while_suggesting_median_ms": round(1e3 * float(np.median(seconds)), 1),
        "click_while_suggesting_longest_ms": round(1e3 * max(seconds), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clicks", type=int, default=20)
    parser.add_argument("--side", type=int, default=2048)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    demo = load_demo()
    image = load_sample(demo.sample).image
    repeats = -(-arguments.side // min(image.shape[:2]))
    tiles = (repeats, repeats, *(1 for _ in image.shape[2:]))
    field = np.tile(image, tiles)[: arguments.side, : arguments.side]
    viewer = napari.Viewer()
    viewer.add_image(field, rgb=field.ndim == 3)
    ticker = Ticker()
    run_until(lambda: ticker.longest_s > 0)
    torch_before = "torch" in sys.modules
    start, cpu = time.perf_counter(), time.thread_time()
    _, dock = viewer.window.add_plugin_dock_widget(PLUGIN, DOCK)
    opened_s, opened_cpu_s = time.perf_counter() - start, time.thread_time() - cpu
    ticker.restart()
    run_until(lambda: dock.controller is not None and not dock.controller.view.loading)
    loading = ticker.longest_s, ticker.longest_cpu_s
    controller = dock.controller
    begun, cpu = time.perf_counter(), time.thread_time()
    ticker.restart()
    run_until(lambda: time.perf_counter() > begun + 2)
    idle = ticker.longest_s
    idle_share = (time.thread_time() - cpu) / (time.perf_counter() - begun)
    ticker.restart()
    seconds, own_seconds = click(controller, arguments.clicks, idle_share)
    result = {
        "image_side_px": arguments.side,
        "torch_imported_before_opening": torch_before,
        "opening_ms": round(1000 * opened_s, 1),
        "opening_cpu_ms": round(1000 * opened_cpu_s, 1),
        "longest_gap_while_loading_ms": round(1000 * loading[0], 1),
        "longest_gap_while_loading_cpu_ms": round(1000 * loading[1], 1),
        "longest_gap_idle_ms": round(1000 * idle, 1),
        "longest_gap_while_clicking_ms": round(1000 * ticker.longest_s, 1),
        "longest_gap_while_clicking_cpu_ms": round(1000 * ticker.longest_cpu_s, 1),
        "click_median_ms": round(1000 * float(np.median(seconds)), 1),
        "window_thread_per_click_median_ms": round(
            1e3 * float(np.median(own_seconds)), 1
        ),
        "window_thread_per_click_p95_ms": round(
            1e3 * float(np.percentile(own_seconds, 95)), 1
        ),
        "clicks": arguments.clicks,
        **suggest(controller, ticker),
    }
    print(json.dumps(result, indent=None if arguments.json else 2))
    dock.let_go()
    viewer.close()


if __name__ == "__main__":
    main()
