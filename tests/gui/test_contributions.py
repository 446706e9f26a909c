"""Everything that the manifest declares exists."""

from __future__ import annotations

import numpy as np
import pytest
from npe2 import PluginManifest

from napari_cfrseg.annotation.events import OverlapRule
from napari_cfrseg.engine.refinement import Refinement
from napari_cfrseg.gui.manifest import sample_layers
from napari_cfrseg.gui.preferences import ACTIONS, PLUGIN, Preferences
from napari_cfrseg.samples import load_sample, sample_names


@pytest.fixture(scope="module")
def manifest() -> PluginManifest:
    return PluginManifest.from_distribution(PLUGIN)


def test_every_bundled_micrograph_opens_from_the_manifest(manifest):
    samples = [s for s in manifest.contributions.sample_data if s.key != "session"]
    assert [sample.key for sample in samples] == list(sample_names())
    commands = {c.id: c.python_name for c in manifest.contributions.commands}
    for sample in samples:
        module, name = commands[sample.command].split(":")
        assert (module, name) == ("napari_cfrseg.gui.manifest", sample.key)


@pytest.mark.parametrize("name", sample_names())
def test_sample_layer_is_the_image_with_its_credits(name):
    ((data, kwargs, kind),) = sample_layers(name)
    sample = load_sample(name)
    assert kind == "image"
    assert np.array_equal(data, sample.image)
    assert kwargs["rgb"] == (data.ndim == 3)
    assert kwargs["metadata"]["attribution"] == sample.attribution
    assert kwargs["metadata"]["licence"]


def test_the_dock_is_in_the_menus_for_segmenting_and_annotating(manifest):
    widget, _ = manifest.contributions.widgets
    assert widget.display_name == "Segment with clicks"
    for menu in ("napari/layers/segment", "napari/layers/annotate"):
        (item,) = manifest.contributions.menus[menu]
        assert item.command == widget.command


def test_preferences_offer_every_key_and_start_from_the_defaults(
    manifest, npe2pm, plugin_settings
):
    npe2pm.register(manifest)
    preferences = Preferences.load()
    assert preferences == Preferences()
    assert set(preferences.keys) == {action.name for action in ACTIONS}


def test_preferences_follow_what_a_person_chose(manifest, npe2pm, plugin_settings):
    from napari.settings import get_plugin_settings

    npe2pm.register(manifest)
    settings = get_plugin_settings(PLUGIN)
    settings.click.refinement = "cfr"
    settings.click.steps = 7
    settings.click.device = "cuda:1"
    settings.click.precision = "bfloat16"
    settings.click.overlap = "overwrite"
    settings.keys.polarity = "X"
    preferences = Preferences.load()
    assert preferences.refinement == Refinement.cfr(7)
    assert (preferences.device, preferences.precision) == ("cuda:1", "bfloat16")
    assert preferences.rule is OverlapRule.OVERWRITE
    assert preferences.keys["polarity"] == "X"


def test_keys_that_cannot_be_used_are_said_and_the_others_hold(
    manifest, npe2pm, plugin_settings
):
    from napari.settings import get_plugin_settings

    npe2pm.register(manifest)
    keys = get_plugin_settings(PLUGIN).keys
    assert not Preferences.load().problems
    keys.polarity, keys.cancel, keys.reject, keys.undo = "ü", "Esc", "Ctrl+Del", ""
    keys.new_object, keys.pick, keys.closer, keys.help = "D", "Shift", "Ctrl-Alt", "a b"
    keys.other_mask_too, keys.mask_before_too, keys.help_too = "Shift", "nonsense", "ü"
    found = Preferences.load()
    assert found.keys["polarity"] == "T"
    assert (found.keys["cancel"], found.keys["reject"]) == ("Escape", "Ctrl+Delete")
    assert found.keys["help_too"] == "ü"
    assert (found.keys["undo"], found.keys["new_object"]) == ("Control-Z", "D")
    assert found.problems == (
        "“ü” is no key: “swap what the mouse buttons mean” keeps T",
        "“Shift” is no key: “select the object pointed at” keeps G",
        "“Ctrl-Alt” is no key: “it is a smaller structure” keeps Q",
        "D is the key of “next object” and of “propagate forward”",
        "“a b” is no key: “show all keys” keeps F1",
        "“Shift” is no key: “another mask” keeps Tab",
        "“nonsense” is no key: “the mask before” keeps Shift+Tab",
    )
    said = []
    found.say_problems(lambda *one: said.append(one))
    assert said == [("warning", f"Preferences → CFR-Seg: {'; '.join(found.problems)}.")]


def test_preferences_without_our_manifest_are_the_defaults(npe2pm, plugin_settings):
    assert Preferences.load() == Preferences()
