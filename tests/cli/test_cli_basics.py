"""Exit codes, one-line errors and help, as a shell sees them."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from typer.main import get_command
from typer.testing import CliRunner

from napari_cfrseg import __version__
from napari_cfrseg.cli import app

ROOT = Path(__file__).parents[2]
_MAIN = "from napari_cfrseg.cli import main; main()"


def cfrseg(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _MAIN, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["segment", "-h"]])
def test_help_that_finds_no_room_ends_in_one_line(arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", _MAIN, *arguments],
            env={**os.environ, "PYTHONUNBUFFERED": ""},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == "cfrseg: No space left on device; make room\n"


def test_version() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert result.exit_code == 0
    assert result.output.strip() == f"cfrseg {__version__}"


def every_command() -> list[tuple[str, ...]]:
    def walk(command: Any, path: tuple[str, ...]) -> list[tuple[str, ...]]:
        found = [path]
        for name, child in getattr(command, "commands", {}).items():
            found += walk(child, (*path, name))
        return found

    return walk(get_command(app), ())


@pytest.mark.parametrize("command", every_command(), ids=" ".join)
def test_each_help_has_an_example(command: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, [*command, "--help"])
    assert result.exit_code == 0
    _, _, example = result.output.partition("\n  Example")
    assert " ".join(("cfrseg", *command)) in example


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["segment", __file__, "--clicks=1,2,*"], "ROW,COLUMN,+"),
        (["propagate", __file__, "--clicks", "1"], "PLANE,ROW,COLUMN"),
        (["evaluate", "absent", "--out", "report", "--clicks", "0"], "--max-clicks"),
        (["bench", "--clicks", "0"], "--objects"),
    ],
)
def test_earlier_names_of_options_are_accepted(
    arguments: list[str], words: str
) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert words in result.output
    help_text = CliRunner().invoke(app, [arguments[0], "--help"]).output
    assert "--out " not in help_text
    assert "--clicks" not in help_text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "Usage"),
        (["train"], "nothing to train on"),
        (["train", "--minutes", "0"], "--minutes"),
        (["train", "--threads", "5000"], "4096"),
        (["bench", "--threads", "5000"], "4096"),
        (["bench", "--threads", "1.5"], "--threads"),
        (["nonsense"], "nonsense"),
        (["segment", "absent.tif", "-c", "1,2"], "absent.tif"),
        (["segment", __file__], "--click"),
        (["segment", __file__, "-c", "1,2,*"], "ROW,COLUMN,+"),
        (["segment", __file__, "-c", "1"], "ROW,COLUMN,+"),
        (["segment", __file__, "-c", "nan,2,+"], "ROW,COLUMN,+"),
        (["suggest", "a.cfrseg.json", "-o", "a.tif"], "leave .tif out"),
    ],
)
def test_wrong_usage_is_exit_code_2(arguments: list[str], words: str) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert words in result.output


@pytest.mark.skipif(os.name != "posix", reason="no SIGINT to send")
@pytest.mark.parametrize(
    ("name", "loading"),
    [
        ("cfrseg", "typer"),
        ("cfrseg", "numpy"),
        ("cfrseg", "napari_cfrseg.cli.models"),
        ("cfrseg-train", "typer"),
        ("cfrseg-train", "napari_cfrseg.training_job"),
    ],
)
def test_ended_while_it_loads_it_says_nothing(name: str, loading: str) -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert set(scripts) == {"cfrseg", "cfrseg-train"}
    module, function = scripts[name].split(":")
    script = f"""
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's "&" ignores it
class Interrupting:
    def find_spec(self, name, *_):
        if name == {loading!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupting())
from {module} import {function} as main
main()"""
    command = [sys.executable, "-c", script, "models", "list"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_a_damaged_file_is_one_line(tmp_path: Path) -> None:
    """The TIFF reader logs its own message to standard error."""
    path = tmp_path / "cells.tif"
    path.write_bytes(b"II*\0garbage")
    run = cfrseg("segment", str(path), "-c", "1,1,+")
    assert run.returncode == 1
    (line,) = run.stderr.splitlines()
    assert line.startswith(f"cfrseg: {path} cannot be read")


def test_click_outside_the_image_is_wrong_usage(tmp_path: Path) -> None:
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, np.zeros((20, 30), np.uint8))
    arguments = ["segment", str(path), "-c", "25,5,+", "-o", str(tmp_path / "m.tif")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert "outside the image of 20 rows and 30 columns" in result.output


def test_stack_without_a_plane_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, np.zeros((5, 20, 30), np.uint8), metadata={"axes": "ZYX"})
    arguments = ["segment", str(path), "-c", "5,5,+", "-o", str(tmp_path / "m.tif")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        f"cfrseg: {path} has 5 planes: choose one with --plane 0 … 4"
    ]


@pytest.mark.parametrize(
    ("options", "environment", "words"),
    [
        (("--device", "cuda:63"), {}, "'cuda:63' is not there"),
        (("--device", "gpu9"), {}, "expected auto, cpu, cuda"),
        ((), {"CFRSEG_MEMORY_GB": "much"}, "expected gigabytes"),
    ],
)
def test_what_cannot_be_computed_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    environment: dict[str, str],
    words: str,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, np.eye(30, dtype=np.uint8))
    target = str(tmp_path / "m.tif")
    said = ["segment", str(path), "-c", "5,5,+", "-o", target, "--json", *options]
    result = CliRunner().invoke(app, said)
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert words in line


def test_a_cap_that_is_reached_is_said_in_lines(tmp_path: Path) -> None:
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, np.eye(30, dtype=np.uint8))
    said = ("segment", str(path), "-c", "5,5,+", "-o", str(tmp_path / "m.tif"))
    run = cfrseg(*said, "--device", "cpu", CFRSEG_MEMORY_GB="0.01")
    assert run.returncode == 1
    fewer, refused = run.stderr.splitlines()
    assert fewer == "cfrseg: Little memory is left: one window is computed at a time."
    assert refused.endswith(
        "would exceed CFRSEG_MEMORY_GB=0.01: allow more, or unset it"
    )


def test_existing_output_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, np.zeros((20, 30), np.uint8))
    kept = tmp_path / "kept.tif"
    kept.write_text("mine")
    result = CliRunner().invoke(
        app, ["segment", str(path), "-c", "5,5,+", "-o", str(kept)]
    )
    assert result.exit_code == 1
    assert "--overwrite" in result.output
    assert kept.read_text() == "mine"


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="every desktop there has a display"
)
@pytest.mark.parametrize(
    ("display", "platform", "words"),
    [
        ("", "xcb", "there is no display"),
        (":4242", "xcb", "could not connect to display"),
        (":4242", "no-such", "Could not find the Qt platform plugin"),
    ],
)
def test_demo_without_a_display_names_headless(
    display: str, platform: str, words: str
) -> None:
    run = cfrseg("demo", DISPLAY=display, WAYLAND_DISPLAY="", QT_QPA_PLATFORM=platform)
    assert run.returncode == 1
    (line,) = run.stderr.splitlines()
    assert words in line
    assert "cfrseg demo --headless OUT" in line


def test_a_reader_that_has_seen_enough_ends_the_command_without_a_word():
    command = [sys.executable, "-c", _MAIN, "models", "list"]
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        done = subprocess.run(
            command, stdout=write_end, stderr=subprocess.PIPE, text=True, check=False
        )
    finally:
        os.close(write_end)
    assert done.stderr == ""
