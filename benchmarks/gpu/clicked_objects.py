"""Objects being clicked during training, by the product's own code.

A training window is turned, stretched and flipped against its image. Each object
therefore gets a plane of its own, at the resolution at which the product would work
(image pixels, or the cells of the window that fits the object where those are larger),
in which windows, clicks and masks live as they do in the product: ``next_window`` lays
the window, ``settle`` puts the network's answer back, the evaluation's robots click.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cfrseg_training.loop.atlas import Atlas, Layout, WindowBatch
from cfrseg_training.loop.augmentation import PhotometricRecipe, vary
from cfrseg_training.loop.training_step import mask_iou, rough_mask
from napari_cfrseg.clicks import Click, effective_clicks
from napari_cfrseg.engine.corrections import Affinity, violated
from napari_cfrseg.engine.focus import FocusSettings, next_window
from napari_cfrseg.engine.one_way import FROM_CLICK, settle
from napari_cfrseg.engine.prediction import touches_border
from napari_cfrseg.engine.probability_patch import Patch
from napari_cfrseg.engine.stages import grid_points, newest_row
from napari_cfrseg.evaluation.robots import ExactRobot, HumanRobot
from napari_cfrseg.geometry.windows import Window, crop, overlap, paste
from napari_cfrseg.model.cfrnet import CfrNet
from napari_cfrseg.model.network import NetworkOutput

#: side of every object's plane: room around the first window on all sides
PLANE = 16384
_SHAPE = (PLANE, PLANE)


@dataclass(slots=True, eq=False)
class ClickedObject:
    """One object's masks and clicks in its own plane.

    Attributes
    ----------
    window, first
        Where the network looks, and where it looked first: the middle of the plane.
    min_side
        The product's smallest window, in this plane's pixels.
    clicks, patch
        All clicks so far, and the probability after the last round.
    touches
        Whether the last answer ran into the window's border.
    """

    window: Window
    first: Window
    min_side: int
    clicks: list[Click] = field(default_factory=list)
    patch: Patch = field(default_factory=lambda: Patch.empty(_SHAPE))
    touches: bool = False

    @classmethod
    def of(cls, side_px: float, extent_px: float, grid: int) -> ClickedObject:
        """Begin with a window of ``side_px`` image pixels on an object."""
        unit = max(1.0, extent_px * FocusSettings().expansion / grid)
        side = max(1, round(side_px / unit))
        corner = (PLANE - side) // 2
        window = Window(corner, corner, side, grid)
        return cls(window, window, max(1, round(FocusSettings().min_side / unit)))

    @property
    def effective(self) -> tuple[Click, ...]:
        """At most one click per pixel, the later one."""
        return effective_clicks(self.clicks)

    def add_on_grid(self, yx: tuple[float, float], *, positive: bool) -> None:
        """Click at a place of the window's grid."""
        scale, corner = self.window.px_per_cell, self.window.box[:2]
        y, x = (
            start + (v + 0.5) * scale - 0.5 for start, v in zip(corner, yx, strict=True)
        )
        at = (float(math.floor(y + 0.5)), float(math.floor(x + 0.5)))
        self.clicks.append(Click(at, positive))

    def feedback(self) -> NDArray[np.float32]:
        """(1, grid, grid) the mask so far in the window."""
        return crop(self.patch, self.window)

    def is_confined(self) -> bool:
        """Whether the newest click may only change the mask in its own direction."""
        newest, late = self.clicks[-1], len(self.effective) >= FROM_CLICK
        return late and bool(violated(self.patch, [newest], 0.5))

    def start_with(self, mask: NDArray[np.float32]) -> None:
        """Begin with a (grid, grid) mask in the window, as from another plane."""
        box = self.window.box
        self.patch = Patch.empty(_SHAPE).with_box(box, paste(mask, self.window, box))

    def take(
        self,
        probability: NDArray[np.float32],
        affinity: NDArray[np.float32] | None = None,
        push: Sequence[float] = (0.0,),
    ) -> None:
        """Take the network's (grid, grid) answer to the newest click."""
        window, clicks = self.window, self.effective
        similar = None
        if affinity is not None:
            similar = Affinity(replace(window, grid=len(affinity)), affinity)
        self.patch, _ = settle(
            self.patch, probability, window, clicks, affinity=similar, push=push
        )
        self.touches = touches_border(probability > 0.5, window, clicks, _SHAPE)

    def click_again(
        self,
        truth: NDArray[np.bool_],
        known: NDArray[np.bool_],
        rng: np.random.Generator | None,
    ) -> None:
        """Click the largest error in the window, unless there is none.

        ``truth`` and ``known`` are (grid, grid): the object and the pixels that count.
        With a source of chance the robot clicks as people do, else exactly.
        """
        box = overlap(self.window.box, (0, 0, *_SHAPE))
        fine = paste(truth.astype(np.float32), self.window, box) > 0.5
        ignore = paste(known.astype(np.float32), self.window, box) < 0.5
        mask = self.patch.read(box) > 0.5
        if not ((mask != fine) & ~ignore).any():
            return
        robot = HumanRobot(fine, ignore, rng=rng) if rng else ExactRobot(fine, ignore)
        click = robot.next_click(mask)
        at = (click.yx[0] + box[0], click.yx[1] + box[1])
        self.clicks.append(Click(at, click.is_positive))

    def look_again(self) -> bool:
        """Lay the window of the newest click; return whether it is another one."""
        settings = replace(FocusSettings(), min_side=self.min_side, max_side=PLANE // 4)
        old = self.window
        self.window = next_window(
            self.patch.mask_box(0.5),
            self.effective,
            _SHAPE,
            old.grid,
            settings,
            old=old,
            old_touched=self.touches,
        )
        return self.window != old

    def moved(self) -> tuple[tuple[float, float], float]:
        """Return the window's middle and its side, in cells and sides of the first."""
        now, first = self.window, self.first
        half = (now.side - first.side) / 2
        y, x = now.y0 + half - first.y0, now.x0 + half - first.x0
        scale = first.px_per_cell
        return (y / scale, x / scale), now.side / first.side


class ClickedBatch:
    """A batch of objects of an atlas being clicked (float32, on the CPU).

    Half of the batches (``human``) are clicked as people do, the others exactly.
    """

    batch: WindowBatch
    embedding: Any
    newest: Tensor

    def __init__(
        self,
        atlas: Atlas,
        layout: Layout,
        grid: int,
        look: PhotometricRecipe,
        host: torch.Generator,
        *,
        human: float,
    ) -> None:
        self.atlas, self.grid, self.look = atlas, grid, look
        self.first = self.layout = layout
        self.look_seed = int(torch.randint(2**31, (), generator=host))
        self.rng = np.random.default_rng(self.look_seed)
        self.human = float(torch.rand((), generator=host)) < human
        box = atlas.object_box[layout.objects]
        extent = (box[:, 2:] - box[:, :2]).amax(dim=1)
        side = torch.linalg.det(layout.matrix).abs().sqrt() * grid
        pairs = zip(side.tolist(), extent.tolist(), strict=True)
        self.objects = [ClickedObject.of(s, e, grid) for s, e in pairs]
        self._gather()
        self._first_clicks()

    def _gather(self) -> None:
        """Sample the windows, looking as they did before (same draws)."""
        batch = self.atlas.gather(self.layout, self.grid)
        same = torch.Generator().manual_seed(self.look_seed)
        image = vary(batch.image, same, self.look)
        image = image.contiguous(memory_format=torch.channels_last)
        self.batch = replace(batch, image=image)
        self.truth = (batch.mask[:, 0] > 0.5).numpy()
        self.known = batch.valid[:, 0].numpy()

    def _first_clicks(self) -> None:
        """Click inside every object: where its point lies, else any of its pixels."""
        points = self.batch.first_click.tolist()
        for o, truth, (y, x) in zip(self.objects, self.truth, points, strict=True):
            row, column = round(y), round(x)
            inside = 0 <= row < self.grid and 0 <= column < self.grid
            if not (inside and truth[row, column]):
                found = np.argwhere(truth)
                middle = (self.grid // 2, self.grid // 2)
                y, x = found[self.rng.integers(len(found))] if len(found) else middle
            o.add_on_grid((float(y), float(x)), positive=True)

    def start_some(self, share: float, generator: torch.Generator) -> None:
        """Give some objects a rough mask to begin with."""
        rough = rough_mask(self.batch.mask, generator)[:, 0].numpy()
        for o, mask in zip(self.objects, rough, strict=True):
            if self.rng.random() < share:
                o.start_with(mask)

    def click_again(self) -> None:
        """Let the robot click every object that still has an error in its window."""
        rng = self.rng if self.human else None
        for o, truth, known in zip(self.objects, self.truth, self.known, strict=True):
            o.click_again(truth, known, rng)

    def look_again(self) -> None:
        """Lay every window by the product's rule, and sample those pixels."""
        changed = [o.look_again() for o in self.objects]
        if not any(changed):
            return
        offset, scale = zip(*(o.moved() for o in self.objects), strict=True)
        moved = torch.einsum("bij,bj->bi", self.first.matrix, torch.tensor(offset))
        matrix = self.first.matrix * torch.tensor(scale).view(-1, 1, 1)
        centre = self.first.centre + moved
        self.layout = self.first._replace(centre=centre, matrix=matrix)
        self._gather()

    def embed(self, network: CfrNet) -> None:
        """Embed the windows as they lie now."""
        self.embedding = network.embed_image(self.batch.image)

    def evaluate(
        self, network: CfrNet, slots: int = 16
    ) -> tuple[NetworkOutput, Tensor | None]:
        """Answer the newest clicks; also return the masks before, if there are any."""
        rows = [grid_points(o.window, o.effective, slots) for o in self.objects]
        newest = [newest_row(o.window, o.clicks[-1]) for o in self.objects]
        self.newest = torch.tensor(newest)
        features = network.embed_clicks(
            self.embedding, torch.from_numpy(np.stack(rows))
        )
        started = [o.patch.probability.size > 0 for o in self.objects]
        if not any(started):
            return network.refine(features, None, self.newest), None
        before = self.masks()
        gate = torch.tensor(started).float().view(-1, 1, 1, 1)
        return network.refine(features, before, self.newest, gate), before

    def take(self, out: NetworkOutput, push: Sequence[float]) -> None:
        """Put the answers back as the product does."""
        prob = torch.sigmoid(out.logits.detach()[:, 0].float()).numpy()
        similar = None if out.affinity is None else out.affinity.detach()[:, 0].numpy()
        for i, o in enumerate(self.objects):
            o.take(prob[i], None if similar is None else similar[i], push)

    def masks(self) -> Tensor:
        """(B, 1, G, G) probabilities in the windows, as they were put back."""
        return torch.from_numpy(np.stack([o.feedback() for o in self.objects]))

    def may_change(self, before: Tensor) -> Tensor:
        """(B, 1, G, G) bool: pixels that the newest click may change."""
        positive = self.newest[:, 2].view(-1, 1, 1, 1) > 0.5
        confined = torch.tensor([o.is_confined() for o in self.objects])
        return ((before > 0.5) != positive) | ~confined.view(-1, 1, 1, 1)

    def plane_iou(self, out: NetworkOutput) -> Tensor:
        """(B,) IoU of the answers, counting what of the object the window cuts off."""
        mask = out.logits.detach() > 0
        truth, valid = self.batch.mask > 0.5, self.batch.valid
        dims = (1, 2, 3)
        shared = (mask & truth & valid).sum(dims).float()
        union = ((mask | truth) & valid).sum(dims).float()
        edges = [truth[..., 0, :], truth[..., -1, :], truth[..., 0], truth[..., -1]]
        is_cut = torch.cat(edges, dim=-1).flatten(1).any(1)
        cell = torch.linalg.det(self.layout.matrix).abs()
        area = self.atlas.object_area[self.layout.objects] / cell
        beyond = (area - truth.sum(dims)).clamp(min=0) * is_cut
        iou: Tensor = shared / (union + beyond).clamp(min=1)
        return iou

    def settled_iou(self) -> Tensor:
        """Mean IoU in the windows of the masks as they were put back."""
        return mask_iou(self.masks() > 0.5, self.batch.mask, self.batch.valid).mean()
