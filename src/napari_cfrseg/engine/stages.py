"""Run a network's three stages on a device, with its embeddings kept, and timed.

``embed_image`` is repeated only for a new window, ``embed_clicks`` only for new
clicks. Every evaluation has batch size 1: results of a batch can differ in the last bit
from those of its members, and an object's mask must not depend on the cache. Only
suggestions are computed in batches: their masks are recorded.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_cfrseg.clicks import Click, ClickList, points_rows
from napari_cfrseg.engine import devices
from napari_cfrseg.engine.backends import Backend, choose, shared
from napari_cfrseg.engine.side_by_side import Stopwatch, run_side_by_side
from napari_cfrseg.geometry.windows import Window
from napari_cfrseg.latest import Latest
from napari_cfrseg.model.network import ClickNetwork, NetworkOutput

Precision = Literal["auto", "float32", "bfloat16", "float16"]
#: gives a window's (3, grid, grid) float32 pixels
Read: TypeAlias = Callable[[Window], NDArray[np.float32]]

#: Clicks farther outside the window than this many cells leave no trace in it.
_CLICK_REACH = 6.0
#: Embeddings kept: so many bytes of windows, and as many of clicks; but never fewer
#: than the focus tries at a first click.
_KEPT_BYTES, _LEAST_KEPT = 1 << 26, 8
#: Bytes of first answers kept, and their features with them; but never fewer than one.
_ANSWERS_BYTES = 1 << 24
#: Bytes that a network takes for each cell of a window, at most: activations, features.
_BYTES_PER_CELL = 1024


@dataclass(frozen=True, slots=True)
class Embedded:
    """A window's embedding, and the state of the network that made it."""

    value: Any
    state: object


@dataclass(frozen=True, slots=True)
class Answer:
    """The network's first answer to a click."""

    window: Window
    image: NDArray[np.float32]  #: (3, grid, grid), its pixels
    probability: NDArray[np.float32]  #: (grid, grid)
    quality: float | None


@dataclass(frozen=True, slots=True)
class FirstLook:
    """A window's features, and the network's answer there without a mask."""

    features: Any
    output: NetworkOutput
    quality: float | None


def _bytes_of(value: Any) -> int:
    """Return the size of the tensors in an embedding."""
    if isinstance(value, Tensor):
        return value.nbytes
    if is_dataclass(value):
        return sum(_bytes_of(getattr(value, one.name)) for one in fields(value))
    if isinstance(value, Mapping):
        return sum(map(_bytes_of, value.values()))
    return sum(map(_bytes_of, value)) if isinstance(value, list | tuple) else 0


