"""Adapt a network's light part to finished objects, for first clicks on others.

In short steps, so that clicks come in between: the first clicks on the finished objects
are made again, once more at other places in them, and what the head reads of each
window is kept; the head's scales, biases and last convolution are then fitted to the
finished masks. Half of the objects teach and the other half judges, and the other way
round: without a gain on objects that did not teach, nothing is kept
(``benchmarks/learning_while_working.md``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_cfrseg.clicks import Click, ClickList
from napari_cfrseg.engine.adapted import Adaptation
from napari_cfrseg.engine.click_round import ClickRound, Task
from napari_cfrseg.engine.focus import FocusHint, FocusSettings
from napari_cfrseg.engine.prediction import Prediction
from napari_cfrseg.engine.probability_patch import Patch
from napari_cfrseg.engine.refinement import Refinement
from napari_cfrseg.engine.side_by_side import Stopwatch
from napari_cfrseg.engine.stages import (
    FirstLook,
    Read,
    Stages,
    expected_iou,
    grid_points,
    newest_row,
)
from napari_cfrseg.errors import CheckpointError
from napari_cfrseg.geometry.distances import depth_in
from napari_cfrseg.geometry.masks import MaskPatch, overlap_iou
from napari_cfrseg.geometry.windows import Window, crop
from napari_cfrseg.io.plane_image import PlaneImage
from napari_cfrseg.model import weights_file
from napari_cfrseg.model.network import ClickNetwork, NetworkOutput

#: fewer finished objects teach nothing that can be tested
LEAST_OBJECTS = 4
#: the newest ones teach, at most so many, with so many clicks in all
_MOST_OBJECTS, _CLICKS = 12, 20
_STEPS, _TRIAL_STEPS, _BATCH, _RATE = 40, 25, 8, 1e-2
#: IoU that first clicks on objects that did not teach must gain
_LEAST_GAIN = 0.02
#: digits of a number that are kept
_DIGITS = 5


class Finished(NamedTuple):
    """A finished object: its mask, and its first click if a person made one."""

    mask: MaskPatch
    yx: tuple[float, float] | None = None


def adapted(
    network: ClickNetwork, adaptation: Adaptation | None
) -> ClickNetwork | None:
    """Return an adapted copy; None if there is no adaptation of this network."""
    if adaptation is None or adaptation.base != fingerprint(network):
        return None
    before = light_numbers(network)
    if len(adaptation.numbers) != len(before):
        return None
    copy = deepcopy(network)
    _set(copy.light_parameters(), before + torch.tensor(adaptation.numbers))
    return copy


def save_model(
    path: Path, network: ClickNetwork, adaptation: Adaptation | None, base: str
) -> None:
    """Write an adapted network as a weights file; it then draws all clicks so.

    ``base`` is the name or path of its model, "" if unknown. An adaptation that is none
    of this network raises CheckpointError.
    """
    changed = adapted(network, adaptation)
    if changed is None or adaptation is None:
        msg = "nothing was learnt with this model: finish a few objects first"
        raise CheckpointError(msg)
    known = weights_file.Metadata(changed.architecture())
    if base:
        known = weights_file.read_metadata(weights_file.resolve(base))
    provenance = known.provenance | {"base": base, "adapted": {"gain": adaptation.gain}}
    named = replace(known, name=path.stem, validation={}, provenance=provenance)
    weights_file.save(path, changed, named)


def light_numbers(network: ClickNetwork) -> Tensor:
    """Return the light parameters as one vector on the CPU."""
    parts = [p.detach().float().cpu().flatten() for p in network.light_parameters()]
    return torch.cat(parts) if parts else torch.zeros(0)


def fingerprint(network: ClickNetwork) -> str:
    """Return the SHA-256 of a network's light parameters."""
    numbers: NDArray[np.float32] = light_numbers(network).numpy()
    return hashlib.sha256(numbers.astype("<f4").tobytes()).hexdigest()


def _set(parameters: Sequence[Tensor], numbers: Tensor) -> None:
    start = 0
    with torch.no_grad():
        for parameter in parameters:
            part = numbers[start : start + parameter.numel()]
            parameter.copy_(part.view_as(parameter))
            start += parameter.numel()


