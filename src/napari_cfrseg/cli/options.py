"""Options that several commands share, and the earlier spellings of renamed ones."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import typer
from typer.core import TyperCommand

from napari_cfrseg.clicks import Click

ModelOption = Annotated[
    str,
    typer.Option("--model", "-m", help="A model's name, or a weights file's path."),
]
DeviceOption = Annotated[
    str,
    typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps."),
]
JsonOption = Annotated[
    bool,
    typer.Option("--json", help="Print the result as one JSON value."),
]
WorkersOption = Annotated[
    int,
    typer.Option("--workers", "-j", min=1, help="Processes; on GPUs one per GPU."),
]
SchedulerOption = Annotated[
    str | None,
    typer.Option(metavar="tcp://HOST:PORT", help="Dask scheduler to compute on."),
]


class Command(TyperCommand):
    """A command that also accepts the earlier names of its options.

    Attributes
    ----------
    renamed
        {command: {earlier name: name}}.
    """

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


def parse_click(text: str) -> Click:
    """Read ``Y,X,+`` (belongs to the object), ``Y,X,-`` (does not) or ``Y,X`` (does).

    Parameters
    ----------
    text
        Row and column in pixels, and the sign.

    Raises
    ------
    typer.BadParameter
        If the text is none of these.

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
