"""A real writer, to be killed: python kill_writer.py SESSION SEED MAX_EVENTS.

Prints the number of each event once it is recorded. Every so often it saves, so that a
kill may fall into a compaction, too.
"""

from __future__ import annotations

import os
import random
import sys

import numpy as np

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.session.format import SessionContent
from napari_cfrseg.session.references import reference_of
from napari_cfrseg.session.session_writer import SessionWriter


def event_number(number: int) -> ev.Event:
    """The same for writer and test: an object, then clicks at known places."""
    if number == 0:
        return ev.ObjectCreated(1, "x" * 200)
    y, x = float(number), number / 7
    return ev.ClickAdded(1, (), (y, x), number % 3 > 0, number)


def content() -> SessionContent:
    image = np.zeros((8, 8), np.uint8)
    return SessionContent(reference_of(image), identity="5" * 32)


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main(path: str, seed: int, most: int) -> None:
    chance = random.Random(seed)
    if os.path.exists(path):  # noqa: PTH110 - a bare process, as small as can be
        writer = SessionWriter.open(path)
    else:
        writer = SessionWriter.create(path, content())
    say(f"start {writer.event_count}")
    for number in range(writer.event_count, most):
        writer.record(event_number(number))
        say(str(number))
        if chance.random() < 0.05:
            writer.save()
    writer.close()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
