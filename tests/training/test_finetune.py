"""Fine-tuning end to end on made images: kept, refused, explained, described."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import tifffile
import torch
from typer.testing import CliRunner

from cfrseg_training.command import app
from cfrseg_training.configuration import (
    Settings,
    TrainConfig,
    read_settings,
    settings_of,
)
from cfrseg_training.finetune import tuning
from cfrseg_training.finetune.gate import (
    chance_of_fit,
    compare,
    decide,
    report_text,
    suggestions,
)
from cfrseg_training.finetune.held_out import judged_objects, split_data
from cfrseg_training.finetune.tuning import fine_tune
from cfrseg_training.loop.labelled import LabelledData, LabelledPlane, labelled
from cfrseg_training.loop.training_step import RoundsConfig
from napari_cfrseg.errors import DatasetError, TrainingError
from napari_cfrseg.evaluation.scores import ResultRow
from napari_cfrseg.model import weights_file as checkpoint
from napari_cfrseg.model.cfrnet import CfrNet, CfrNetConfig
from napari_cfrseg.samples import load_sample
from napari_cfrseg.training_job import TrainingJob

SMALL = CfrNetConfig(
    widths=(16, 24, 32, 32), feedback_width=8, head_width=16, grid_size=64
)
QUICK = TrainConfig(
    steps=3,
    batch=2,
    warmup_steps=1,
    ema=0.5,
    rounds=RoundsConfig(weights=(1.0, 1.0), started=0.0, refined=0.0),
)


def disks(index, size=72):
    """Return an image with two bright disks and its labels."""
    ys, xs = np.mgrid[:size, :size]
    labels = np.zeros((size, size), np.int32)
    for number, (y, x) in enumerate(((20, 20), (50, 46)), 1):
        labels[(ys - y) ** 2 + (xs - x) ** 2 <= (8 + index % 3) ** 2] = number
    noise = np.random.default_rng(index).integers(0, 2000, (size, size))
    return (noise + 9000 * (labels > 0)).astype(np.uint16), labels


def made_data(count):
    planes = [p for i in range(count) for p in labelled(f"i{i}", *disks(i))]
    return LabelledData(tuple(planes))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    torch.manual_seed(0)
    network = CfrNet(SMALL)
    metadata = checkpoint.Metadata(
        architecture=network.architecture(), name="base", licence="BSD-3-Clause"
    )
    path = tmp_path_factory.mktemp("base") / "base.safetensors"
    checkpoint.save(path, network, metadata)
    return path


def row(key, ious, image="i"):
    return ResultRow(
        key=key,
        set_name="s",
        image_name=image,
        plane=None,
        area_px=100,
        shape=(9, 9),
        clicks=(),
        ious=tuple(ious),
        error_px=(1,) * len(ious),
        seconds=(0.1,) * len(ious),
        surface_dices=(0.0,) * len(ious),
        mended_px=(1,) * len(ious),
        spoilt_px=(1,) * len(ious),
        spoilt_far_px=(0,) * len(ious),
    )


def rows(*clicks_needed):
    return [row(str(i), [0.5] * (n - 1) + [0.95]) for i, n in enumerate(clicks_needed)]


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        ((6, 7, 8, 6, 9), (2, 3, 2, 3, 2), "kept"),
        ((2, 3, 2, 3, 2), (6, 7, 8, 6, 9), "refused"),
        ((3, 3, 3, 3, 3), (2, 4, 3, 2, 3), "not proven"),
        ((3, 3, 3), (3, 3, 3), "not proven"),
    ],
)
def test_verdict_follows_the_change_in_clicks(before, after, verdict):
    change = compare(rows(*before), rows(*after), seed=0)
    assert decide(change) == verdict
    assert change.low <= change.difference <= change.high


def test_files_left_out_are_told_whatever_the_verdict():
    data = LabelledData((), {f"{n}.tif": "no labels" for n in range(5)})
    facts = {"chance": 0.0, "before": 5.0, "judged": 40.0, "minutes": 15.0}
    told = suggestions("kept", data, facts)
    assert told[0] == "left out 0.tif: no labels"
    assert told[3:] == ["left out 2 more files"]
    assert suggestions("not proven", data, facts)[:4] == told


def test_labels_that_fit_by_chance_prove_nothing():
    gain = compare(rows(6, 7, 8, 6, 9), rows(2, 3, 2, 3, 2), seed=0)
    verdicts = [decide(gain, chance) for chance in (1 / 60, 2 / 60, 3 / 60)]
    assert verdicts == ["kept", "not proven", "refused"]


def test_interval_is_wider_where_gains_come_from_few_images():
    keys = [str(i) for i in range(12)]
    before = [row(k, [0.5] * 9 + [0.95], f"image {i // 4}") for i, k in enumerate(keys)]
    after = [
        row(k, [0.5] * (2 if i < 4 else 9) + [0.95], f"image {i // 4}")
        for i, k in enumerate(keys)
    ]
    together = compare(
        [row(r.key, r.ious) for r in before], [row(r.key, r.ious) for r in after], 0
    )
    apart = compare(before, after, 0)
    assert decide(together) == "kept"
    assert decide(apart) == "not proven"


@pytest.mark.parametrize(
    ("count", "how", "folds"),
    [
        (1, "each half of the image in turn", 2),
        (2, "each image in turn", 2),
        (3, "each image in turn", 3),
        (8, "held-out images", 1),
    ],
)
def test_split_says_how_and_never_shares_an_image(count, how, folds):
    split = split_data(made_data(count), seed=1)
    assert (split.how, len(split.folds)) == (how, folds)
    for fold in split.folds:
        trained, held = ({p.name for p in s} for s in (fold.trained, fold.held_out))
        assert count == 1 or not trained & held
        assert judged_objects(fold, folds, 0)
    assert len(split.held_out) == {1: 1, 2: 2, 3: 3, 8: 2}[count]


def test_halves_of_one_image_keep_a_margin_between_them():
    fold = split_data(made_data(1), seed=0).folds[0]
    rows_used = fold.trained[0].labels.shape[0] + fold.held_out[0].labels.shape[0]
    columns = fold.trained[0].labels.shape[1] + fold.held_out[0].labels.shape[1]
    assert 72 - 8 <= min(rows_used, columns) <= 72 - 4
    one = np.where(disks(0)[1] == 1, 1, 0).astype(np.int32)
    data = LabelledData((LabelledPlane("one", None, disks(0)[0], one),))
    with pytest.raises(DatasetError, match="both sides"):
        split_data(data, 0)


def test_labels_of_another_place_do_not_follow_the_image():
    sample = load_sample("powder_sem")
    labels = sample.labels.astype(np.int32)
    right = LabelledPlane("a", None, sample.image, labels)
    wrong = LabelledPlane("a", None, sample.image, np.flipud(labels).copy())
    assert chance_of_fit([right]) < 0.05
    assert chance_of_fit([wrong]) > 0.05


@pytest.fixture(scope="module")
def tuned(tmp_path_factory, base):
    """A short fine-tuning: its settings, its working folder, its outcome."""
    folder = tmp_path_factory.mktemp("tuned")
    output = folder / "models" / "disks.safetensors"
    settings = Settings(output=output, base=str(base), seed=3, forgetting=False)
    work = folder / "work"
    return settings, work, fine_tune(made_data(4), settings, config=QUICK, work=work)


def test_the_checkpoint_says_how_it_was_made(tuned):
    settings, work, _ = tuned
    metadata = checkpoint.read_metadata(work / "candidate-0.safetensors")
    provenance = metadata.provenance
    assert provenance["base"]["name"] == "base"
    assert len(provenance["base"]["sha256"]) == 64
    assert provenance["data_sha256"] == made_data(4).fingerprint()
    assert provenance["config"]["steps"] == 3
    assert torch.__version__.startswith(provenance["versions"]["torch"])
    assert (metadata.seed, metadata.steps, metadata.name) == (3, 3, "disks")
    assert "BSD-3-Clause" in metadata.licence
    report = json.loads(settings.output.with_suffix(".report.json").read_text())
    assert settings.output.exists() == (report["verdict"] == "kept")


def test_a_killed_fine_tuning_does_not_judge_twice(tuned, tmp_path, monkeypatch):
    settings, finished, first = tuned
    work = tmp_path / "work"
    shutil.copytree(finished, work)
    calls = []
    monkeypatch.setattr(tuning.gate, "judge", lambda *a: calls.append(a))
    settings = replace(settings, output=tmp_path / "b.safetensors")
    again = fine_tune(made_data(4), settings, config=QUICK, work=work)
    assert not calls
    assert again.before == first.before
    assert again.after == first.after


def test_more_training_in_the_same_folder_is_judged_again(tuned, tmp_path):
    settings, finished, _ = tuned
    assert not list(finished.glob("*.pt"))
    work = tmp_path / "work"
    shutil.copytree(finished, work)
    settings = replace(settings, output=tmp_path / "b.safetensors")
    fine_tune(made_data(4), settings, config=replace(QUICK, steps=5), work=work)
    assert len(list(work.glob("before-0*.json"))) == 1
    assert len(list(work.glob("after-0*.json"))) == 2
    other = tmp_path / "other.safetensors"
    torch.manual_seed(1)
    network = CfrNet(SMALL)
    metadata = checkpoint.Metadata(architecture=network.architecture(), name="other")
    checkpoint.save(other, network, metadata)
    settings = replace(settings, base=str(other))
    with pytest.raises(TrainingError, match="base model"):
        fine_tune(made_data(4), settings, config=QUICK, work=work)


def test_a_model_that_is_not_proven_is_not_thrown_away(tmp_path, base):
    output = tmp_path / "disks.safetensors"
    settings = Settings(output=output, base=str(base), forgetting=False)
    still = replace(QUICK, steps=1, learning_rate=0.0, frozen_norms=True)
    outcome = fine_tune(made_data(4), settings, config=still)
    assert (outcome.verdict, outcome.model) == ("not proven", "")
    assert not output.exists()
    assert outcome.candidate == str(tmp_path / "disks.unproven.safetensors")
    assert checkpoint.read_metadata(outcome.candidate).validation["difference"] == 0
    assert f"It is {outcome.candidate}: use it, or delete it." in report_text(outcome)


def write_pairs(folder, count):
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
    for index in range(count):
        image, labels = disks(index)
        tifffile.imwrite(folder / "images" / f"{index}.tif", image)
        tifffile.imwrite(folder / "labels" / f"{index}.tif", labels.astype(np.uint16))
    return folder


def test_dry_run_draws_the_samples_and_trains_nothing(tmp_path, base):
    folder = write_pairs(tmp_path / "cells", 4)
    (folder / "images" / "odd.tif").write_bytes(b"no image")
    (folder / "labels" / "odd.tif").write_bytes(b"no image")
    output = tmp_path / "m.safetensors"
    arguments = [str(folder), "--base", str(base), "-o", str(output), "--json"]
    done = CliRunner().invoke(app, [*arguments, "--dry-run", "--threads", "1"])
    assert done.exit_code == 0, done.output
    assert "left out odd" in done.stderr
    report = json.loads(done.stdout)
    assert report["how"] == "held-out images"
    assert report["steps"] > 0
    from PIL import Image

    sheet = np.asarray(Image.open(tmp_path / "m.sheet.png"))
    assert (sheet == (240, 228, 66)).all(axis=2).sum() > 100  # outlines
    assert (sheet == (86, 180, 233)).all(axis=2).sum() > 50  # positive clicks
    assert not output.exists()


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["-o", "m.safetensors"], 2, "nothing to train on"),
        (["cells", "-o", "m.txt"], 2, "must end in .safetensors"),
        (["cells"], 2, "no output"),
        (["empty", "-o", "m.safetensors"], 1, "holds neither images/"),
        (["bad.toml", "-o", "m.safetensors"], 1, "has no colour"),
        (["none.toml", "-o", "m.safetensors"], 1, "from 1 to 4096, or none"),
    ],
)
def test_command_line_says_what_is_missing(
    tmp_path, monkeypatch, arguments, code, text
):
    monkeypatch.chdir(tmp_path)
    write_pairs(tmp_path / "cells", 1)
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.toml").write_text("[train]\ncolour = 3\n")
    (tmp_path / "none.toml").write_text("threads = 0\n")
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == code
    assert text in " ".join(done.output.replace("│", " ").split())


def test_a_job_is_read_like_a_configuration_file(tmp_path):
    (tmp_path / "c.toml").write_text(
        'output = "m.safetensors"\nminutes = 2\nseed = 7\n'
        '[data]\nimages = "raw"\nlabels = "masks"\nignore = 255\n'
        "[train]\nlearning_rate = 1e-3\nbatch = 4\n"
        "[rounds]\nweights = [1, 2]\n[suem]\noff = true\n"
    )
    settings = read_settings(tmp_path / "c.toml")
    config = settings.train_config()
    assert settings.data.labels == tmp_path / "masks"
    assert (config.learning_rate, config.batch, config.seed) == (1e-3, 4, 7)
    assert config.rounds.weights == (1, 2)
    assert config.suem is None
    assert config.budget_s == 120
    request = {
        "minutes": 2,
        "seed": 7,
        "data": {"images": str(tmp_path / "raw"), "labels": "masks", "ignore": 255},
        "train": {"learning_rate": 1e-3, "batch": 4},
        "rounds": {"weights": [1, 2]},
        "suem": {"off": True},
    }
    again = settings_of(json.loads(json.dumps(request)), tmp_path, "job")
    assert again.train_config() == config
    assert again.data == settings.data


def test_a_job_is_written_followed_and_stopped_through_its_folder(
    tmp_path, base, monkeypatch
):
    monkeypatch.setenv("CFRSEG_JOBS", str(tmp_path / "jobs"))
    folder = write_pairs(tmp_path / "cells", 4)
    request = {
        "base": str(base),
        "output": str(tmp_path / "m.safetensors"),
        "minutes": 10.0,
        "forgetting": False,
        "data": {"folders": [str(folder)]},
        "train": {"batch": 2, "note_every": 1},
        "rounds": {"weights": [1.0], "refined": 0.0},
    }
    job = TrainingJob.create("disks", request)
    job.set_control("stop")  # after the first step: the best so far is judged
    done = CliRunner().invoke(app, ["--job", str(job.folder), "--threads", "1"])
    assert done.exit_code == 0, done.output
    assert job.is_finished
    assert not job.is_running
    assert job.status.verdict in ("kept", "not proven", "refused")
    assert job.report["steps"] < 50
    assert any("loss" in entry for entry in job.curve())


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("turned", [False, True])
def test_labels_of_another_image_are_refused(tmp_path, turned):
    """The shipped model, a real micrograph and a short training."""
    sample = load_sample("powder_sem")
    image, labels = sample.image[:224, :224], sample.labels[:224, :224]
    if turned:
        labels = np.rot90(labels, 2)
    planes = tuple(labelled("powder", image, np.ascontiguousarray(labels)))
    settings = Settings(
        output=tmp_path / "m.safetensors", minutes=0.5, threads=1, forgetting=False
    )
    outcome = fine_tune(LabelledData(planes), settings)
    if turned:
        assert outcome.verdict == "refused"
        assert "belongs to its image" in outcome.suggestions[0]
        assert not (tmp_path / "m.safetensors").exists()
    else:
        assert outcome.chance < 0.05
