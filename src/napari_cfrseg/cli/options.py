"""Options and values that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

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
