"""Who may import whom, seen from fresh processes; and the map of the tree.

The contracts of import-linter read the source; these tests look at what a process has
really loaded, and at the links of the pages that describe the tree.
"""

from __future__ import annotations

import json
import pkgutil
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import cfrseg_training
import napari_cfrseg

WINDOW_MODULES = {"napari", "qtpy", "magicgui", "superqt", "vispy", "PyQt6", "PyQt5"}
WINDOW_MODULES |= {"PySide6", "PySide2"}
#: A machine that only computes need not have these.
COMPUTE_MODULES = ("napari_cfrseg.engine", "napari_cfrseg.model", "cfrseg_training")
#: … except where a command of its own is written.
COMMAND = "cfrseg_training.command"
ABSENT_THERE = {"pydantic", "pooch", "dask", "rich", "typer"}
ROOT = Path(__file__).parents[1]
SOURCES = ("src/napari_cfrseg", "training/cfrseg_training")
HEAVY_MODULES = {"torch", "torchvision", "timm", "scipy", "skimage"} | WINDOW_MODULES


def all_modules() -> list[str]:
    names = []
    for package in (napari_cfrseg, cfrseg_training):
        names.append(package.__name__)
        names += [
            info.name
            for info in pkgutil.walk_packages(
                package.__path__, f"{package.__name__}.", onerror=lambda _: None
            )
        ]
    return [n for n in names if not n.endswith("__main__")]


def headless_modules() -> list[str]:
    return [n for n in all_modules() if not n.startswith("napari_cfrseg.gui")]


def loaded_after(code: str) -> dict[str, list[str]]:
    """Run code that fills ``seen: dict[str, set of top-level modules]``."""
    script = (
        "import json, sys\n"
        "def top():\n    return {m.partition('.')[0] for m in sys.modules}\n"
        f"seen = {{}}\n{code}\n"
        "print(json.dumps({k: sorted(v) for k, v in seen.items()}))"
    )
    run = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    found: dict[str, list[str]] = json.loads(run.stdout.splitlines()[-1])
    return found


def loaded_by(names: list[str]) -> dict[str, list[str]]:
    """Import the modules one after the other in one fresh process."""
    return loaded_after(
        "import importlib\n"
        f"for name in {names!r}:\n"
        "    before = top()\n"
        "    importlib.import_module(name)\n"
        "    seen[name] = top() - before\n"
    )


def test_the_walk_finds_modules_of_every_floor() -> None:
    names = all_modules()
    for expected in (
        "napari_cfrseg.clicks",
        "napari_cfrseg.cli.demo",
        "napari_cfrseg.model.network",
        "cfrseg_training.loop.training_step",
    ):
        assert expected in names


@pytest.fixture(scope="module")
def loaded() -> dict[str, list[str]]:
    """Return what each headless module loads, those of computing machines first."""
    names = headless_modules()
    computing = [n for n in names if n.startswith(COMPUTE_MODULES)]
    return loaded_by(computing + [n for n in names if n not in computing])


def test_no_headless_module_loads_a_window_module(loaded: dict[str, list[str]]) -> None:
    offenders = {
        name: sorted(WINDOW_MODULES & set(new))
        for name, new in loaded.items()
        if WINDOW_MODULES & set(new)
    }
    assert not offenders


def test_engine_model_and_training_need_no_desktop_libraries(
    loaded: dict[str, list[str]],
) -> None:
    offenders = {
        name: sorted(ABSENT_THERE & set(new))
        for name, new in loaded.items()
        if name.startswith(COMPUTE_MODULES)
        and name != COMMAND
        and ABSENT_THERE & set(new)
    }
    assert not offenders


@pytest.mark.parametrize(
    "code",
    [
        "import napari_cfrseg",
        "from napari_cfrseg import Click",
        "import napari_cfrseg.cli.commands",
        "import napari_cfrseg.gui",
    ],
)
def test_entrances_load_neither_torch_nor_qt(code: str) -> None:
    loaded = set(loaded_after(f"{code}\nseen['it'] = top()")["it"])
    assert not HEAVY_MODULES & loaded