class Stages:
    """A network on a device, with its embeddings of the last few windows.

    ``precision`` is "float32", "bfloat16" or "float16" (autocast), or "auto": bfloat16
    on a CPU that computes with it natively (there it is about 1.5 times as fast;
    elsewhere slower), else float32. Masks differ between them in single pixels.
    """

    def __init__(
        self,
        network: ClickNetwork,
        device: str,
        precision: Precision = "float32",
        backend: Backend = "torch",
        origin: Hashable = None,
    ) -> None:
        if precision not in get_args(Precision):
            msg = f"precision {precision!r}: expected {', '.join(get_args(Precision))}"
            raise ValueError(msg)
        self.precision = precision
        self._wanted, self._origin = backend, origin
        self.cap = devices.memory_cap()
        #: called before each run of the network; what it raises ends the work
        self.give_way: Callable[[], None] = lambda: None
        self.notices = devices.Notices()
        self._reading = threading.Lock()  # a lazy plane may not bear two readers
        self.network = network.eval()
        self.network.requires_grad_(False)
        self._adapted: ClickNetwork | None = None
        found = devices.find_devices() if device == "auto" else None
        self._why = "as asked for" if found is None else devices.explain(found)[1]
        self.to(devices.resolve_device(device, found))

    def to(self, device: torch.device) -> None:
        """Move the network, read its weights again and forget all embeddings."""
        self.device = device
        self._state = object()  # embeddings made ahead by another one are not used
        devices.apply_cap(device, self.cap)
        self.network.to(device)
        if device.type == "cpu":  # SPEED: convolutions run faster in this layout
            self.network.to(memory_format=torch.channels_last)
        half, origin = self._half(self.precision), self._origin
        fast = shared(origin, str(device), self.network.for_inference)
        self.backend = choose(
            self.network, fast, self._wanted, device, half=half, origin=origin
        )
        self._fast = self.backend.network
        self.adapt(self._adapted)
        self.forget()

    def adapt(self, network: ClickNetwork | None) -> None:
        """Let another network draw where no mask is fed back; None: its own.

        It differs in light parameters only (``ClickNetwork.light_parameters``).
        """
        self._adapted, fast = network, self.backend.network
        first = fast
        if network is not None:
            network.to(self.device)
            if self.device.type == "cpu":
                network.to(memory_format=torch.channels_last)
            first = network.for_inference()
            if type(first) is not type(fast):  # torch cannot read OpenVINO's features
                fast = self.network.for_inference()
        self._first = first
        self._looks = Latest(_ANSWERS_BYTES, _bytes_of, 1)
        if fast is not self._fast:
            self._fast, self._state = fast, object()
            self.forget()

    def fall_back(self) -> None:
        """Go on on the CPU: the device ran out of memory."""
        full = self.device
        self.to(torch.device("cpu"))
        if full.type == "cuda":
            torch.cuda.empty_cache()
        self._why = f"{full} is out of memory"
        self.notices.add(f"{full} is out of memory; from now on the CPU computes")

    @property
    def placement(self) -> devices.Placement:
        """Where and by which program it computes now, and why."""
        device, chosen = str(self.device), self.backend
        reason = f"{device}: {self._why}\n{chosen.name}: {chosen.reason}"
        can_prepare, precision = chosen.can_prepare, self.precision
        return devices.Placement(device, chosen.name, reason, can_prepare, precision)

    def forget(
        self, early: Mapping[tuple[Read, Window], Callable[[], Any]] | None = None
    ) -> None:
        """Drop the kept embeddings: another image is coming.

        ``early`` returns what :meth:`embed_ahead` made, by reader and window.
        """
        self._images = Latest(_KEPT_BYTES, _bytes_of, _LEAST_KEPT)
        self._clicks = Latest(_KEPT_BYTES, _bytes_of, _LEAST_KEPT)
        self._looks = Latest(_ANSWERS_BYTES, _bytes_of, 1)
        self._early = dict(early or {})

    @property
    def grid(self) -> int:
        """Side of the network's grid in cells."""
        return self.network.grid_size

    def features(
        self, window: Window, clicks: Sequence[Click], read: Read, watch: Stopwatch
    ) -> Any:
        """Return the network's features of a window and its clicks.

        ``read`` is only called for a window that is not kept.
        """
        points = grid_points(window, clicks)

        def embed_image() -> Any:
            if (read, window) in self._early:
                with watch.time("embed_image"):
                    early = self._early.pop((read, window))()
                if isinstance(early, Embedded) and early.state is self._state:
                    return early.value
            self.give_way()
            self._check_room(1)
            with watch.time("crop"), self._reading:
                image = self._tensor(read(window)[None])
            with watch.time("embed_image"), self._arithmetic():
                return self._fast.embed_image(image)

        def embed_clicks() -> Any:
            embedding = self._images.get((read, window), embed_image)
            with watch.time("embed_clicks"), self._arithmetic():
                return self._fast.embed_clicks(embedding, self._tensor(points[None]))

        return self._clicks.get((read, window, points.tobytes()), embed_clicks)

    def first_looks(
        self,
        windows: Sequence[Window],
        clicks: Sequence[Click],
        read: Read,
        watch: Stopwatch,
    ) -> Iterator[FirstLook]:
        """Look at windows without a mask, in order; the rest as for :meth:`features`.

        On the CPU a few are looked at ahead, side by side; what was looked at before is
        known.
        """

        def look(window: Window, watch: Stopwatch) -> FirstLook:
            def made() -> FirstLook:
                features = self.features(window, clicks, read, watch)
                output = self.refine(features, None, rows[window], watch)
                with watch.time("refine"):
                    return FirstLook(features, output, self.judge(output))

            return self._looks.get(keys[window], made)

        at_once = torch.get_num_threads() if self.device.type == "cpu" else 1
        rows = {w: newest_row(w, clicks[-1]) for w in windows}
        points = {w: grid_points(w, clicks).tobytes() for w in windows}
        keys = {w: (read, w, points[w], rows[w]) for w in windows}
        known = {w: self._looks.find(keys[w]) for w in windows}
        for number, window in enumerate(windows):
            if known[window] is None:
                some = [w for w in windows[number:] if known[w] is None][:at_once]
                watches = [Stopwatch(self.device) for _ in some]
                jobs = [partial(look, *one) for one in zip(some, watches, strict=True)]
                with watch.share(watches):
                    if self.device.type == "cpu" and self._has_room(len(jobs)):
                        found = run_side_by_side(jobs)
                    else:
                        found = [job() for job in jobs]
                known |= zip(some, found, strict=True)
            yield known[window]

    def _has_room(self, windows: int) -> bool:
        """Whether this many windows fit at once; a notice says where they do not."""
        try:
            self._check_room(windows)
        except torch.OutOfMemoryError:
            self.notices.add("Little memory is left: one window is computed at a time.")
            return False
        return True

    def _check_room(self, windows: int) -> None:
        """Raise torch's OutOfMemoryError where a cap leaves no room (on the CPU)."""
        if self.device.type == "cpu":
            devices.check_cap(self.cap, windows * self.grid**2 * _BYTES_PER_CELL)

    @property
    def embeds_ahead(self) -> bool:
        """Whether another thread may embed: torch's MPS backend cannot."""
        return self.device.type in ("cpu", "cuda")

    def embed_ahead(self, window: Window, read: Read) -> Embedded | None:
        """Embed a window on another thread, for an image that is not set yet.

        None (it is embedded when needed) without enough memory, or if the network moves
        to another device meanwhile.
        """
        state = self._state
        try:
            with self._arithmetic():
                image = self._tensor(read(window)[None])
                return Embedded(self._fast.embed_image(image), state)
        except torch.OutOfMemoryError:
            return None
        except RuntimeError:
            if state is self._state:
                raise
            return None

    def refine(
        self,
        features: Any,
        feedback: NDArray[np.float32] | Tensor | None,
        newest: tuple[float, float, float],
        watch: Stopwatch,
    ) -> NetworkOutput:
        """Run the last stage once; (grid, grid) feedback or None."""
        mask = None
        if feedback is not None:
            mask = torch.as_tensor(feedback, dtype=torch.float32, device=self.device)
            mask = mask[None, None]
        self.give_way()
        row = torch.tensor([newest], dtype=torch.float32, device=self.device)
        network = self._first if mask is None else self._fast
        with watch.time("refine"), self._arithmetic():
            return network.refine(features, mask, row)

    def first_answers(
        self, windows: Sequence[Window], clicks: Sequence[Click], read: Read
    ) -> list[Answer]:
        """Answer one positive click in each window, all in one batch; nothing is kept.

        Computed in bfloat16 where a CPU does that natively, whatever the precision.
        ``read`` as for :meth:`features`.
        """
        images = np.stack([read(window) for window in windows])
        pairs = list(zip(windows, clicks, strict=True))
        points = np.stack([grid_points(window, [click]) for window, click in pairs])
        rows = [newest_row(window, click) for window, click in pairs]
        precision = "auto" if self.precision == "float32" else self.precision
        try:
            self._check_room(len(windows))
            with self._arithmetic(precision):
                newest = torch.tensor(rows, dtype=torch.float32, device=self.device)
                embedding = self._fast.embed_image(self._tensor(images))
                features = self._fast.embed_clicks(embedding, self._tensor(points))
                output = self._first.refine(features, None, newest)
                logits = self._fast.judge(output)
                maps = torch.sigmoid(output.logits[:, 0].float()).cpu().numpy()
                judged: list[float | None] = [None] * len(windows)
                if logits is not None:
                    judged = torch.sigmoid(logits.float()).expand(len(windows)).tolist()
        except torch.OutOfMemoryError:
            if len(windows) == 1:
                raise
            said = "Little memory is left: suggestions come in small batches."
            self.notices.add(said)
            half = len(windows) // 2
            first = self.first_answers(windows[:half], clicks[:half], read)
            return first + self.first_answers(windows[half:], clicks[half:], read)
        return [*map(Answer, windows, images, maps, judged)]

    def judge(self, output: NetworkOutput) -> float | None:
        """Return the IoU the network expects of a step's mask; None if it has none."""
        with self._arithmetic():
            return expected_iou(self._fast, output)

    def _tensor(self, values: NDArray[np.float32]) -> Tensor:
        tensor = torch.from_numpy(values).to(self.device)
        if tensor.ndim == 4 and self.device.type == "cpu":
            return tensor.contiguous(memory_format=torch.channels_last)
        return tensor

    def _half(self, precision: Precision) -> torch.dtype | None:
        """Return the type of 16 bits a precision means here, None for float32."""
        if precision == "auto":
            native = self.device.type == "cpu" and devices.has_native_bfloat16()
            return torch.bfloat16 if native else None
        named: torch.dtype = getattr(torch, precision)
        return None if named is torch.float32 else named

    @contextmanager
    def _arithmetic(self, precision: Precision | None = None) -> Iterator[None]:
        half = self._half(precision or self.precision)
        with torch.inference_mode():
            if half is None:
                yield
                return
            with torch.autocast(self.device.type, dtype=half):
                yield


