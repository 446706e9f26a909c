"""Segment an object by clicks: ``set_image`` once, then ``predict`` per click.

An object's mask is a pure function of the image, its start mask, its clicks in order
and the settings: every click has a round of its own, whose window is chosen from the
round before and fixed for its whole cascade. Kept embeddings never change a result.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from napari_cfrseg.clicks import Click, ClickList, as_clicks, check_inside
from napari_cfrseg.engine.adaptation import Finished, Lesson, adapted
from napari_cfrseg.engine.adapted import Adaptation
from napari_cfrseg.engine.backends import Backend
from napari_cfrseg.engine.click_round import ClickRound, StepCallback, Task
from napari_cfrseg.engine.devices import Placement, resolve_device
from napari_cfrseg.engine.focus import FocusHint, FocusSettings
from napari_cfrseg.engine.likeness import Likeness, learn
from napari_cfrseg.engine.prediction import Prediction, start_from
from napari_cfrseg.engine.refinement import Refinement, as_refinement
from napari_cfrseg.engine.side_by_side import Stopwatch
from napari_cfrseg.engine.stages import Embedded, Precision, Stages
from napari_cfrseg.engine.suggestions import Batch, Suggester, Verdict
from napari_cfrseg.engine.window_search import Attempt
from napari_cfrseg.geometry.distances import innermost
from napari_cfrseg.geometry.masks import MaskPatch
from napari_cfrseg.geometry.windows import Box, PlaneLike, Window, shape_of
from napari_cfrseg.io.plane_image import PlaneImage, Scaling, open_plane
from napari_cfrseg.model import weights_file as checkpoint
from napari_cfrseg.model.network import ClickNetwork
from napari_cfrseg.processes import use_threads

__all__ = ["Prediction", "Refinement", "Segmenter", "StepCallback", "segment"]


def segment(
    image: PlaneLike,
    points: Sequence[Click] | ArrayLike,
    labels: ArrayLike | None = None,
    *,
    model: str | Path = "default",
    refinement: Refinement | str | None = None,
    device: str = "auto",
) -> NDArray[np.bool_]:
    """Segment one object of one image, and return its (Y, X) bool mask.

    The model is loaded at each call: for several objects use a :class:`Segmenter`,
    whose methods ``load``, ``set_image`` and ``predict`` explain the parameters.

    Examples
    --------
    >>> from napari_cfrseg import load_sample, segment
    >>> segment(load_sample("powder_sem").image, [(120, 88)])[120, 88]
    np.True_
    """
    segmenter = Segmenter.load(model, device=device)
    segmenter.set_image(image)
    return segmenter.predict(points, labels, refinement=refinement).mask


class Segmenter:
    """Segments objects of one image by clicks.

    ``network`` is any network in three stages; ``device`` "auto", "cpu", "cuda",
    "cuda:1" or "mps"; ``precision`` "float32", "bfloat16", "float16" (autocast) or
    "auto"; ``backend`` "torch", "openvino" or "auto" (``backends.choose``). ``name`` is
    the model's in messages; ``origin`` says which weights it has, for segmenters that
    share what computes.

    Examples
    --------
    >>> from napari_cfrseg import Segmenter, load_sample
    >>> segmenter = Segmenter.load("default", device="cpu")
    >>> segmenter.set_image(load_sample("powder_sem").image)
    >>> first = segmenter.predict([(120, 88)])
    >>> second = segmenter.predict([(120, 88), (90, 60)], [1, 0], previous=first)
    >>> second.mask.shape
    (512, 512)
    """

    def __init__(
        self,
        network: ClickNetwork,
        *,
        device: str = "auto",
        precision: Precision = "float32",
        backend: Backend = "torch",
        focus: FocusSettings | None = None,
        name: str = "custom",
        origin: Hashable = None,
    ) -> None:
        self._stages = Stages(network, device, precision, backend, origin)
        #: what was done against running out of memory
        self.notices = self._stages.notices
        self.focus = FocusSettings() if focus is None else focus
        self.name = name
        self._image: PlaneImage | None = None
        #: as objects are seen, by the pixel of their first click
        self._seen: dict[tuple[int, int], PlaneImage] = {}
        self._adaptation: Adaptation | None = None

    @classmethod
    def load(
        cls,
        name_or_path: str | Path = "default",
        device: str = "auto",
        *,
        threads: int | None = None,
        precision: Precision = "float32",
        backend: Backend = "torch",
        focus: FocusSettings | None = None,
    ) -> Segmenter:
        """Load a model that ships or is installed under a name, or a weights file.

        Parameters
        ----------
        name_or_path
            "default", another name of ``cfrseg models list``, or a path; one that does
            not fit raises CheckpointError.
        device
            "auto" takes CUDA, then MPS, then the CPU; DeviceError if it is not there.
        threads
            CPU threads torch may use, process-wide, 1 to 4096 (else ValueError); None
            leaves torch's choice.
        backend
            "torch", the reference, "openvino", or "auto": the faster one that is ready.
        """
        resolve_device(device)  # before the weights are read: fails fast
        use_threads(threads)
        path = checkpoint.resolve(name_or_path)
        network, _ = checkpoint.load(path)
        return cls(
            network,
            device=device,
            precision=precision,
            backend=backend,
            focus=focus,
            name=str(name_or_path),
            origin=checkpoint.version_of(path),
        )

    @property
    def device(self) -> str:
        """Where it computes now (the CPU after CUDA ran out of memory)."""
        return str(self._stages.device)

    @property
    def placement(self) -> Placement:
        """Where and by which program it computes now, and why."""
        return self._stages.placement

    @property
    def network(self) -> ClickNetwork:
        """The network."""
        return self._stages.network

    @property
    def image_shape(self) -> tuple[int, int] | None:
        """(Y, X) of the image set, None before."""
        return None if self._image is None else self._image.shape

    @property
    def scaling(self) -> Scaling | None:
        """The image values painted black and white, None before an image is set."""
        return None if self._image is None else self._image.scaling

    def set_image(
        self,
        image: PlaneLike,
        *,
        rgb: bool | None = None,
        scaling: Scaling | None = None,
    ) -> None:
        """Set the plane to click on.

        Parameters
        ----------
        image
            (Y, X) or (Y, X, C) with 1–4 channels; bool, integer or float; NumPy, or
            lazy (dask, zarr): then only windows are ever read. Not copied: after a
            change of its pixels set it again.
        rgb
            Whether 3 or 4 channels are RGB(A); by default if uint8.
        scaling
            Values painted black and white; by default a sample's 0.1th and 99.9th
            percentile. An object clicked far outside them widens them for itself.

        A wrong shape or dtype, or no finite pixel, raises ImageError.
        """
        self.show(open_plane(image, rgb=rgb, scaling=scaling))

    def show(
        self, image: PlaneImage, early: Mapping[Window, Callable[[], Any]] | None = None
    ) -> None:
        """Set a plane that was opened ahead (``plane_image.open_plane``).

        ``early`` are functions that return :meth:`embed_ahead`'s results, by window.
        """
        self._image = image
        self._seen.clear()
        self._stages.forget({(image.crop, w): f for w, f in (early or {}).items()})

    @property
    def embeds_ahead(self) -> bool:
        """Whether :meth:`embed_ahead` may be called on another thread."""
        return self._stages.embeds_ahead

    def embed_ahead(self, image: PlaneImage, window: Window) -> Embedded | None:
        """Embed a window of a plane that comes later, on another thread.

        The masks on that plane are the same with it and without.
        """
        return self._stages.embed_ahead(window, image.crop)

    def predict(
        self,
        points: Sequence[Click] | ArrayLike,
        labels: ArrayLike | None = None,
        *,
        previous: Prediction | NDArray[Any] | None = None,
        refinement: Refinement | str | None = None,
        hint: FocusHint | float | None = None,
        focus_shift: int = 0,
        threshold: float | None = None,
        on_step: StepCallback | None = None,
    ) -> Prediction:
        """Segment the object the clicks are on.

        Parameters
        ----------
        points
            All clicks of the object, in the order they were made: Clicks, or (N, 2)
            (row, column). Of two on one pixel the later counts.
        labels
            (N,) bool or 1 and 0, the signs of an (N, 2) array; by default positive.
        previous
            The object's last Prediction: only the clicks that follow its own are
            computed; with no further click it is the answer. Or a (Y, X) mask to
            start from, or None: then every click's round is computed, in order.
        refinement
            A Refinement or its name: "standard" (default), "CFR-4", "A-CFR-4".
        hint
            The object's size as far as it is known, or just the side of its window in
            pixels; used by the first click only.
        focus_shift
            −1 looks closer, +1 wider, by √2 each.
        threshold
            Where masks are cut: probability > threshold; by default that of
            ``previous``, else 0.5. The clicks correct the mask cut there.
        on_step
            Called with the Prediction so far after each step of a click's cascade
            that another one follows.

        Returns
        -------
        The Prediction after the last click. Without a positive click and without a
        start mask it is empty and the network is not run. Every click is honoured.

        Raises
        ------
        ValueError
            No image set, a click outside it, points or labels that are none, a mask
            of another shape, or a previous Prediction of other clicks.
        """
        image = self._ready()
        if isinstance(labels, Prediction) or np.ndim(cast("Any", labels)) > 1:
            msg = "labels are 1 and 0, one per point; a mask goes in previous=…"
            raise TypeError(msg)
        clicks = as_clicks(points, labels)
        if hint is not None and not isinstance(hint, FocusHint):
            hint = FocusHint(float(hint))
        result = start_from(previous, image.shape, clicks)
        for click in clicks[len(result.clicks) :]:
            check_inside(click, image.shape)
        if threshold is not None:
            result = result.with_threshold(threshold)
        known, how = ClickList.of(result.clicks), as_refinement(refinement)
        cut = result.threshold
        for count, click in enumerate(clicks[len(known) :], len(known) + 1):
            # a list given as such has its arrays
            is_all = count == len(clicks)
            known = ClickList.of(clicks) if is_all else known.followed_by(click)
            task = Task(known, result, how, hint, focus_shift, on_step, threshold=cut)
            result = self._round(task)
        return result

    def carry(
        self,
        clicks: Sequence[Click],
        previous: Prediction,
        refinement: Refinement | str | None = None,
        *,
        on_window: Callable[[Window], None] | None = None,
    ) -> Prediction:
        """Segment an object known from a neighbouring plane, in one round.

        ``clicks``, at least one, are those that a program chose from that plane's mask,
        the most telling one last; they are never forced on the network's answer, and
        the Prediction does not keep them. ``previous`` is that plane's result: the
        first feedback, and the window while it fits. ``on_window`` gets the window once
        it is embedded.
        """
        image = self._ready()
        if not clicks or previous.shape != image.shape:
            raise ValueError(
                f"{len(clicks)} clicks and a mask of {previous.shape}: at least one "
                f"click and a mask of {image.shape} are needed"
            )
        for click in clicks:
            check_inside(click, image.shape)
        start = replace(previous, clicks=(), touches_border=False)
        task = Task(tuple(clicks), start, as_refinement(refinement), None, forced=False)
        return replace(self._round(replace(task, on_window=on_window)), clicks=())

    @contextmanager
    def giving_way(self, check: Callable[[], None]) -> Iterator[None]:
        """Call ``check`` before each run of the network meanwhile.

        What it raises ends the work; the embeddings made until then are kept.
        """
        self._stages.give_way = check
        try:
            yield
        finally:
            self._stages.give_way = lambda: None

    def try_windows(
        self, click: Click, hint: FocusHint | None = None, side_px: float | None = None
    ) -> tuple[Attempt, ...]:
        """Return the windows the automatic focus tries at a first, positive click.

        With ``side_px`` only the one of the nearest side. None of them is chosen.
        """
        check_inside(click, self._ready().shape)
        image = self._seeing([click])
        clicks, watch = ClickList([click]), Stopwatch(self._stages.device)
        return self._computer(image).search.attempts(clicks, hint, watch, side_px)

    def learn(self, finished: Sequence[MaskPatch]) -> Likeness:
        """Learn from finished objects of the image what :meth:`suggest` looks for.

        ValueError if no image is set, or no mask holds a pixel.
        """
        image = self._seeing_all(finished)
        known = learn(image, finished, self._stages.grid)
        is_widened = image.scaling != self._ready().scaling
        return replace(known, scaling=image.scaling if is_widened else None)

    def lesson(self, finished: Sequence[Finished]) -> Lesson:
        """Prepare to learn from finished objects of the image, for :meth:`adapt`."""
        image = self._seeing_all([one.mask for one in finished])
        return Lesson(self.network, self.focus, image, finished)

    def adapt(self, adaptation: Adaptation | None) -> None:
        """Draw first clicks as a lesson of this network taught; None: forget it."""
        if adaptation != self._adaptation:
            self._adaptation = adaptation
            self._stages.adapt(adapted(self.network, adaptation))

    def suggest(
        self,
        known: Likeness,
        *,
        region: Box | None = None,
        taken: Callable[[Box], NDArray[np.bool_]] | None = None,
        verdicts: Sequence[Verdict] = (),
        earlier: Sequence[Batch] = (),
    ) -> Iterator[Batch]:
        """Propose objects of the image like those learnt from, in small batches.

        ``known`` is what :meth:`learn` returned, on this image or another one;
        ``region`` where to look (None: everywhere), its centre first. ``taken`` returns
        (h, w) bool, which pixels of a box belong to objects already; ``verdicts`` is
        what a person said of earlier suggestions. What ``earlier`` batches found, and
        the tiles they completed, are left out. Each batch is computed when it is asked
        for; other methods may be called in between. No two suggestions overlap much.
        """
        image = self._ready()
        if known.scaling is not None:
            image = replace(image, scaling=known.scaling)
        taken = taken or (lambda box: np.zeros(shape_of(box), bool))
        asked = Suggester(self._stages, image, known, taken, verdicts, earlier)
        return asked.run(region)

    def _ready(self) -> PlaneImage:
        if self._image is None:
            raise ValueError("no image set: call set_image first")
        return self._image

    def _round(self, task: Task) -> Prediction:
        start, image = time.perf_counter(), self._seeing(task.clicks)
        if not task.effective.positive.any() and not task.previous.has_mask:
            return Prediction.empty(image.shape, task.clicks, task.threshold)
        try:
            result = self._computer(image).compute(task)
        except torch.OutOfMemoryError:
            if self._stages.device.type == "cpu":
                raise
            self._stages.fall_back()
            result = self._computer(image).compute(task)
        seconds = time.perf_counter() - start
        return replace(result, seconds=seconds, scaling=self.scaling)

    def _seeing(self, clicks: Sequence[Click]) -> PlaneImage:
        """Return the image with black and white for the object the clicks are on."""
        image = self._ready()
        pixel = next((click.pixel for click in clicks if click.is_positive), None)
        if pixel is None:
            return image
        if len(clicks) == 1:
            image.begin_at(pixel)
        if pixel not in self._seen:
            self._seen[pixel] = image.seeing(pixel)
        return self._seen[pixel]

    def _seeing_all(self, finished: Sequence[MaskPatch]) -> PlaneImage:
        """Return the image with black and white for some finished objects."""
        return self._ready().seeing(*(innermost(m) for m in finished if m.area))

    def _computer(self, image: PlaneImage) -> ClickRound:
        return ClickRound(self._stages, self.focus, image)
