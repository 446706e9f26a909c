"""Measure whether adapting the network's light part to a few finished objects pays.

    python benchmarks/adapt_while_working.py DATA OUT.json [--ways NAME …]
    python benchmarks/adapt_while_working.py --table OUT.json

For every field (an image of the validation side with enough objects) some objects are
taken as finished. The model adapts to them in every way below; then a robot clicks
other objects of the same image, with the shipped model and with each adapted one, so
that all figures are paired. What is adapted are parts behind the image encoder, whose
output is computed once per window and kept; the encoder itself stays as it is. Seconds
are processor seconds of one thread. OUT holds a row per field and way; a run that was
stopped continues.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from cfrseg_training.loop.atlas import Atlas, Sample, WindowBatch, WindowRecipe
from cfrseg_training.loop.augmentation import PhotometricRecipe, vary
from cfrseg_training.loop.click_sampling import initial_clicks, next_click
from cfrseg_training.loop.labelled import to_uint8
from cfrseg_training.loop.training_step import normalized_focal_loss, soft_iou
from napari_cfrseg.engine.focus import FocusHint
from napari_cfrseg.engine.segmenter import Segmenter
from napari_cfrseg.evaluation.datasets import BenchmarkObject
from napari_cfrseg.evaluation.datasets.choice import read_split
from napari_cfrseg.evaluation.datasets.label_folders import LabelFolder
from napari_cfrseg.evaluation.evaluate_objects import RunSettings, evaluate_object
from napari_cfrseg.evaluation.scores import bootstrap_means, clicks_to
from napari_cfrseg.model import weights_file as checkpoint
from napari_cfrseg.model.cfrnet import CfrNet
from napari_cfrseg.model.network import ClickNetwork

SPLIT = Path(__file__).parent / "split.json"
SETS = ("t98g_phase", "tnbc_he_nuclei", "dsb2018_stained", "axon_sem")
#: modules behind the image encoder, lightest first
HEAD = ("head",)
BEHIND_CLICKS = ("ffcm", "cffm", "fine", "head")
BEHIND_ENCODER = ("clicks", *BEHIND_CLICKS)


@dataclass(frozen=True, slots=True)
class Way:
    """How the model adapts.

    Attributes
    ----------
    parts
        Modules that are trained.
    seconds, rate
        Processor time, and AdamW's learning rate.
    kept
        Share of the way from the shipped weights to the adapted ones that is gone.
    hint
        Whether first clicks expect an object of the finished ones' size.
    bias
        Whether only one number is fitted, added to all logits.
    finished
        Finished objects.
    searching
        Whether windows are as wide and as narrow as those the first click tries.
    """

    parts: tuple[str, ...] = ()
    seconds: float = 5.0
    rate: float = 3e-4
    kept: float = 1.0
    hint: bool = False
    bias: bool = False
    finished: int = 5
    searching: bool = False


WAYS: Mapping[str, Way] = {
    "shipped": Way(),
    "size": Way(hint=True),
    "threshold": Way(bias=True),
    "head": Way(HEAD),
    "head, fast": Way(HEAD, rate=1e-3),
    "head, fast, half kept": Way(HEAD, rate=1e-3, kept=0.5),
    "head, 3 objects": Way(HEAD, finished=3),
    "head, 8 objects": Way(HEAD, finished=8),
    "behind the clicks": Way(BEHIND_CLICKS),
    "behind the encoder": Way(BEHIND_ENCODER),
    "behind the encoder, fast": Way(BEHIND_ENCODER, rate=1e-3),
    "head, search windows": Way(HEAD, searching=True),
    "head, search windows, slow": Way(HEAD, rate=1e-4, searching=True),
    "behind the encoder, search windows": Way(
        BEHIND_ENCODER, rate=1e-4, searching=True
    ),
    "behind the encoder, 20 s": Way(BEHIND_ENCODER, seconds=20.0),
}


class Field(NamedTuple):
    """An image with objects to finish, in order, and others to be clicked."""

    name: str
    finished: list[BenchmarkObject]
    clicked: list[BenchmarkObject]


def fields_of(data: Path, sets: list[str], count: int, clicked: int) -> Iterator[Field]:
    """Yield so many fields of each set, set after set and again.

    Of a set with fewer images they come again, with other objects.
    """
    most = max(way.finished for way in WAYS.values())
    split = read_split(SPLIT)
    planes: dict[str, dict[str, list[BenchmarkObject]]] = {}
    for name in sets:
        folder = LabelFolder(
            data / name, name, image_names=tuple(split[name]["validation"])
        )
        own = planes.setdefault(name, {})
        for item in folder.objects():
            own.setdefault(item.plane_key, []).append(item)
        planes[name] = {k: v for k, v in own.items() if len(v) >= most + 4}
    for number in range(count):
        for name in sets:
            if not planes[name]:
                continue
            draw, index = divmod(number, len(planes[name]))
            key = sorted(planes[name])[index]
            objects = planes[name][key]
            rng = np.random.default_rng((draw, len(objects)))
            order = [objects[i] for i in rng.permutation(len(objects))]
            yield Field(f"{key} {draw}", order[:most], order[most : most + clicked])


def windows_of(sample: Sample, grid: int, *, searching: bool) -> WindowBatch:
    """Draw windows around the finished objects."""
    recipe = WindowRecipe(
        zoomed=0.8, zoomed_extent=(0.3, 0.8), searching_extent=(0.15, 0.8), stretch=1.1
    )
    if searching:
        recipe = WindowRecipe(zoomed=0.4, stretch=1.1)
    atlas = Atlas([sample], min_area_px=1)
    generator = torch.Generator().manual_seed(0)
    objects = torch.arange(len(atlas)).repeat(-(-40 // len(atlas)))[:40]
    batch = atlas.draw(len(objects), grid, generator, recipe, objects)
    image = vary(batch.image, generator, PhotometricRecipe().scaled(0.15))
    return WindowBatch(
        image, batch.mask, batch.others, batch.valid, batch.first_click, None
    )


def adapt(network: CfrNet, sample: Sample, way: Way) -> tuple[int, float]:
    """Train parts of a network in place; return steps and processor seconds."""
    began = time.process_time()
    network.eval().requires_grad_(False)
    batch = windows_of(sample, network.grid_size, searching=way.searching)
    with torch.no_grad():
        kept = [network.embed_image(part) for part in batch.image.split(8)]
    embedding = _joined(kept)
    trained = [
        p
        for name in way.parts
        if getattr(network, name) is not None
        for p in getattr(network, name).parameters()
    ]
    for parameter in trained:
        parameter.requires_grad_(True)
    before = [p.detach().clone() for p in trained]
    optimiser = torch.optim.AdamW(trained, lr=way.rate, weight_decay=0.0)
    generator = torch.Generator().manual_seed(1)
    steps = 0
    drawn = _drawn(network, embedding, batch, generator) if way.parts == HEAD else None
    while time.process_time() - began < way.seconds:
        index = torch.randperm(len(batch.mask), generator=generator)[:8]
        windows = _windows(batch, index)
        if drawn is None:
            _step(network, _picked(embedding, index), windows, generator)
        else:
            _head_step(network, drawn[steps % 2], index, windows)
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        steps += 1
    with torch.no_grad():
        for parameter, old in zip(trained, before, strict=True):
            parameter.copy_(old + way.kept * (parameter - old))
    return steps, time.process_time() - began


def _step(
    network: ClickNetwork,
    embedding: Any,
    batch: WindowBatch,
    generator: torch.Generator,
) -> None:
    """Add the gradient of a first and of a second click."""
    torch.autograd.backward(_losses(network, embedding, batch, generator))


def _losses(
    network: ClickNetwork,
    embedding: Any,
    batch: WindowBatch,
    generator: torch.Generator,
) -> torch.Tensor:
    clicks = initial_clicks(batch, generator, extra=0.15)
    feedback = None
    total = torch.zeros(())
    for number in range(2):
        features = network.embed_clicks(embedding, clicks.points)
        out = network.refine(features, feedback, clicks.newest)
        loss = normalized_focal_loss(out.logits, batch.mask, batch.valid)
        loss = loss + 0.5 * (1 - soft_iou(out.logits, batch.mask, batch.valid))
        total = total + loss.mean()
        if number == 0:
            feedback = torch.sigmoid(out.logits.detach())
            clicks.add(*next_click(feedback, batch.mask, batch.valid, generator))
    return total


def _drawn(
    network: CfrNet, embedding: Any, batch: WindowBatch, generator: torch.Generator
) -> list[list[torch.Tensor | None]]:
    """Return what the head reads after a first and after a second click."""
    read: list[Any] = []
    draw = network.head.draw

    def watch(*given: Any) -> Any:
        read.append(given)
        return draw(*given)

    network.head.draw = watch  # type: ignore[method-assign]
    with torch.no_grad():
        for start in range(0, len(batch.mask), 8):
            index = torch.arange(start, min(start + 8, len(batch.mask)))
            _losses(
                network, _picked(embedding, index), _windows(batch, index), generator
            )
    network.head.draw = draw  # type: ignore[method-assign]
    rounds = [read[0::2], read[1::2]]
    return [
        [
            None if column[0] is None else torch.cat(column)
            for column in zip(*of_round, strict=True)
        ]
        for of_round in rounds
    ]


def _head_step(
    network: CfrNet,
    read: list[torch.Tensor | None],
    index: torch.Tensor,
    batch: WindowBatch,
) -> None:
    given = [None if part is None else part[index] for part in read]
    logits, _ = network.head.draw(*given)  # type: ignore[arg-type]
    loss = normalized_focal_loss(logits, batch.mask, batch.valid)
    loss = loss + 0.5 * (1 - soft_iou(logits, batch.mask, batch.valid))
    torch.autograd.backward(loss.mean())


def _joined(parts: list[Any]) -> Any:
    """Concatenate embeddings along the batch."""
    first = parts[0]
    return first._replace(
        image=torch.cat([p.image for p in parts]),
        detail=torch.cat([p.detail for p in parts]),
        pyramid=tuple(map(torch.cat, zip(*(p.pyramid for p in parts), strict=True))),
    )


def _picked(embedding: Any, index: torch.Tensor) -> Any:
    return embedding._replace(
        image=embedding.image[index],
        detail=embedding.detail[index],
        pyramid=tuple(level[index] for level in embedding.pyramid),
    )


def _windows(batch: WindowBatch, index: torch.Tensor) -> WindowBatch:
    return WindowBatch(
        batch.image[index],
        batch.mask[index],
        batch.others[index],
        batch.valid[index],
        batch.first_click[index],
    )


def fitted_bias(
    segmenter: Segmenter, masks: list[np.ndarray], hint: FocusHint | None
) -> float:
    """Return the number that, added to first clicks' logits, serves masks best."""
    from scipy import ndimage

    from napari_cfrseg.clicks import Click

    steps = np.linspace(-2, 2, 17)
    total = np.zeros(len(steps))
    for mask in masks:
        depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
        y, x = np.unravel_index(int(depth.argmax()), mask.shape)
        found = segmenter.predict([Click((float(y), float(x)))], hint=hint)
        box = (0, 0, *mask.shape)
        probability = np.clip(found.patch.read(box), 1e-5, 1 - 1e-5)
        logits = np.log(probability / (1 - probability))
        for index, step in enumerate(steps):
            drawn = logits + step > 0
            total[index] += (drawn & mask).sum() / max(1, (drawn | mask).sum())
    return float(steps[int(np.argmax(total - 1e-3 * np.abs(steps)))])


