"""The latest values within their bytes."""

from __future__ import annotations

import numpy as np

from napari_cfrseg.latest import Latest


def test_the_oldest_go_first_and_a_key_made_twice_counts_once() -> None:
    kept = Latest(16 << 20, lambda one: one.nbytes)
    made = [np.zeros(1 << 20, np.uint8) for _ in range(21)]
    for number, one in enumerate(made[:20]):
        assert kept.get((number,), lambda one=one: one) is one
    assert kept.held_bytes == 16 << 20
    assert kept.get((4,), lambda: made[20]) is made[4]
    assert kept.get((3,), lambda: made[20]) is made[20]  # it was forgotten
    kept.get((30,), lambda: kept.get((30,), lambda: made[0]))
    assert kept.held_bytes == 16 << 20


def test_a_few_are_kept_however_large_and_an_owner_s_are_dropped() -> None:
    kept = Latest(1, lambda one: one.nbytes, least=2)
    owner, values = object(), [np.zeros(1 << 10) for _ in range(2)]
    kept.get((owner, 0), lambda: values[0])
    kept.get((None, 0), lambda: values[1])
    assert kept.held_bytes == 2 << 13
    kept.drop(owner)
    assert kept.held_bytes == 1 << 13
    assert kept.get((None, 0), lambda: values[0]) is values[1]
