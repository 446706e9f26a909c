"""Everything that shapes a training: the fields, their defaults, and the TOML file.

::

    base = "default"
    output = "my-cells.safetensors"
    minutes = 15
    seed = 0
    keep_unproven = false

    [data]
    images = "images"            # relative to the file
    labels = "labels"
    sessions = ["a.cfrseg.json"]
    ignore = "sparse"            # or "background", or a label that does not count

    [train]                      # any field of TrainConfig
    learning_rate = 2e-4
    [rounds]                     # of RoundsConfig
    [windows]                    # of WindowRecipe
    [photometry]                 # of PhotometricRecipe
    [suem]                       # of SuemRecipe; off = true leaves copy-paste out

Everything has a default; an unknown key or a value of the wrong type is an error.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, get_type_hints

import torch

from cfrseg_training.loop.atlas import WindowRecipe
from cfrseg_training.loop.augmentation import PhotometricRecipe, SuemRecipe
from cfrseg_training.loop.labelled import DataRequest
from cfrseg_training.loop.training_step import RoundsConfig
from napari_cfrseg.errors import DatasetError
from napari_cfrseg.processes import check_threads

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """Everything that shapes a run, besides the data and the network."""

    #: the learning rate reaches its end after these seconds of training or these steps,
    #: whichever comes first; None: no such limit
    budget_s: float | None = None
    steps: int | None = None
    #: the run then writes its state and returns, to be resumed
    stop_after_s: float | None = None
    #: pairs (share of the budget, grid): windows are drawn on coarse grids first, which
    #: teaches most of it for a fraction of the cost. The batch grows as the grid
    #: shrinks, so that each step costs about the same
    grids: tuple[tuple[float, int], ...] = ()
    batch: int = 64
    learning_rate: float = 1.5e-3
    #: with several processes (``torch.distributed`` initialised): each descends on its
    #: own windows and the weights are averaged after this many steps (local SGD), so
    #: that a slow process rarely holds up the others
    average_every: int = 8
    weight_decay: float = 0.02
    warmup_steps: int = 300
    clip: float = 3.0  #: largest gradient norm
    ema: float = 0.999  #: decay of the moving average
    #: share of the running statistics that each step's batch replaces; small batches
    #: need a small share, or what is kept is mostly the last few batches
    norm_momentum: float = 0.1
    #: bfloat16 on a GPU, float32 on a CPU (whose bf16 backward is slow); float16 scales
    #: the loss, for GPUs without bfloat16
    autocast: Literal["float32", "bfloat16", "float16"] = "float32"
    seed: int = 0
    save_every_s: float = 60.0
    validate_every_s: float = 60.0
    compile: bool = False  #: compile the stages (worth it on a GPU, for long runs)
    #: batches whose gradients are averaged before each step. With more than one, and
    #: when ``synchronous``, every batch's generator is seeded by the seed, the step and
    #: its number, so that one process with 2 × the batches and two take the same steps
    accumulate: int = 1
    #: with several processes: average the gradients of every step, not the weights
    synchronous: bool = False
    frozen_norms: bool = False  #: keep the statistics of normalisations (small data)
    keep_best: bool = False  #: return the weights of the best quick validation
    patience: int | None = None  #: stop after this many without improvement
    note_every: int = 50  #: steps between two entries of the loss in the history
    suem: SuemRecipe | None = None  #: copy-paste between windows (CFR-ICL)
    windows: WindowRecipe = field(default_factory=WindowRecipe)
    photometry: PhotometricRecipe = field(default_factory=PhotometricRecipe)
    rounds: RoundsConfig = field(default_factory=RoundsConfig)


def default_config(seconds: float, seed: int = 0) -> TrainConfig:
    """Return the configuration for own labels: small steps, frozen statistics."""
    on_gpu = torch.cuda.is_available()
    return TrainConfig(
        budget_s=seconds,
        batch=64 if on_gpu else 8,
        learning_rate=2e-4,
        warmup_steps=10,
        ema=0.99,
        autocast="bfloat16" if on_gpu else "float32",
        seed=seed,
        suem=SuemRecipe(mix=0.2),
        frozen_norms=True,
        validate_every_s=max(20.0, seconds / 12),
        save_every_s=20.0,
        note_every=5,
    )


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that the command line or a file gives of a fine-tuning."""

    data: DataRequest = field(default_factory=DataRequest)
    #: the new weights file, written when the verdict is "kept", or "not proven" with
    #: ``keep_unproven``; None: not given yet. A report is written beside it
    output: Path | None = None
    base: str = "default"  #: name or path of the model to start from
    minutes: float = 15.0  #: of training, without judging
    seed: int = 0
    threads: int | None = None
    keep_unproven: bool = False  #: whether a model is kept whose gain is not proven
    forgetting: bool = True  #: whether the bundled micrographs are clicked as well
    #: ``[train]`` and its parts as written, over the default configuration
    tables: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_threads(self.threads)

    def train_config(self) -> TrainConfig:
        """Return the run's configuration; raises ValueError if a table is wrong."""
        config = default_config(60 * self.minutes, self.seed)
        config = _changed(config, self.tables.get("train", {}), "[train]")
        for part in ("rounds", "windows", "photometry"):
            table = self.tables.get(part, {})
            changed = _changed(getattr(config, part), table, f"[{part}]")
            config = replace(config, **{part: changed})
        suem = dict(self.tables.get("suem", {}))
        if suem.pop("off", False):
            return replace(config, suem=None)
        recipe = _changed(config.suem or SuemRecipe(), suem, "[suem]")
        return replace(config, suem=recipe)


