"""A session with a propagation, replayed from its file by the shell's own code."""

from __future__ import annotations

import numpy as np
import tifffile
from session_cases import save_model

from napari_cfrseg.annotation import events as ev
from napari_cfrseg.engine.segmenter import Segmenter
from napari_cfrseg.session.format import SessionContent, SessionSettings
from napari_cfrseg.session.recording import RecordedAnnotator
from napari_cfrseg.session.references import model_reference, reference_of
from napari_cfrseg.session.replay_session import ReplayTask, replay_session
from napari_cfrseg.session.session_writer import SessionWriter


def test_replayed_from_the_file_it_equals(tmp_path):
    y, x = np.mgrid[:64, :64]
    image = np.stack(
        [np.where(np.hypot(y - 30 - z, x - 30) < 10, 150, 20) for z in range(6)]
    ).astype(np.uint8)
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, image, metadata={"axes": "ZYX"})
    model = save_model(tmp_path)
    content = SessionContent(
        reference_of(image, path=path, folder=tmp_path),
        model_reference(model),
        SessionSettings(threads=1),
    )
    writer = SessionWriter.create(tmp_path / "work.cfrseg.json", content)
    annotator = RecordedAnnotator(
        lambda plane: image[plane],
        (64, 64),
        Segmenter.load(model, device="cpu", threads=1),
    )
    annotator.writer = writer
    annotator.leading = (6,)
    line = ev.Propagated((1,), (2,), 0, 0, 5, 6, (2.0, 1.0, 1.0))
    for event in (
        ev.ObjectCreated(1),
        ev.ClickAdded(1, (2,), (32, 30), True, 1),
        line,
        ev.ClickAdded(1, (4,), (34, 30), True, 2),
        line,
    ):
        annotator.apply(event)
    carried = [p for p, s in annotator.objects[1].planes.items() if s.carried]
    assert carried
    writer.save(annotator.snapshot(writer.event_count))
    writer.close()
    out = tmp_path / "out"
    out.mkdir()
    task = ReplayTask(writer.path, out, "work", weights=model, device="cpu")
    result = replay_session(task)
    assert result.reason == ""
    assert result.as_saved
    labels = tifffile.imread(task.labels_path)
    assert np.array_equal(labels, annotator.labels_array((6,)))