def expected_iou(network: ClickNetwork, output: NetworkOutput) -> float | None:
    """Return the IoU a network expects of one mask; None if it has no judge."""
    logits = network.judge(output)
    return None if logits is None else float(torch.sigmoid(logits[0].float()))


def grid_points(
    window: Window, clicks: Sequence[Click], slots: int | None = None
) -> NDArray[np.float32]:
    """(2N, 3) rows ``[y, x, order]`` on the grid, clicks out of its reach left out."""
    low, high = -_CLICK_REACH, window.grid - 1 + _CLICK_REACH
    listed = ClickList.of(clicks)
    yx = window.on_grid(listed.yx)
    lower, upper = yx.min(axis=1), yx.max(axis=1)
    # upper < 0 marks an unused slot: such a click is just off the corner.
    near = (low <= lower) & (upper <= high) & (upper >= 0)
    return points_rows(yx[near], listed.positive[near], slots=slots)


def grid_probability(output: NetworkOutput) -> Tensor:
    """(grid, grid) float32 of one window's output."""
    return torch.sigmoid(output.logits[0, 0].float())


def newest_row(window: Window, click: Click) -> tuple[float, float, float]:
    """``(y, x, label)`` of the newest click on the grid."""
    return (*window.to_grid(click.yx), float(click.is_positive))