class _Rehearsal(Stages):
    """First clicks with what the head reads of each window kept."""

    def __init__(self, network: ClickNetwork) -> None:
        self.network = network
        self.device = network.device
        self._kept: dict[tuple[Window, Click], Any] = {}

    def features(
        self, window: Window, clicks: Sequence[Click], read: Read, watch: Stopwatch
    ) -> Any:
        """Return what the head reads of a window and its one click."""
        del watch
        key = (window, clicks[-1])
        if key not in self._kept:
            image = torch.from_numpy(read(window)[None])
            points = torch.from_numpy(grid_points(window, clicks)[None])
            newest = torch.tensor([newest_row(window, clicks[-1])])
            with torch.no_grad():
                found = self.network.embed_image(image.to(self.device))
                found = self.network.embed_clicks(found, points.to(self.device))
                found = self.network.approach(found, None, newest.to(self.device))
            self._kept[key] = found
        return self._kept[key]

    def first_looks(
        self,
        windows: Sequence[Window],
        clicks: Sequence[Click],
        read: Read,
        watch: Stopwatch,
    ) -> Iterator[FirstLook]:
        """Look at windows one after the other: other work has the other threads."""
        for window in windows:
            features = self.features(window, clicks, read, watch)
            output = self.refine(features, None, newest_row(window, clicks[-1]), watch)
            yield FirstLook(features, output, self.judge(output))

    def refine(
        self,
        features: Any,
        feedback: NDArray[np.float32] | Tensor | None,
        newest: tuple[float, float, float],
        watch: Stopwatch,
    ) -> NetworkOutput:
        """Draw the mask as the head does now."""
        del feedback, newest, watch
        with torch.no_grad():
            return self.network.draw(features)

    def judge(self, output: NetworkOutput) -> float | None:
        """Return the IoU the network expects; None if it has none."""
        with torch.no_grad():
            return expected_iou(self.network, output)


class _Window(NamedTuple):
    """A window to learn from: whose, what the head reads, the mask, what is plane."""

    owner: int
    read: Any
    truth: Tensor
    valid: Tensor


