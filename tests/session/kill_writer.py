"""A real writer in a process of its own, to be killed.

It sends the number of each event once it is recorded. Every so often it saves, so that
a kill may fall into a compaction, too. One process imports the package; each writer is
a fork of it, which saves a second or two per kill.
"""

from __future__ import annotations

import random
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.session.format import SessionContent
from napari_cfrseg.session.references import reference_of
from napari_cfrseg.session.session_writer import SessionWriter

#: events of one writer, far more than it gets to
MANY = 10**6


def event_number(number: int) -> ev.Event:
    """The same for writer and test: an object, then clicks at known places."""
    if number == 0:
        return ev.ObjectCreated(1, "x" * 200)
    y, x = float(number), number / 7
    return ev.ClickAdded(1, (), (y, x), number % 3 > 0, number)


def content() -> SessionContent:
    image = np.zeros((8, 8), np.uint8)
    return SessionContent(reference_of(image), identity="5" * 32)


def start_writer(path: Path, seed: int) -> tuple[BaseProcess, Connection]:
    """Start a writer; it first sends how many events it found."""
    forks = get_context("forkserver")
    forks.set_forkserver_preload([SessionWriter.__module__, reference_of.__module__])
    received, sent = forks.Pipe(duplex=False)
    process = forks.Process(target=write, args=(path, seed, sent), daemon=True)
    process.start()
    sent.close()
    return process, received


def write(path: Path, seed: int, sent: Connection) -> None:
    chance = random.Random(seed)
    if path.exists():
        writer = SessionWriter.open(path)
    else:
        writer = SessionWriter.create(path, content())
    sent.send(writer.event_count)
    for number in range(writer.event_count, MANY):
        writer.record(event_number(number))
        sent.send(number)
        if chance.random() < 0.05:
            writer.save()
    writer.close()
