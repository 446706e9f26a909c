"""The robot must not be what a benchmark waits for."""

import time

import numpy as np
from scipy import ndimage

from napari_cfrseg.evaluation.robots import find_error_centre


def test_many_thin_errors_cost_one_transform():
    rng = np.random.default_rng(0)
    error = rng.random((400, 400)) > 0.6
    free = np.ones_like(error)

    def seconds(call):
        start = time.process_time()
        call()
        return time.process_time() - start

    whole = min(
        seconds(lambda: ndimage.distance_transform_edt(np.pad(error, 1)))
        for _ in range(3)
    )
    found = min(seconds(lambda: find_error_centre(error, free)) for _ in range(3))
    assert found < 8 * whole
