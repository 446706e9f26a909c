"""``refresh.sh`` calls commands, scripts and options that exist, in every part."""

import ast
import json
import os
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import typer

from napari_cfrseg.cli import app

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "refresh.sh"
STUB = """#!{python}
import json, sys
with open({log!r}, "a") as file:
    file.write(json.dumps([{name!r}, *sys.argv[1:]]) + "\\n")
"""

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")


def parts():
    lines = SCRIPT.read_text().splitlines()
    return [
        line[4:-1]
        for line in lines
        if line.startswith("    ") and line.endswith(")") and line[4:-1].isalpha()
    ]


@pytest.fixture
def commands(tmp_path):
    """Run parts with stubs for the programs; return what was called."""
    programs = tmp_path / "bin"
    programs.mkdir()
    log = tmp_path / "calls.jsonl"
    for name in ("cfrseg", "python"):
        stub = programs / name
        stub.write_text(STUB.format(python=sys.executable, log=str(log), name=name))
        stub.chmod(0o755)
    out = tmp_path / "out"
    (out / "finetune").mkdir(parents=True)
    (out / "finetune" / "base.safetensors").touch()
    environment = {
        "PATH": f"{programs}{os.pathsep}/usr/bin{os.pathsep}/bin",
        "PACKS": str(tmp_path),
        "DISPLAY": ":0",
    }

    def run(*arguments):
        done = subprocess.run(
            ["bash", str(SCRIPT), *arguments[:-1], "DATA", str(out), *arguments[-1]],
            env=environment,
            capture_output=True,
            text=True,
        )
        calls = [json.loads(line) for line in log.read_text().splitlines()]
        return done, calls

    return run


def options_of(script):
    """Every string of a script that looks like an option or a subcommand."""
    tree = ast.parse(Path(script).read_text())
    return {
        n.value
        for n in ast.walk(tree)
        if isinstance(n, ast.Constant)
        if isinstance(n.value, str)
    }


@pytest.mark.parametrize("quick", [(), ("--quick",)])
def test_every_part_calls_what_exists(commands, quick):
    names = parts()
    assert {"card", "peers", "robot", "stacks", "finetune", "ablations"} <= set(names)
    done, calls = commands(*quick, names)
    assert done.returncode == 0, done.stderr
    assert len(calls) >= len(names)
    group = typer.main.get_command(app)
    for program, *arguments in calls:
        if program == "cfrseg":
            command = group.get_command(None, arguments[0])
            # an option that does not exist is an error here
            command.make_context(arguments[0], arguments[1:])
            continue
        assert Path(arguments[0]).is_file()
        known = options_of(arguments[0])
        used = {word for word in arguments[1:] if word.startswith("--")}
        assert used <= known, arguments


def test_an_unknown_part_is_an_error(commands, tmp_path):
    (tmp_path / "calls.jsonl").touch()
    done, calls = commands(["no-such-part"])
    assert done.returncode == 1
    assert "no part no-such-part" in done.stderr
    assert calls == []


def test_every_program_finds_what_it_imports():
    for path in SCRIPT.parent.glob("*.py"):
        import_module(path.stem)
