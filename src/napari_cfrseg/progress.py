"""Show the progress of a long command: a bar on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TextIO, TypeVar

T = TypeVar("T")

#: A log gets a line when something begins, ends, or has gone on for so long.
LOG_EVERY_S = 10.0


def track(
    items: Sequence[T],
    what: str,
    *,
    stream: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[T]:
    """Yield the items and report on standard error how many are done.

    Parameters
    ----------
    items
        The items.
    what
        The task, in a few words.
    stream
        Where to report; standard error by default. A bar if it is a terminal, else
        lines such as ``evaluating: 3/10``, at most one every ``LOG_EVERY_S`` seconds
        besides the last.
    clock
        Seconds from any origin.
    """
    out = sys.stderr if stream is None else stream
    if out.isatty():
        yield from _bar(items, what, out)
        return
    reported = clock()
    for done, item in enumerate(items, start=1):
        yield item
        if done == len(items) or clock() - reported >= LOG_EVERY_S:
            reported = clock()
            out.write(f"{what}: {done}/{len(items)}\n")
            out.flush()


def _bar(items: Sequence[T], what: str, out: TextIO) -> Iterator[T]:
    from rich.console import Console
    from rich.progress import track as rich_track

    console = Console(file=out)
    yield from rich_track(items, description=what, console=console, transient=True)
