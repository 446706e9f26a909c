"""Training recipes: one TOML file that names every hyperparameter.

``training/recipes`` holds the papers' own, each value with its source as a comment.
A recipe is read strictly: a missing or unknown key is an error, so that no number is
ever filled in silently.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, get_origin, get_type_hints

from napari_cfrseg.errors import DatasetError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class NetworkPart:
    """``[network]``: registry name, and the weights it starts from."""

    name: str
    start: str


@dataclass(frozen=True, slots=True)
class DataPart:
    """``[data]``: set, epochs, images per epoch and batch, and which objects count."""

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
class SuemPart:
    """``[suem]``: see ``cfrseg_training.loop.suem.SuemRecipe``."""

    paste: float
    combine: float
    mix: float
    combinations: tuple[str, ...]
    opacity: tuple[float, float]
    matched: bool


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
    """``[iteration]``: which forwards of a step carry gradient.

    ``ritm``: ``fewest`` to ``most`` forwards without gradient, then one with it.
    ``icl``: that many forwards, each with gradient and its own weight.
    ``slot``: where generated clicks are written (``published_clicks.put_click``).
    """

    scheme: Literal["ritm", "icl"]
    fewest: int
    most: int
    weights: tuple[float, ...]
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
    """A whole training, by the tables of its file."""

    network: NetworkPart
    data: DataPart
    augmentation: AugmentationPart
    suem: SuemPart
    clicks: ClicksPart
    iteration: IterationPart
    loss: LossPart
    optimiser: OptimiserPart
    schedule: SchedulePart
    name: str = field(default="", compare=False)


def read_recipe(path: Path) -> Recipe:
    """Read a recipe.

    Raises
    ------
    DatasetError
        If the file is not there, is no TOML, or lacks or adds a key.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        msg = f"{path}: there is no such recipe"
        raise DatasetError(msg) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        msg = f"{path}: not a TOML file ({error})"
        raise DatasetError(msg) from error
    try:
        hints = get_type_hints(Recipe)
        parts = {
            key: _read(hints[key], value, f"[{key}]")
            for key, value in tables.items()
            if key in hints and key != "name"
        }
        if unknown := sorted(tables.keys() - parts.keys()):
            msg = f"unknown tables {', '.join(unknown)}"
            raise ValueError(msg)
        recipe = _make(Recipe, {**parts, "name": path.stem}, "the file")
        _check(recipe)
    except ValueError as error:
        msg = f"{path}: {error}"
        raise DatasetError(msg) from error
    return recipe


def _check(recipe: Recipe) -> None:
    iteration = recipe.iteration
    if not 0 <= iteration.fewest <= iteration.most:
        msg = f"[iteration] {iteration.fewest} to {iteration.most} is no range"
        raise ValueError(msg)
    if iteration.scheme == "icl" and len(iteration.weights) < iteration.most:
        msg = f"[iteration] needs {iteration.most} weights, one per forward"
        raise ValueError(msg)


def _read(kind: type[T], table: object, where: str) -> T:
    if not isinstance(table, dict):
        msg = f"{where} is not a table"
        raise ValueError(msg)
    return _make(kind, {k: _frozen(v) for k, v in table.items()}, where)


def _make(kind: type[T], given: Mapping[str, Any], where: str) -> T:
    known = {f.name: f for f in fields(kind)}  # type: ignore[arg-type] # a dataclass
    needed = {name for name, f in known.items() if f.default is MISSING}
    if missing := sorted(needed - given.keys()):
        msg = f"{where} lacks {', '.join(missing)}"
        raise ValueError(msg)
    if unknown := sorted(given.keys() - known.keys()):
        msg = f"{where} has no {', '.join(unknown)}"
        raise ValueError(msg)
    hints = get_type_hints(kind)
    for key, value in given.items():
        if not _fits(value, hints[key]):
            msg = f"{where} {key} = {value!r} is not {hints[key]}"
            raise ValueError(msg)
    return kind(**given)


def _fits(value: object, hint: Any) -> bool:
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    origin = get_origin(hint)
    if origin is Literal:
        return value in hint.__args__
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        inner = hint.__args__
        kinds = [inner[0]] * len(value) if inner[-1] is Ellipsis else list(inner)
        return len(value) == len(kinds) and all(
            _fits(v, k) for v, k in zip(value, kinds, strict=True)
        )
    return isinstance(value, Mapping if origin is not None else hint)


def _frozen(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value
