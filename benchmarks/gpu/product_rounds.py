r"""A training step in the product's own loop.

Two kinds of windows are drawn. *Searching* windows are centred on the first click and
of any size, as the automatic focus tries them: one round, its mask and its judgement
(which must fall where the window shows a part of the object, or mostly what is around
it). *Working* windows are laid as after the focus: a first round, then up to
``earlier`` rounds without gradient, then ``late`` ones that are trained. Between the
rounds the product's own code puts the answer back into the plane, honours clicks,
keeps late clicks from working against their sign, clicks the largest error and lays
the next window (``clicked_objects.py``).

A late round is judged by what it leaves in the plane. With M the mask before, l the
newest click's sign and P the network's answer, only pixels labelled otherwise than l
may change:

.. math::  Q(x) = P(x) \text{ where } [M(x) > 1/2] \ne l, \quad M(x) \text{ elsewhere}

The normalised focal loss counts those pixels alone, the overlap and the error that is
left (``error_left``) are those of Q.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from clicked_objects import ClickedBatch
from torch import Tensor
from torch.nn import functional

from cfrseg_training.loop.atlas import Atlas, WindowRecipe
from cfrseg_training.loop.augmentation import PhotometricRecipe
from cfrseg_training.loop.training_step import (
    StepResult,
    feedback_loss,
    mask_iou,
    normalized_focal_loss,
    soft_iou,
)
from napari_cfrseg.model.blocks.clickmaps import click_distance
from napari_cfrseg.model.cfrnet import CfrNet
from napari_cfrseg.model.network import NetworkOutput


def error_left(
    logits: Tensor, target: Tensor, valid: Tensor, before: Tensor, newest_click: Tensor
) -> Tensor:
    r"""Return the share of a mask's error that a click leaves.

    .. math::  L = \frac{\sum w |p - y|}{\sum w |M - y| + 0.04 \sum y + 8},
               \quad w = 1 + 2 e^{-|x - c|^2 / 2σ^2}

    with M = ``before``, the mask that the click at c corrects (rows ``[y, x, label]``
    in cells), and σ 12 cells. An IoU of 88 % leaves any other loss little to gain, and
    what a late click repairs on one side is easily lost on another: here every click
    has to repair the same share of the remaining error, most of all in its
    neighbourhood. Returns (B,) float32. Not part of either paper.
    """
    prob = torch.sigmoid(logits.float())
    distance = click_distance(newest_click.float(), (prob.shape[-2], prob.shape[-1]))
    bell = torch.exp(-0.5 * (distance / 12) ** 2)
    weight = valid * (1 + 2 * bell)
    dims = (1, 2, 3)
    was = (weight * ((before > 0.5).float() - target).abs()).sum(dims)
    floor = 0.04 * (valid * target).sum(dims) + 8
    return (weight * (prob - target).abs()).sum(dims) / (was + floor)


@dataclass(frozen=True, slots=True)
class ProductConfig:
    """How a step in the product's loop is made up.

    Attributes
    ----------
    searching
        Share of the batch that are searching windows.
    earlier, none_earlier
        Most rounds without gradient before the trained ones, and how often there are
        none; other numbers are equally likely.
    late
        Trained rounds after those.
    weights
        Of the searching round, the first round and each trained later round.
    human
        Share of steps in which the robot clicks as people do.
    refined
        Share of trained rounds whose settled mask is fed back once more.
    started
        Share of working windows that begin with a rough mask and no window search.
    astray
        Share of working windows laid as in the search: a first answer gone wrong.
    iou_weight, gain_weight, feedback_weight, judge_weight
        Of 1 − soft IoU, of the error that is left, of FCFI's terms, of the judgement.
    outside_weight
        Of the focal loss over all pixels in late rounds.
    """

    searching: float = 0.4
    earlier: int = 10
    none_earlier: float = 0.35
    late: int = 2
    weights: tuple[float, float, float] = (1.0, 1.0, 1.5)
    human: float = 0.5
    refined: float = 0.15
    started: float = 0.06
    astray: float = 0.08
    iou_weight: float = 0.7
    gain_weight: float = 0.5
    feedback_weight: float = 0.15
    judge_weight: float = 0.5
    outside_weight: float = 0.2


@dataclass(frozen=True, slots=True)
class ProductStep:
    """Draws and runs batches of the default network in the product's loop (CPU)."""

    atlas: Atlas
    config: ProductConfig
    windows: WindowRecipe
    photometry: PhotometricRecipe

    def __call__(
        self,
        network: CfrNet,
        count: int,
        grid: int,
        generator: torch.Generator,
        host: torch.Generator,
    ) -> StepResult:
        """Run a step of so many windows; the loss has the gradient of all rounds.

        ``generator`` draws the windows, ``host`` everything decided per step.
        """
        chance = generator, host
        searching = round(self.config.searching * count)
        first, working, late = self.config.weights
        result = StepResult(torch.zeros(()))
        total = working + late * self.config.late
        if searching:
            total += first
            scene = self._draw(searching, grid, 0.2, *chance)
            result.loss = result.loss + first * self._search(network, scene, result)
        if count > searching:
            zoomed = 1 - self.config.astray
            scene = self._draw(count - searching, grid, zoomed, *chance)
            scene.start_some(self.config.started, generator)
            result.loss = result.loss + self._work(network, scene, result, host)
        result.loss = result.loss / total
        return result

    def _draw(
        self,
        count: int,
        grid: int,
        zoomed: float,
        generator: torch.Generator,
        host: torch.Generator,
    ) -> ClickedBatch:
        recipe = replace(self.windows, zoomed=zoomed)
        layout = self.atlas.lay(count, grid, generator, recipe)
        look, human = self.photometry, self.config.human
        return ClickedBatch(self.atlas, layout, grid, look, host, human=human)

    def _search(
        self, network: CfrNet, scene: ClickedBatch, result: StepResult
    ) -> Tensor:
        scene.embed(network)
        out, _ = scene.evaluate(network)
        result.iou.append(scene.plane_iou(out).mean())
        return self._first_loss(scene, out)

    def _work(
        self,
        network: CfrNet,
        scene: ClickedBatch,
        result: StepResult,
        host: torch.Generator,
    ) -> Tensor:
        config, push = self.config, network.late_push

        def chance() -> float:
            return float(torch.rand((), generator=host))

        scene.embed(network)
        out, before = scene.evaluate(network)
        batch = scene.batch
        reached = mask_iou(out.logits.detach() > 0, batch.mask, batch.valid)
        result.iou.append(reached.mean())
        loss = config.weights[1] * self._first_loss(scene, out)
        scene.take(out, push)
        scene.click_again()
        scene.look_again()
        earlier = 0
        if chance() >= config.none_earlier and config.earlier:
            earlier = 1 + int(chance() * config.earlier)
        if earlier:
            with torch.no_grad():
                scene.embed(network)
                for _ in range(earlier):
                    out, _ = scene.evaluate(network)
                    scene.take(out, push)
                    scene.click_again()
            scene.look_again()
        scene.embed(network)
        for number in range(config.late):
            out, before = scene.evaluate(network)
            loss = loss + config.weights[2] * self._late_loss(scene, out, before)
            scene.take(out, push)
            if chance() < config.refined:
                out, before = scene.evaluate(network)
                loss = loss + 0.5 * self._late_loss(scene, out, before)
                scene.take(out, push)
            result.iou.append(scene.settled_iou())
            if number + 1 < config.late:
                scene.click_again()
        return loss

    def _first_loss(self, scene: ClickedBatch, out: NetworkOutput) -> Tensor:
        batch = scene.batch
        loss = normalized_focal_loss(out.logits, batch.mask, batch.valid)
        overlap = soft_iou(out.logits, batch.mask, batch.valid)
        loss = loss + self.config.iou_weight * (1 - overlap)
        return (loss + self._side_losses(scene, out)).mean()

    def _late_loss(
        self, scene: ClickedBatch, out: NetworkOutput, before: Tensor | None
    ) -> Tensor:
        if before is None:
            return self._first_loss(scene, out)
        config, truth, valid = self.config, scene.batch.mask, scene.batch.valid
        free = scene.may_change(before)
        settled = torch.where(free, out.logits.float(), torch.logit(before, eps=1e-4))
        left = error_left(settled, truth, valid, before, scene.newest)
        everywhere = normalized_focal_loss(out.logits, truth, valid)
        loss = normalized_focal_loss(out.logits, truth, valid & free)
        loss = loss + config.iou_weight * (1 - soft_iou(settled, truth, valid))
        loss = loss + config.gain_weight * left + config.outside_weight * everywhere
        return (loss + self._side_losses(scene, out)).mean()

    def _side_losses(self, scene: ClickedBatch, out: NetworkOutput) -> Tensor:
        config, batch = self.config, scene.batch
        loss = torch.zeros(len(batch.mask))
        if out.corrected is not None and out.updated is not None:
            terms = feedback_loss(out.corrected, batch.mask, batch.valid, out.region)
            terms = terms + feedback_loss(out.updated, batch.mask, batch.valid)
            loss = loss + config.feedback_weight * terms
        if out.quality_logits is not None:
            judged = functional.binary_cross_entropy_with_logits(
                out.quality_logits.float(), scene.plane_iou(out), reduction="none"
            )
            loss = loss + config.judge_weight * judged
        return loss
