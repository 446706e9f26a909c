"""A row of the ablations starts from a model's shape and encoder."""

from __future__ import annotations

import torch
from ablations import ENCODER, fresh
from network_variants import VariantConfig

from napari_cfrseg.model import weights_file as checkpoint


def test_a_row_takes_the_shape_and_the_encoder_of_the_default():
    model, _ = checkpoint.load(checkpoint.resolve("default"))
    row = fresh(VariantConfig("input"), "default")
    assert row.variant.feedback == "input"
    assert row.config.widths == model.config.widths
    assert row.fine is None
    own, given = row.state_dict(), model.state_dict()
    changed = {
        name.split(".")[0]
        for name, values in own.items()
        if name not in given or not torch.equal(values, given[name])
    }
    assert changed == {"clicks", "ffcm", "cffm", "head", "at_input"}
    assert changed.isdisjoint(ENCODER)


def test_without_a_model_all_is_fresh():
    row = fresh(VariantConfig(), "none")
    assert row.config == VariantConfig().network
