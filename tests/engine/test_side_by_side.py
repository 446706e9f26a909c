"""Windows computed side by side give what they give one after the other."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from napari_cfrseg import Segmenter, load_sample
from napari_cfrseg.engine.side_by_side import run_side_by_side


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_jobs_run_at_once_on_a_thread_each() -> None:
    meeting = threading.Barrier(2, timeout=250)

    def job() -> int:
        meeting.wait()  # passes only where both run at once
        return torch.get_num_threads()

    assert run_side_by_side([job, job]) == [1, 1]
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
def test_an_error_is_raised_after_all_have_ended() -> None:
    ended = []

    def fail() -> None:
        msg = "no such file"
        raise OSError(msg)

    def slow() -> None:
        threading.Event().wait(0.2)
        ended.append(1)

    with pytest.raises(OSError, match="no such file"):
        run_side_by_side([fail, slow])
    assert ended


def test_a_first_click_is_the_same_on_one_thread_and_on_two() -> None:
    before = torch.get_num_threads()
    sample = load_sample("powder_sem")
    found = []
    try:
        for threads in (1, 2):
            segmenter = Segmenter.load("default", device="cpu", threads=threads)
            segmenter.set_image(sample.image)
            found.append(segmenter.predict([(120, 88)]))
    finally:
        torch.set_num_threads(before)
    one, two = found
    assert np.array_equal(one.probability, two.probability)
    assert one.window == two.window
    assert one.quality == two.quality
    assert len(one.choices) == len(two.choices)
    spent = sum(vars_of(two).values())
    assert 0 < spent <= two.seconds + 0.005


def vars_of(prediction: object) -> dict[str, float]:
    """Seconds by stage."""
    stages = prediction.stages  # type: ignore[attr-defined]
    return {name: getattr(stages, name) for name in type(stages).__dataclass_fields__}
