"""What ``cfrseg evaluate`` does, without the command line."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

from napari_cfrseg.engine.refinement import Refinement
from napari_cfrseg.errors import DatasetError
from napari_cfrseg.evaluation.clicking import RunSettings
from napari_cfrseg.evaluation.datasets.choice import DataChoice, draw_objects
from napari_cfrseg.evaluation.object_row import ObjectRow
from napari_cfrseg.evaluation.papers.protocols import PROTOCOL_NAMES, paper_protocol
from napari_cfrseg.evaluation.report.results import Summary
from napari_cfrseg.evaluation.report.write import write_report
from napari_cfrseg.evaluation.runner import Run, read_run, run_benchmark
from napari_cfrseg.evaluation.scores import MAX_CLICKS
from napari_cfrseg.evaluation.segmenters import PEERS, SegmenterSpec

#: told before a run: its name, how many objects
Starting = Callable[[str, int], None]
#: told after each object: its row, how many are done, how many there are
Progress = Callable[[ObjectRow, int, int], None]

HINT_NOTE = (
    "{} are told the object's size (the longer side of its bounding box) and work on "
    "a crop of three times that around the first click; the networks get the whole "
    "image and no hint."
)


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything one call measures: segmenters × refinements × robot seeds.

    Attributes
    ----------
    data
        The objects.
    out
        The report's folder; runs go into ``out/runs``.
    segmenters, refinements, protocol, backbone, device
        As in :class:`SegmenterSpec`; refinements apply to networks only.
    human, seeds
        The human-like robot, once per seed; the exact robot runs once.
    max_clicks, target, min_clicks
        The robot's; None: the protocol's.
    surfaces, spacing_um
        Boundary IoU and ASSD too; ASSD in micrometres where the (y, x) size of a
        pixel is given.
    workers, scheduler
        Where to compute.
    command
        The command line.
    """

    data: DataChoice
    out: Path
    segmenters: tuple[str, ...] = ("default",)
    refinements: tuple[str, ...] = ("standard",)
    protocol: str = "micro"
    backbone: str = "hrnet18s"
    device: str = "auto"
    human: bool = False
    seeds: tuple[int, ...] = (0,)
    max_clicks: int = MAX_CLICKS
    target: float | None = None
    min_clicks: int | None = None
    surfaces: bool = False
    spacing_um: tuple[float, float] | None = None
    workers: int = 1
    scheduler: str | None = None
    command: str = field(default="", compare=False)

    def settings(self) -> list[RunSettings]:
        """Return the robots: one, or one per seed of the human-like one."""
        published = self.protocol != "micro"
        target, least = 0.90, min(5, self.max_clicks)
        if published:
            # the papers' loop stops as soon as the target is reached
            target, least = paper_protocol(self.protocol).target, 1
        return [
            RunSettings(
                max_clicks=self.max_clicks,
                target=target if self.target is None else self.target,
                min_clicks=least if self.min_clicks is None else self.min_clicks,
                human=self.human,
                seed=seed,
                surfaces=self.surfaces,
                published=published,
                spacing_um=self.spacing_um,
            )
            for seed in (self.seeds if self.human else (0,))
        ]

    def specs(self) -> list[SegmenterSpec]:
        """Return the segmenters, networks once per refinement.

        Raises
        ------
        ValueError
            For an unknown protocol or refinement.
        """
        if self.protocol not in PROTOCOL_NAMES:
            msg = f"no protocol {self.protocol!r}: one of {', '.join(PROTOCOL_NAMES)}"
            raise ValueError(msg)
        for refinement in self.refinements:
            Refinement.parse(refinement)
        specs: list[SegmenterSpec] = []
        for name, refinement in product(self.segmenters, self.refinements):
            spec = SegmenterSpec(
                name,
                self.protocol,
                refinement,
                self.device,
                self.data.layout,
                self.backbone,
            )
            plain = SegmenterSpec(name, device=self.device)
            spec = spec if spec.is_network else plain
            if spec not in specs:
                specs.append(spec)
        return specs


def run_plan(
    plan: Plan, *, starting: Starting | None = None, progress: Progress | None = None
) -> list[tuple[str, list[Summary]]]:
    """Measure everything, then write the report.

    Parameters
    ----------
    plan
        What to measure.
    starting, progress
        Told before each run, and after each object.

    Returns
    -------
    (name, summaries) per run.

    Raises
    ------
    CfrSegError
        If data, weights or packages are missing, or a folder holds another run.
    """
    specs, robots = plan.specs(), plan.settings()
    for spec in specs:
        spec.check()
    objects = draw_objects(plan.data)
    runs: list[Run] = []
    for spec, settings in product(specs, robots):
        folder = plan.out / "runs" / _folder_name(spec, settings)
        if starting is not None:
            starting(folder.name, len(objects))
        runs.append(
            run_benchmark(
                folder,
                spec,
                objects,
                settings=settings,
                workers=plan.workers,
                scheduler=plan.scheduler,
                progress=progress,
                command=plan.command,
            )
        )
    told = [spec.label for spec in specs if spec.segmenter in PEERS]
    notes = [HINT_NOTE.format(", ".join(told))] if told else []
    by_key = {item.key: item for item in objects}
    return write_report(plan.out, runs, by_key, command=plan.command, notes=notes)


def _folder_name(spec: SegmenterSpec, settings: RunSettings) -> str:
    name = re.sub(r"[^\w.-]+", "-", spec.label).strip("-").lower()
    return f"{name}-human{settings.seed}" if settings.human else name


def find_run(folder: Path) -> Run:
    """Read a run from its folder, or from the report that holds just this one.

    Raises
    ------
    DatasetError
        If there is none, or more than one.
    """
    if (folder / "run.json").exists():
        return read_run(folder)
    found: Sequence[Path] = sorted((folder / "runs").glob("*/run.json"))
    if len(found) == 1:
        return read_run(found[0].parent)
    names = ", ".join(path.parent.name for path in found) or "none"
    msg = f"{folder} must be a run, or a report of one run; its runs: {names}"
    raise DatasetError(msg)
