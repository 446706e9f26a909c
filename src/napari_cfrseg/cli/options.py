"""Options and progress bars that several commands share, and options' earlier names."""

from __future__ import annotations

import glob
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, TextIO, TypeVar

import typer
from typer.core import TyperCommand

from napari_cfrseg.clicks import Click
from napari_cfrseg.errors import ImageError
from napari_cfrseg.io.addresses import address_of
from napari_cfrseg.io.images import left_out, open_image, reading
from napari_cfrseg.io.named_axes import MOST_CHANNELS, OpenImage

T = TypeVar("T")
#: a log gets a line when something ends or has gone on for so long
LOG_EVERY_S = 10.0

ModelOption = Annotated[
    str, typer.Option("--model", "-m", help="A model's name, or a weights file's path.")
]
DeviceOption = Annotated[
    str, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.")
]
SessionModelOption = Annotated[
    str | None,
    typer.Option("--model", "-m", help="Another model, by name or file [session's]."),
]
SessionDeviceOption = Annotated[
    str | None,
    typer.Option("--device", help="auto, cpu, cuda, cuda:N, mps [session's]."),
]


def _as_folder(path: Path) -> Path:
    """Refuse what looks like a file: a folder of that name is a surprise."""
    if path.suffix in (".tif", ".tiff", ".zarr", ".json") and not path.is_dir():
        msg = f"{path.name!r} is to be a folder: leave {path.suffix} out"
        raise typer.BadParameter(msg)
    return path


FolderOption = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        file_okay=False,
        help="Results' folder.",
        callback=_as_folder,
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print the result as one JSON value.")
]
WorkersOption = Annotated[
    int, typer.Option("--workers", "-j", min=1, help="Processes; on GPUs one per GPU.")
]
SchedulerOption = Annotated[
    str | None,
    typer.Option(metavar="tcp://HOST:PORT", help="Dask scheduler to compute on."),
]


OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Replace an output that exists.")
]
RefinementOption = Annotated[
    str, typer.Option("--refinement", help="standard, CFR-n or A-CFR-n.")
]