class Hinted:
    """A segmenter that expects objects of a known size."""

    def __init__(self, segmenter: Segmenter, hint: FocusHint | None) -> None:
        self.segmenter, self.hint = segmenter, hint

    def set_image(self, image: Any) -> None:
        """Take the image."""
        self.segmenter.set_image(image)

    def predict(self, clicks: Any, previous: Any) -> Any:
        """Predict with the hint."""
        return self.segmenter.predict(clicks, previous=previous, hint=self.hint)


def measure(field: Field, way: Way, clicks: int) -> dict[str, Any]:
    """Adapt to a field's finished objects and click its others."""
    finished = field.finished[: way.finished]
    item = finished[0]
    plane = item.source.read_plane(item.image_name, item.plane)
    masks = [f.mask_in(plane) for f in finished]
    labels = np.zeros(masks[0].shape, np.int32)
    for number, mask in enumerate(masks, 1):
        labels[mask] = number
    extents = [max(np.ptp(np.nonzero(mask), axis=1)) + 1 for mask in masks]
    hint = FocusHint.from_extents(extents) if way.hint else None
    network, _ = checkpoint.load(checkpoint.resolve("default"))
    if not isinstance(network, CfrNet):
        raise TypeError(network)
    network = copy.deepcopy(network).eval()
    steps, seconds, bias = 0, 0.0, 0.0
    if way.parts:
        sample = Sample(to_uint8(plane.image), labels, "own", "own")
        steps, seconds = adapt(network, sample, way)
    if way.bias:
        began = time.process_time()
        segmenter = Segmenter(network, device="cpu")
        segmenter.set_image(plane.image)
        bias = fitted_bias(segmenter, masks, hint)
        seconds = time.process_time() - began
        with torch.no_grad():
            network.head.full.bias += bias
    segmenter = Segmenter(network, device="cpu")
    segmenter.set_image(plane.image)
    settings = RunSettings(max_clicks=clicks, target=0.85, min_clicks=1)
    rows = [
        evaluate_object(Hinted(segmenter, hint), plane, other, settings)
        for other in field.clicked
    ]
    return {
        "objects": [row.key for row in rows],
        "ious": [list(row.ious) for row in rows],
        "steps": steps,
        "seconds": seconds,
        "bias": bias,
    }


