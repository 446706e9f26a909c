"""Training recipes: one TOML file that names every hyperparameter of a training.

``training/recipes`` holds the papers' own, each value with its source as a comment.
A recipe is read strictly: a missing or unknown key is an error, so that no number is
ever filled in silently.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

from cfrseg_training.configuration import from_table, read_toml
from cfrseg_training.loop.augmentation import SuemRecipe
from napari_cfrseg.errors import DatasetError


@dataclass(frozen=True, slots=True)
class NetworkPart:
    """``[network]``: registry name, and the weights it starts from."""

    name: str
    start: str


@dataclass(frozen=True, slots=True)
class DataPart:
    """``[data]``: epochs, images per epoch and batch, and which objects count.

    ``set``, ``stuff_share`` and ``weighted`` record what the paper did and have no
    effect here: labels are instances, and every image is drawn equally often.
    """

    set: str
    epochs: int
    epoch_length: int
    batch: int
    accumulate: int
    smallest_object: int
    empty_share: float
    stuff_share: float
    weighted: bool


@dataclass(frozen=True, slots=True)
class AugmentationPart:
    """``[augmentation]``: ranges and shares of what is done to an image."""

    crop: tuple[int, int]
    resize: tuple[float, float]
    flip_share: float
    flip_axes: tuple[str, ...]
    rotate_90: float
    shift: float
    rotate_degrees: float
    brightness: tuple[float, float]
    contrast: tuple[float, float]
    rgb_shift: int
    jitter_share: float


@dataclass(frozen=True, slots=True)
class ClicksPart:
    """``[clicks]``: how the first clicks of a sample are drawn."""

    most_per_sign: int
    decay: float
    first_at_centre: bool
    erode_share: float
    merge_two_objects: float
    negative_background: float
    negative_other_objects: float
    negative_border: float
    threshold: float


@dataclass(frozen=True, slots=True)
class IterationPart:
    """``[iteration]``: which forwards of a step carry gradient."""

    #: ``ritm``: ``fewest`` to ``most`` forwards without gradient, then one with it.
    #: ``icl``: that many forwards, each with gradient and its own weight
    scheme: Literal["ritm", "icl"]
    fewest: int
    most: int
    weights: tuple[float, ...]
    #: where generated clicks are written (``published_steps.put_click``)
    slot: Literal["from_end", "first_free"]


@dataclass(frozen=True, slots=True)
class LossPart:
    """``[loss]``: normalised focal loss and the weights of its companions."""

    alpha: float
    gamma: float
    auxiliary: float
    corrected: float
    updated: float
    double_sigmoid: bool


@dataclass(frozen=True, slots=True)
class OptimiserPart:
    """``[optimiser]``: Adam; ``scale`` multiplies the rate under a module's name."""

    learning_rate: float
    betas: tuple[float, float]
    eps: float
    weight_decay: float
    mixed_precision: bool
    scale: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class SchedulePart:
    """``[schedule]``: epochs at which the rate is multiplied by ``factor``."""

    milestones: tuple[int, ...]
    factor: float


@dataclass(frozen=True, slots=True)
class Recipe:
    """A whole training, as the tables of its file."""

    network: NetworkPart
    data: DataPart
    augmentation: AugmentationPart
    suem: SuemRecipe
    clicks: ClicksPart
    iteration: IterationPart
    loss: LossPart
    optimiser: OptimiserPart
    schedule: SchedulePart
    name: str = field(default="", compare=False)


def shipped_recipes() -> dict[str, Path]:
    """Return the papers' recipes by name."""
    here = Path(__file__).parents[1]
    # installed they lie in the package, in a checkout beside it
    for folder in (here / "recipes", here.parent / "recipes"):
        if folder.is_dir():
            return {path.stem: path for path in sorted(folder.glob("*.toml"))}
    return {}


def find_recipe(name_or_path: str) -> Recipe:
    """Read a shipped recipe by name, or any by path; raises as ``read_recipe`` does."""
    shipped = shipped_recipes()
    if name_or_path in shipped:
        return read_recipe(shipped[name_or_path])
    path = Path(name_or_path)
    if path.suffix != ".toml":
        msg = f"no recipe {name_or_path!r}; there are {', '.join(shipped)}, or a .toml"
        raise DatasetError(msg)
    return read_recipe(path)


def read_recipe(path: Path) -> Recipe:
    """Read a recipe.

    Raises DatasetError if the file does not exist, is not TOML, or lacks or adds a key.
    """
    try:
        tables = read_toml(path)
        if unknown := sorted(tables.keys() - {f.name for f in fields(Recipe)}):
            raise ValueError(f"unknown tables {', '.join(unknown)}")
        recipe = from_table(Recipe, tables | {"name": path.stem}, "the file")
        # these have defaults elsewhere; a recipe gives every one
        if missing := {f.name for f in fields(SuemRecipe)} - tables["suem"].keys():
            raise ValueError(f"[suem] lacks {', '.join(sorted(missing))}")
        _check(recipe)
    except ValueError as error:
        raise DatasetError(f"{path}: {error}") from error
    return recipe


def _check(recipe: Recipe) -> None:
    iteration = recipe.iteration
    if not 0 <= iteration.fewest <= iteration.most:
        msg = f"[iteration] {iteration.fewest} to {iteration.most} is no range"
        raise ValueError(msg)
    if iteration.scheme == "icl" and len(iteration.weights) < iteration.most:
        raise ValueError(f"[iteration] needs {iteration.most} weights, one per forward")
