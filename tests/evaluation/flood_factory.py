"""Segmenters that tests name as ``flood_factory:make``; some are slow on purpose."""

import os
import time
from pathlib import Path

import numpy as np
from skimage.segmentation import flood


class Flood:
    """Floods grey values around every positive click."""

    def __init__(self, seconds=0.0):
        self.seconds = seconds

    def set_image(self, image):
        self.image = image

    def predict(self, clicks, previous):
        time.sleep(self.seconds)
        mask = np.zeros(self.image.shape[:2], bool)
        for click in clicks:
            if click.is_positive:
                mask |= flood(self.image, click.pixel, tolerance=10)
        return mask


def make():
    return Flood()


def make_slow():
    return Flood(0.15)


def make_with_pid():
    """Leaves the process id where the test can see who worked."""
    segmenter = Flood(0.1)
    with Path(os.environ["FLOOD_PIDS"]).open("a") as file:
        file.write(f"{os.getpid()}\n")
    return segmenter


def make_half():
    """Has no predict."""
    return object()
