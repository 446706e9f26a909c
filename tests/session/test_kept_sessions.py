"""Session files written by an earlier version: opened and replayed as they were then.

``versions/kept_*`` were written once, with every kind of event, undo and redo among
them and a journal left as after a crash; ``kept.json`` says what came of them. They are
never written again: a change of the file format must read them.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from disc_segmenter import DiscSegmenter

from napari_cfrseg.session.replay_session import labels_sha256
from napari_cfrseg.session.session import Session

VERSIONS = Path(__file__).parent / "versions"
KEPT = json.loads((VERSIONS / "kept.json").read_text(encoding="utf-8"))


@pytest.fixture(params=sorted(KEPT))
def kept(request) -> tuple[Session, dict]:
    session = Session.open(VERSIONS / f"{request.param}.cfrseg.json")
    return session, KEPT[request.param]


def described(object_id, found, clicks) -> dict:
    return {
        "id": object_id,
        "name": found.name,
        "colour": found.colour,
        "locked": found.locked,
        "threshold": found.threshold,
        "class": found.object_class,
        "clicks": [
            [c.click_id, list(p), list(c.click.yx), c.click.is_positive, c.focus_shift]
            for p, c in clicks
        ],
    }


def test_replayed_to_the_same_labels(kept) -> None:
    session, expected = kept
    assert len(session.content.events) == expected["events"]
    labels = session.apply(segmenter=DiscSegmenter())
    assert labels_sha256(labels) == expected["labels_sha256"]


def test_replayed_to_the_same_objects(kept) -> None:
    session, expected = kept
    annotator = session.annotator(segmenter=DiscSegmenter())
    for _ in annotator.restore(session.content):
        pass
    found = [described(i, o, o.clicks()) for i, o in sorted(annotator.objects.items())]
    assert found == expected["objects"]


def test_the_summary_without_a_network_has_the_same_objects(kept) -> None:
    session, expected = kept
    found = [described(o.object_id, o, o.clicks()) for o in session.objects()]
    assert found == expected["objects"]