def test_help_loads_neither_torch_nor_qt() -> None:
    command = "from napari_cfrseg.cli import main; main()"
    run = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", command, "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "demo" in run.stdout
    imported = {
        line.rsplit("|", 1)[1].strip().partition(".")[0]
        for line in run.stderr.splitlines()
        if line.startswith("import time:") and "|" in line
    }
    assert "typer" in imported
    assert not HEAVY_MODULES & imported


def links_of(page: str) -> set[str]:
    """The files and folders a page links to, relative to the root."""
    text = (ROOT / page).read_text("utf-8")
    targets = re.findall(r"\]\(([^)#:\s]+)[)#]", text)
    here = (ROOT / page).parent
    return {(here / t).resolve().relative_to(ROOT).as_posix() for t in targets}


def source_folders() -> set[str]:
    """Folders of the packages that hold modules, relative to the root."""
    return {
        path.parent.relative_to(ROOT).as_posix()
        for source in SOURCES
        for path in (ROOT / source).rglob("*.py")
    }


def test_every_link_leads_to_a_file() -> None:
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")]
    links = {link for page in pages for link in links_of(str(page.relative_to(ROOT)))}
    assert len(links) > 150
    assert not {link for link in links if not (ROOT / link).exists()}


def test_every_folder_of_the_packages_is_on_the_map() -> None:
    assert not source_folders() - links_of("CONTRIBUTING.md")


def test_every_module_on_the_top_floor_is_on_the_map() -> None:
    top = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / SOURCES[0]).glob("*.py")
        if path.name != "__init__.py"
    }
    assert not top - links_of("CONTRIBUTING.md")


def test_every_benchmark_and_record_is_on_its_map() -> None:
    kinds = ("*.py", "*.md", "*.sh")
    found = {
        path.relative_to(ROOT).as_posix()
        for kind in kinds
        for path in (ROOT / "benchmarks").glob(kind)
    }
    assert not found - links_of("benchmarks/README.md") - {"benchmarks/README.md"}


def test_a_click_takes_ten_modules_at_most() -> None:
    text = (ROOT / "docs/architecture.md").read_text("utf-8")
    (way,) = re.findall(r"## A click: .*?\n(.*?)\n## ", text, re.DOTALL)
    hops = re.findall(r"^(\d+)\. \[[a-z_]+\.py\]\(", way, re.MULTILINE)
    assert hops == [str(n) for n in range(1, len(hops) + 1)]
    assert 5 <= len(hops) <= 10


def test_no_two_modules_share_a_name() -> None:
    names = Counter(
        path.name for source in SOURCES for path in (ROOT / source).rglob("*.py")
    )
    assert {n for n, count in names.items() if count > 1} == {"__init__.py"}


def test_no_module_has_more_than_450_lines() -> None:
    files = [path for folder in SOURCES for path in (ROOT / folder).rglob("*.py")]
    lines = {path.name: len(path.read_text("utf-8").splitlines()) for path in files}
    assert {name: n for name, n in lines.items() if n > 450} == {}


def test_the_tests_mirror_the_source_tree() -> None:
    beside = {"tests/benchmarks", "tests/golden", "tests/property", "tests/training"}
    folders = {
        path.parent.relative_to(ROOT).as_posix()
        for path in (ROOT / "tests").rglob("test_*.py")
    }
    packages = {
        "tests/" + folder.removeprefix(SOURCES[0] + "/")
        for folder in source_folders()
        if folder.startswith(SOURCES[0] + "/")
    }
    assert not folders - packages - beside - {"tests"}
    names = Counter(path.name for path in (ROOT / "tests").rglob("*.py"))
    assert {n for n, count in names.items() if count > 1} <= {"conftest.py"}
