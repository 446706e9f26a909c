"""The configuration of a fine-tuning: a TOML file, or a job's request.

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

Everything has a default; an unknown key or a value of the wrong kind is an error.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from cfrseg_training.finetune.tuning import default_config
from cfrseg_training.loop.labelled import DataRequest
from cfrseg_training.loop.suem import SuemRecipe
from cfrseg_training.loop.trainer import TrainConfig
from napari_cfrseg.errors import DatasetError

T = TypeVar("T")
_PARTS = ("rounds", "windows", "photometry")


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that the command line or a file says.

    Attributes
    ----------
    data
        Where labelled images are.
    output
        The new weights file; None: not said yet.
    base, minutes, seed, threads, keep_unproven, forgetting
        See :func:`cfrseg_training.finetune.tuning.fine_tune`.
    tables
        ``[train]`` and its parts as written, over the default configuration.
    """

    data: DataRequest
    output: Path | None = None
    base: str = "default"
    minutes: float = 15.0
    seed: int = 0
    threads: int | None = None
    keep_unproven: bool = False
    forgetting: bool = True
    tables: Mapping[str, Mapping[str, Any]] | None = None

    def train_config(self, trainings: int = 1) -> TrainConfig:
        """Return the run's configuration.

        Parameters
        ----------
        trainings
            How many trainings share the minutes (only for how often is validated).
        """
        config = default_config(60 * self.minutes / trainings, self.seed)
        config = replace(config, budget_s=60 * self.minutes)
        tables = self.tables or {}
        config = _over(config, tables.get("train", {}), "[train]")
        for part in _PARTS:
            old = getattr(config, part)
            config = replace(
                config, **{part: _over(old, tables.get(part, {}), f"[{part}]")}
            )
        suem = dict(tables.get("suem", {}))
        if suem.pop("off", False):
            return replace(config, suem=None)
        recipe = _over(config.suem or SuemRecipe(), suem, "[suem]")
        return replace(config, suem=recipe)


def read_settings(path: Path) -> Settings:
    """Read a TOML file; paths in it are relative to it.

    Raises
    ------
    DatasetError
        It is not there, no TOML, or says something unknown.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        msg = f"{path}: there is no such file"
        raise DatasetError(msg) from error
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        msg = f"{path}: not a TOML file ({error})"
        raise DatasetError(msg) from error
    return settings_of(tables, path.parent, str(path))


def settings_of(tables: Mapping[str, Any], folder: Path, where: str) -> Settings:
    """Make settings of plain values.

    Parameters
    ----------
    tables
        As the module's docstring shows.
    folder
        What paths are relative to.
    where
        Named in errors.

    Raises
    ------
    DatasetError
        Something unknown, or of the wrong kind.
    """
    try:
        plain = {k: v for k, v in tables.items() if not isinstance(v, Mapping)}
        parts = {k: v for k, v in tables.items() if isinstance(v, Mapping)}
        unknown = parts.keys() - {"data", "train", "suem", *_PARTS}
        if unknown:
            msg = f"no table [{', '.join(sorted(unknown))}]"
            raise ValueError(msg)
        if "output" in plain:
            plain["output"] = folder / _text(plain["output"], "output")
        data = _data(parts.pop("data", {}), folder)
        settings = _over(Settings(data), plain, "the file's top")
        settings = replace(settings, tables=parts)
        settings.train_config()
    except (ValueError, TypeError) as error:
        msg = f"{where}: {error}"
        raise DatasetError(msg) from error
    return settings


def tables_of(settings: Settings) -> dict[str, Any]:
    """Return plain values that ``settings_of`` reads again, paths absolute."""
    data = settings.data
    listed = {
        "images": _absolute(data.images),
        "labels": _absolute(data.labels),
        "folders": [_absolute(p) for p in data.folders],
        "sessions": [_absolute(p) for p in data.sessions],
        "ignore": data.ignore,
        "planes_per_stack": data.planes_per_stack,
    }
    plain = {
        f.name: getattr(settings, f.name)
        for f in fields(settings)
        if f.name not in ("data", "output", "tables")
    }
    out = {**plain, "output": _absolute(settings.output), "data": listed}
    kept = {k: v for k, v in out.items() if v is not None}
    kept["data"] = {k: v for k, v in listed.items() if v is not None}
    return kept | {k: dict(v) for k, v in (settings.tables or {}).items()}


def _absolute(path: Path | None) -> str | None:
    return None if path is None else str(path.absolute())


def _data(table: Mapping[str, Any], folder: Path) -> DataRequest:
    given: dict[str, Any] = dict(table)
    for name in ("images", "labels"):
        if name in given:
            given[name] = folder / _text(given[name], name)
    for name in ("folders", "sessions"):
        if name in given:
            if not isinstance(given[name], list):
                msg = f"[data] {name} is not a list"
                raise ValueError(msg)
            given[name] = tuple(folder / _text(p, name) for p in given[name])
    known = {f.name for f in fields(DataRequest)}
    if unknown := sorted(given.keys() - known):
        msg = f"[data] has no {', '.join(unknown)}"
        raise ValueError(msg)
    return DataRequest(**given)


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        msg = f"{where} = {value!r} is not a path"
        raise ValueError(msg)
    return value


def _over(default: T, table: Mapping[str, Any], where: str) -> T:
    """Return a dataclass with some fields replaced, checked against the defaults."""
    if not is_dataclass(default) or isinstance(default, type):
        msg = f"{type(default).__name__} is no dataclass"
        raise TypeError(msg)
    known = {f.name: getattr(default, f.name) for f in fields(default)}
    parts = {name for name, value in known.items() if is_dataclass(value)}
    if unknown := sorted(table.keys() - (known.keys() - parts)):
        msg = f"{where} has no {', '.join(unknown)}"
        raise ValueError(msg)
    changed = {
        name: _like(known[name], value, f"{where} {name}")
        for name, value in table.items()
    }
    return replace(default, **changed)


def _like(default: object, value: object, where: str) -> object:
    """Return a value of the default's kind."""
    if isinstance(value, list):
        value = tuple(tuple(v) if isinstance(v, list) else v for v in value)
    fits = (
        default is None
        or type(value) is type(default)
        or (isinstance(default, float) and type(value) is int)
        or (default.__class__ is int and value is None)
    )
    if not fits:
        kind = type(default).__name__
        msg = f"{where} = {value!r} is not of kind {kind}"
        raise ValueError(msg)
    return float(value) if isinstance(default, float) else value  # type: ignore[arg-type]  # a number, as just checked


def echo(settings: Settings) -> dict[str, Any]:
    """Return the whole configuration as plain values, for reports."""
    return {**tables_of(settings), "train": asdict(settings.train_config())}