def read_settings(path: Path) -> Settings:
    """Read a TOML file; paths in it are relative to it.

    Raises DatasetError if it does not exist, is not TOML, or has something unknown.
    """
    return settings_of(read_toml(path), path.parent, str(path))


def settings_of(tables: Mapping[str, Any], folder: Path, where: str) -> Settings:
    """Make settings of plain values, as the module's docstring shows.

    Paths are relative to ``folder``. Raises DatasetError, which names ``where``, if
    something is unknown or of the wrong type.
    """
    parts = {"train", "suem", "rounds", "windows", "photometry"}
    plain = {key: value for key, value in tables.items() if key not in parts}
    try:
        settings = from_table(Settings, plain, "the file's top", data="[data]")
        settings = replace(
            settings,
            tables={key: tables[key] for key in tables if key in parts},
            output=None if settings.output is None else folder / settings.output,
            data=settings.data.under(folder),
        )
        settings.train_config()
    except ValueError as error:
        raise DatasetError(f"{where}: {error}") from error
    return settings


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file; raises DatasetError if it does not exist or is not TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DatasetError(f"{path}: there is no such file") from error
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: not a TOML file ({error})") from error


def from_table(kind: type[T], table: Mapping[str, Any], where: str, **names: str) -> T:
    """Make a dataclass, and dataclasses in it, of a table of plain values, strictly.

    Raises ValueError if something is missing, unknown or of the wrong type. Errors
    call the table ``where``, and tables in it by ``names`` ("[key]" by default).
    """
    # a machine that only trains has no pydantic
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(_strict(kind)).validate_json(json.dumps(table))
    except TypeError as error:  # a date, which JSON does not have
        raise ValueError(f"{where}: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        *outer, key = first["loc"] or ("",)
        if outer:
            where = names.get(str(outer[0]), f"[{outer[0]}]")
        problem = {
            "missing": f"{where} lacks {key}",
            "unexpected_keyword_argument": f"{where} has no {key}",
            "value_error": first["msg"].removeprefix("Value error, "),
        }.get(first["type"])
        other = f"{where} {key} = {first['input']!r} is not valid: {first['msg']}"
        raise ValueError(problem or other) from error


def _strict(kind: type[T]) -> type[T]:
    """Let pydantic read a dataclass, and the dataclasses in it, strictly."""
    for part in (kind, *get_type_hints(kind).values()):
        if isinstance(part, type) and is_dataclass(part):
            config = {"strict": True, "extra": "forbid"}
            part.__pydantic_config__ = config  # type: ignore[attr-defined] # pydantic reads it
    return kind


def _changed(default: T, table: Mapping[str, Any], where: str) -> T:
    """Return a dataclass with the table's fields replaced."""
    read = from_table(type(default), table, where)
    return replace(default, **{key: getattr(read, key) for key in table})  # type: ignore[type-var] # a dataclass
