"""Runs that are killed, resumed, refused, and spread over a cluster."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_cfrseg.errors import DatasetError, DeviceError
from napari_cfrseg.evaluation.datasets.label_folders import LabelFolder
from napari_cfrseg.evaluation.evaluate_objects import RunSettings
from napari_cfrseg.evaluation.runner import read_run, run_benchmark
from napari_cfrseg.evaluation.segmenters import SegmenterSpec

HERE = Path(__file__).parent
FAST = SegmenterSpec("flood_factory:make")
SCRIPT = """
import sys
from pathlib import Path
from napari_cfrseg.evaluation.datasets.label_folders import LabelFolder
from napari_cfrseg.evaluation.runner import run_benchmark
from napari_cfrseg.evaluation.segmenters import SegmenterSpec
objects = list(LabelFolder(Path(sys.argv[1]), "set").objects())
spec = SegmenterSpec("flood_factory:make_slow")
run_benchmark(Path(sys.argv[2]), spec, objects, workers=int(sys.argv[3]))
"""


@pytest.fixture
def data(tmp_path):
    """Four planes of three objects in two shades."""
    for index in range(4):
        labels = np.zeros((60, 60), np.uint16)
        for label, y in enumerate((2, 22, 42), 1):
            labels[y : y + 16, 10 : 26 + 2 * index] = label
        image = np.where(labels > 0, 200, 20).astype(np.uint8)
        image[:, :14] //= 2
        for part, array in (("images", image), ("labels", labels)):
            (tmp_path / "data" / part).mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(tmp_path / "data" / part / f"i{index}.tif", array)
    return tmp_path / "data"


def list_objects(data):
    return list(LabelFolder(data, "set").objects())


def results(run):
    return {row.key: (row.clicks, row.ious) for row in run.rows}


def wait_for_lines(path, count, process):
    while not path.exists() or len(path.read_bytes().splitlines()) < count:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)


def wait_until_gone(process_group):
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            os.killpg(process_group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail(f"processes of group {process_group} outlive their parent")


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX process groups")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_run_goes_on_where_it_stopped(data, tmp_path, workers):
    objects = list_objects(data)
    expected = results(run_benchmark(tmp_path / "whole", FAST, objects))
    run_folder = tmp_path / "killed"
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    arguments = [sys.executable, "-c", SCRIPT, str(data), str(run_folder), str(workers)]
    process = subprocess.Popen(
        arguments, env=environment, stderr=subprocess.PIPE, start_new_session=True
    )
    wait_for_lines(run_folder / "rows.jsonl", 3, process)
    process.kill()
    process.wait()
    before = read_run(run_folder)
    assert 3 <= len(before.rows) < len(objects)
    assert not before.is_finished

    done = []
    spec = SegmenterSpec("flood_factory:make_slow")
    after = run_benchmark(
        run_folder,
        spec,
        objects,
        progress=lambda row, count, total: done.append((row.key, count, total)),
    )
    assert after.is_finished
    assert results(after) == expected
    assert len(done) == len(objects) - len(before.rows)  # nothing was done twice
    assert done[-1][1:] == (12, 12)
    kept = {row.key: row.seconds for row in before.rows}
    assert all(row.seconds == kept.get(row.key, row.seconds) for row in after.rows)
    wait_until_gone(process.pid)  # the killed run's workers, too


def test_a_line_cut_short_is_done_again(data, tmp_path):
    objects = list_objects(data)
    whole = run_benchmark(tmp_path / "run", FAST, objects)
    path = tmp_path / "run" / "rows.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:5]) + lines[5][:40])
    assert len(read_run(tmp_path / "run").rows) == 5
    again = run_benchmark(tmp_path / "run", FAST, objects)
    assert results(again) == results(whole)


def test_rows_come_back_in_the_order_drawn(data, tmp_path):
    objects = list_objects(data)[::-1]
    run = run_benchmark(tmp_path / "run", FAST, objects)
    assert [row.key for row in run.rows] == [item.key for item in objects]


@pytest.mark.parametrize(
    ("settings", "spec", "count", "message"),
    [
        (RunSettings(max_clicks=7), FAST, 12, "settings differ"),
        (RunSettings(), SegmenterSpec("flood_factory:make_slow"), 12, "segmenter"),
        (RunSettings(), FAST, 6, "objects_sha256 differ"),
    ],
)
def test_another_run_is_not_mixed_in(data, tmp_path, settings, spec, count, message):
    objects = list_objects(data)
    run_benchmark(tmp_path / "run", FAST, objects)
    with pytest.raises(DatasetError, match=message):
        run_benchmark(tmp_path / "run", spec, objects[:count], settings=settings)


def test_a_run_records_what_made_it(data, tmp_path):
    settings = RunSettings(human=True, seed=11, max_clicks=6)
    run = run_benchmark(
        tmp_path / "run",
        FAST,
        list_objects(data),
        settings=settings,
        command="cfrseg …",
    )
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    assert info["identity"]["settings"]["seed"] == 11
    assert info["command"] == "cfrseg …"
    assert {"python", "numpy", "napari-cfrseg"} <= set(info["versions"])
    assert run.settings == settings
    assert {row.seed for row in run.rows} == {11}


def test_faults_are_named(data, tmp_path):
    with pytest.raises(DatasetError, match="holds no run"):
        read_run(tmp_path)
    with pytest.raises(DatasetError, match="no object"):
        run_benchmark(tmp_path / "none", FAST, [])
    run_benchmark(tmp_path / "run", FAST, list_objects(data))
    path = tmp_path / "run" / "rows.jsonl"
    path.write_bytes(b"{}\n" + path.read_bytes())
    with pytest.raises(DatasetError, match="line 1 is not a result row"):
        read_run(tmp_path / "run")


def test_a_worker_of_the_cluster_may_die(data, tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed")
    objects = list_objects(data)
    expected = results(run_benchmark(tmp_path / "alone", FAST, objects))
    pids = tmp_path / "pids"
    monkeypatch.setenv("FLOOD_PIDS", str(pids))
    killed = []

    def kill_one(row, done, total):
        if not killed:
            worker = int(pids.read_text().split()[0])
            killed.append(worker)
            os.kill(worker, signal.SIGKILL)

    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50
    ) as cluster:
        run = run_benchmark(
            tmp_path / "cluster",
            SegmenterSpec("flood_factory:make_with_pid"),
            objects,
            scheduler=cluster.scheduler_address,
            progress=kill_one,
        )
    assert run.is_finished
    assert results(run) == expected
    workers = set(pids.read_text().split())
    assert len(workers) >= 2
    assert str(killed[0]) in workers


def test_a_scheduler_that_is_not_there_is_named(data, tmp_path, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr("napari_cfrseg.processes.CONNECT_S", 0.3)
    with pytest.raises(DeviceError, match="no Dask scheduler answers"):
        run_benchmark(
            tmp_path / "run", FAST, list_objects(data), scheduler="tcp://127.0.0.1:1"
        )