def table(path: Path, clicks: int) -> str:
    """Return every way beside the shipped model on the same objects."""
    done = json.loads(path.read_text(encoding="utf-8"))
    lines = [
        "| way | fields | objects | steps | s | IoU@1 | Δ | interval | NoC@85 | Δ "
        "| interval |",
        "|---|--:|--:|--:|--:|--:|--:|---|--:|--:|---|",
    ]
    for way in WAYS:
        fields = [f for f in done if way in done[f] and "shipped" in done[f]]
        pairs = [(f, done[f][way], done[f]["shipped"]) for f in fields]
        if not pairs:
            continue
        first = np.array([i[0] for _, mine, _ in pairs for i in mine["ious"]])
        base = np.array([i[0] for _, _, own in pairs for i in own["ious"]])
        noc, noc_base = (
            np.array(
                [clicks_to(i, 0.85, clicks) for p in pairs for i in p[k]["ious"]],
                float,
            )
            for k in (1, 2)
        )
        images = [f for f, mine, _ in pairs for _ in mine["ious"]]
        cells = [
            f"{np.mean([len(p[1]['ious']) for p in pairs]) * len(pairs):.0f}",
            f"{np.mean([p[1]['steps'] for p in pairs]):.0f}",
            f"{np.mean([p[1]['seconds'] for p in pairs]):.1f}",
        ]
        for mine, own in ((first, base), (noc, noc_base)):
            change = mine - own
            means = bootstrap_means(change, images, np.random.default_rng(0))
            low, high = np.quantile(means, (0.025, 0.975))
            cells += [
                f"{mine.mean():.3f}",
                f"{change.mean():+.3f}",
                f"{low:+.3f} to {high:+.3f}",
            ]
        lines.append(f"| {way} | {len(pairs)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("out", type=Path)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    parser.add_argument("--fields", type=int, default=6, help="of each set")
    parser.add_argument("--objects", type=int, default=8, help="clicked, per field")
    parser.add_argument("--clicks", type=int, default=10)
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    if options.table:
        print(table(options.out, options.clicks))
        return
    torch.set_num_threads(1)
    done: dict[str, Any] = {}
    if options.out.exists():
        done = json.loads(options.out.read_text(encoding="utf-8"))
    for field in fields_of(options.data, options.sets, options.fields, options.objects):
        mine = done.setdefault(field.name, {})
        for name in options.ways:
            if name in mine:
                continue
            mine[name] = measure(field, WAYS[name], options.clicks)
            options.out.write_text(json.dumps(done), encoding="utf-8")
        first = {n: np.mean([i[0] for i in v["ious"]]) for n, v in mine.items()}
        print(field.name, {n: round(float(v), 3) for n, v in first.items()}, flush=True)


if __name__ == "__main__":
    main()