class Command(TyperCommand):
    """A command that also accepts the earlier names of its options."""

    renamed: ClassVar[dict[str, dict[str, str]]] = {
        "segment": {"--clicks": "--click"},
        "propagate": {"--clicks": "--click"},
        "evaluate": {"--out": "--output", "--clicks": "--max-clicks"},
        "bench": {"--clicks": "--objects"},
    }

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Replace earlier names, then parse."""
        names = self.renamed.get(self.name or "", {})
        spelled = []
        for argument in args:
            name, equals, value = argument.partition("=")
            spelled.append(names.get(name, name) + equals + value)
        return super().parse_args(ctx, spelled)


AxesOption = Annotated[
    str | None,
    typer.Option(
        "--axes",
        metavar="ZCYX",
        help="A letter for each axis: Y, X, Z, T, C (channels), S (RGB) [the file's].",
    ),
]
RgbOption = Annotated[
    bool | None,
    typer.Option("--rgb/--no-rgb", help="Whether the channels are RGB [the file's]."),
]
ChannelsOption = Annotated[
    str | None,
    typer.Option(
        "--channels",
        metavar="0,2",
        help="Channels to use, up to 4 [all, or of more than 4 the first 3].",
    ),
]


@contextmanager
def usage(option: str | None = None) -> Iterator[None]:
    """Turn a ValueError into wrong usage of an option."""
    try:
        yield
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from error


def parse_image(text: str) -> Path:
    """Read the path of an image that exists, or an address, which is not tried."""
    path = Path(text)
    if address_of(path) is None and not path.exists():
        raise typer.BadParameter(f"Path {text!r} does not exist.")
    return path


def images_named(patterns: Sequence[str] | None) -> list[Path]:
    """Return the images of paths, addresses and patterns; each must name one."""
    found: list[Path] = []
    for text in patterns or ():
        if address_of(Path(text)) is not None or Path(text).exists():
            found.append(Path(text))
            continue
        paths = sorted(glob.glob(text, recursive=True))  # noqa: PTH207 - absolute patterns, too
        if not paths:
            msg = f"{text!r} names no image"
            raise typer.BadParameter(msg, param_hint="--image")
        found += map(Path, paths)
    return found


def check_apart(names: Sequence[str]) -> None:
    """Refuse results of the same name."""
    doubled = [name for name, count in Counter(names).items() if count > 1]
    if doubled:
        msg = (
            f"several results would be called {doubled[0]!r} and overwrite each other: "
            "write them into different folders"
        )
        raise typer.BadParameter(msg)


def open_arranged(
    path: Path, axes: str | None, rgb: bool | None, channels: str | None
) -> OpenImage:
    """Open an image as (…, Y, X) or (…, Y, X, C), as the three options ask.

    A CfrSegError says that it cannot be read or that they do not fit it.
    """
    chosen = None
    if channels is not None:
        try:
            chosen = [int(part) for part in channels.split(",")]
        except ValueError as error:
            msg = f"{channels!r} is no list of channels (example: 0,2)"
            raise typer.BadParameter(msg, param_hint="--channels") from error
    with reading(path):
        opened = open_image(path, axes=axes).arranged()
        if said := left_out(path):
            typer.echo(said, err=True)
        if chosen is not None:
            opened = opened.with_channels(chosen)
        count = opened.shape[-1] if opened.has_channels else 1
        if count > MOST_CHANNELS:
            opened = opened.with_few_channels()
            said = f"{path} has {count} channels: the first {opened.shape[-1]} are used"
            typer.echo(f"{said} (others: --channels 2,5).", err=True)
        if rgb and count < 3:
            msg = f"--rgb: it has {count} channels; RGB has 3 or 4 (see --axes)"
            raise ImageError(msg)
    return opened if rgb is None else replace(opened, is_rgb=rgb)


def parse_click(text: str) -> Click:
    """Read ``Y,X,+`` (belongs to the object), ``Y,X,-`` (does not) or ``Y,X`` (does).

    Examples
    --------
    >>> parse_click("120,88.5,-")
    Click(yx=(120.0, 88.5), is_positive=False)
    """
    parts = [part.strip() for part in text.split(",")]
    sign = parts[2] if len(parts) == 3 else "+"
    try:
        y, x = (float(part) for part in parts[:2])
        if len(parts) > 3 or sign not in {"+", "-"}:
            raise ValueError(sign)
        return Click((y, x), is_positive=sign == "+")
    except ValueError as error:
        msg = f"{text!r} is not ROW,COLUMN,+ or ROW,COLUMN,- (example: 120,88,+)"
        raise typer.BadParameter(msg) from error


@contextmanager
def counting(
    what: str,
    total: int | None = None,
    *,
    stream: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Callable[..., None]]:
    """Give a function that reports how many of ``total`` are done of a task.

    It takes the total, too, where that is not known before.

    A terminal gets a bar that leaves nothing behind; a log lines such as ``evaluating:
    3/10``, at most one every ``LOG_EVERY_S`` seconds besides the last. They go to
    standard error by default; ``clock`` returns seconds from any origin.
    """
    out = sys.stderr if stream is None else stream
    if out.isatty():
        from rich.console import Console
        from rich.progress import MofNCompleteColumn, Progress

        columns = (*Progress.get_default_columns(), MofNCompleteColumn())
        with Progress(*columns, console=Console(file=out), transient=True) as bar:
            task = bar.add_task(what, total=total)
            yield lambda done, of=total: bar.update(task, completed=done, total=of)
        return
    reported, newest = clock(), 0

    def report(done: int, of: int | None = total) -> None:
        nonlocal reported, newest
        is_due = done == of or clock() - reported >= LOG_EVERY_S
        if is_due and done != newest:
            reported, newest = clock(), done
            out.write(f"{what}: {done}/{of}\n")
            out.flush()

    yield report


def track(
    items: Sequence[T],
    what: str,
    *,
    stream: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[T]:
    """Yield the items and report how many are done, as :func:`counting` does."""
    with counting(what, len(items), stream=stream, clock=clock) as report:
        for done, item in enumerate(items, start=1):
            yield item
            report(done)
