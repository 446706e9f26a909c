"""The commands and files that the README and the documentation name exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from cfrseg_training.command import app as train
from napari_cfrseg.cli import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_FILE = re.compile(r"\b(?:benchmarks|docs|scripts|tests|training)/[\w./-]+\.\w+")


def commands(page: Path) -> list[list[str]]:
    """Return the ``cfrseg …`` commands of a page, in blocks and within lines."""
    text = page.read_text("utf-8").replace("\\\n", " ")
    inline = re.findall(r"`(cfrseg [^`]+)`", re.sub(r"```.*?```", "", text, flags=re.S))
    lines = re.findall(r"^ *(cfrseg .*)$", text, re.MULTILINE)
    found = [" ".join(line.split("#")[0].split()) for line in (*inline, *lines)]
    return [shlex.split(line)[1:] for line in found if line.isascii() or "…" in line]


def options(words: list[str]) -> set[str]:
    """Return the options of the command that the words begin with."""
    command: Any = get_command(app)
    for word in words:
        if word not in getattr(command, "commands", {}):
            break
        command = command.commands[word]
    if words[0] == "train":  # another program's
        command = get_command(train)
    return {"--help"}.union(*(one.opts + one.secondary_opts for one in command.params))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_have_the_options_that_a_page_gives_them(page: Path) -> None:
    for words in commands(page):
        given = {word.partition("=")[0] for word in words if re.match("--?[a-z]", word)}
        assert given <= options(words), " ".join(words)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_names_are_there(page: Path) -> None:
    named = set(_FILE.findall(page.read_text("utf-8")))
    assert {name for name in named if not (ROOT / name).exists()} == set()


def test_there_are_commands() -> None:
    assert sum(len(commands(page)) for page in PAGES) > 40