class Lesson:
    """Learns from a plane's finished objects, newest last, on a copy of the network."""

    def __init__(
        self,
        network: ClickNetwork,
        focus: FocusSettings,
        image: PlaneImage,
        finished: Sequence[Finished],
    ) -> None:
        self._finished = [one for one in finished if one.mask.area][-_MOST_OBJECTS:]
        #: how many of the objects teach: the newest
        self.taught = len(self._finished)
        #: None before :meth:`run` is at its end, and where nothing is worth keeping
        self.result: Adaptation | None = None
        self._base = network
        self._image = image
        self._focus = focus

    def run(self) -> Iterator[None]:
        """Learn in short steps; the result is there after the last one."""
        if len(self._finished) < LEAST_OBJECTS or not self._base.light_parameters():
            return
        network = deepcopy(self._base).eval()
        self._stages = _Rehearsal(network)
        self._round = ClickRound(self._stages, self._focus, self._image)
        sides = [float(max(one.mask.mask.shape)) for one in self._finished]
        self._hint = FocusHint.from_extents(sides)
        self._light = network.light_parameters()
        start = light_numbers(network)
        tests: list[tuple[int, Click, float]] = []
        windows: list[_Window] = []
        for owner, click in self._clicks():
            tests.append((owner, click, self._iou(owner, click)))
            windows += self._windows(owner, click)
            yield
        gains: dict[int, list[float]] = {}
        for fold in (0, 1):
            taught = [w for w in windows if w.owner % 2 != fold]
            yield from self._fit(taught, _TRIAL_STEPS)
            for owner, click, before in tests:
                if owner % 2 == fold:
                    gain = self._iou(owner, click) - before
                    gains.setdefault(owner, []).append(gain)
                    yield
            _set(self._light, start)
        each = np.array([np.mean(found) for found in gains.values()])
        gain, error = float(each.mean()), float(each.std(ddof=1) / len(each) ** 0.5)
        if not self.is_worth_keeping(gain, error):
            return
        yield from self._fit(windows, _STEPS)
        change = (light_numbers(network) - start).tolist()
        numbers = tuple(float(f"{value:.{_DIGITS}g}") for value in change)
        self.result = Adaptation(fingerprint(self._base), numbers, gain)

    @staticmethod
    def is_worth_keeping(gain: float, error: float) -> bool:
        """Judge the gain on objects that did not teach, and its standard error."""
        return gain >= max(_LEAST_GAIN, error)

    def _clicks(self) -> Iterator[tuple[int, Click]]:
        """Yield each object's own first click, and others in its inner part."""
        rng = np.random.default_rng(0)
        more = max(1, min(3, _CLICKS // len(self._finished)))
        for owner, (mask, yx) in enumerate(self._finished):
            depth = depth_in(mask.mask)
            inner = np.argwhere(depth >= 0.5 * depth.max())
            drawn = (inner[rng.integers(len(inner))] + mask.offset for _ in range(more))
            clicks = [Click((int(y), int(x))) for y, x in drawn]
            if yx is not None:
                clicks[0] = Click(yx)
            yield from ((owner, click) for click in dict.fromkeys(clicks))

    def _iou(self, owner: int, click: Click) -> float:
        """Return the IoU that a first click reaches with the head as it is now."""
        nothing = Prediction.empty(self._image.shape)
        task = Task((click,), nothing, Refinement.standard(), self._hint)
        y0, x0, inside = self._round.compute(task).mask_patch()
        answer = MaskPatch.from_mask(inside, (y0, x0))
        return overlap_iou(answer, self._finished[owner].mask)

    def _windows(self, owner: int, click: Click) -> Iterator[_Window]:
        """Yield the windows that a first click tries, and one that fits the mask."""
        mask, watch = self._finished[owner].mask, Stopwatch(self._stages.device)
        search, clicks = self._round.search, ClickList([click])
        found = search.attempts(clicks, self._hint, watch)
        tried = [attempt.look.window for attempt in found]
        y0, x0, y1, x1 = mask.box
        side = max(self._focus.min_side, round(1.6 * max(mask.mask.shape)))
        middle = ((y0 + y1 - 1) / 2, (x0 + x1 - 1) / 2)
        patch = Patch(self._image.shape, y0, x0, mask.mask.astype(np.float32))
        fitted = Window.centred(middle, side, self._stages.grid, self._image.shape)
        for window in dict.fromkeys((*tried, fitted)):
            read = self._stages.features(window, [click], self._image.crop, watch)
            truth = crop(patch, window)[0] > 0.5
            valid = _on_plane(window, self._image.shape)
            yield _Window(owner, read, *map(torch.from_numpy, (truth, valid)))

    def _fit(self, windows: Sequence[_Window], steps: int) -> Iterator[None]:
        """Fit the light parameters by Adam; a step of eight windows at a time."""
        optimiser = torch.optim.Adam(self._light, lr=_RATE)
        chance = torch.Generator().manual_seed(0)
        order: list[int] = []
        for _ in range(steps):
            if len(order) < min(_BATCH, len(windows)):
                order = torch.randperm(len(windows), generator=chance).tolist()
            batch = [windows[order.pop()] for _ in range(min(_BATCH, len(order)))]
            truth = torch.stack([w.truth for w in batch])[:, None].float()
            valid = torch.stack([w.valid for w in batch])[:, None].float()
            for parameter in self._light:
                parameter.requires_grad_(True)
            output = self._stages.network.draw(_joined([w.read for w in batch]))
            optimiser.zero_grad()
            where = self._stages.device
            loss = _loss(output.logits.float(), truth.to(where), valid.to(where))
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(self._light, 1.0)
            optimiser.step()
            for parameter in self._light:
                parameter.requires_grad_(False)
            yield


def _on_plane(window: Window, plane: tuple[int, int]) -> NDArray[np.bool_]:
    """(grid, grid): which cells of a window show the plane."""
    middles = (np.arange(window.grid) + 0.5) * window.px_per_cell
    rows, columns = window.y0 + middles, window.x0 + middles
    inside = ((rows >= 0) & (rows < plane[0]))[:, None]
    return inside & (columns >= 0) & (columns < plane[1])


def _joined(parts: Sequence[Any]) -> Any:
    """Join what single windows gave, along the batch."""
    first = parts[0]
    if isinstance(first, Tensor):
        return torch.cat(list(parts))
    if isinstance(first, tuple) and not isinstance(first[0], int):
        joined = [_joined(column) for column in zip(*parts, strict=True)]
        return type(first)(*joined) if hasattr(first, "_fields") else tuple(joined)
    return first


def _loss(logits: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    """Return the normalised focal loss plus half of 1 − soft IoU, as in training."""
    dims = (1, 2, 3)
    inside = torch.sigmoid(logits)
    right = torch.where(truth > 0.5, inside, 1 - inside)
    weight = (1 - right) ** 2 * valid
    share = weight.detach().sum(dims, keepdim=True) / valid.sum(dims, keepdim=True)
    focal = -(weight * torch.log(right.clamp(min=1e-6))).sum(dims) / valid.sum(dims)
    both = (inside * truth * valid).sum(dims)
    either = (torch.maximum(inside, truth) * valid).sum(dims)
    focal = focal / (share.view(-1) + 1e-6)
    return (focal + 0.5 * (1 - (both + 1) / (either + 1))).mean()
