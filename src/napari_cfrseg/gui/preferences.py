"""What Preferences hold for this plugin; defaults where napari does not offer them."""

from __future__ import annotations

from dataclasses import dataclass, field

from napari_cfrseg.annotation.events import OverlapRule
from napari_cfrseg.engine.refinement import DEFAULT_REFINEMENT, Refinement
from napari_cfrseg.gui.segment.keys import ACTIONS

PLUGIN = "napari-cfrseg"


@dataclass(frozen=True, slots=True)
class Preferences:
    """Where a dock starts from.

    Attributes
    ----------
    model
        Name or path of the model.
    refinement, rule, threshold
        Settings of the first clicks.
    keys
        Keys by action name.
    """

    model: str = "default"
    refinement: Refinement = DEFAULT_REFINEMENT
    rule: OverlapRule = OverlapRule.KEEP
    threshold: float = 0.5
    keys: dict[str, str] = field(
        default_factory=lambda: {action.name: action.key for action in ACTIONS}
    )

    @classmethod
    def load(cls) -> Preferences:
        """Read them from napari; defaults on a napari without plugin settings."""
        try:
            from napari.settings import get_plugin_settings
        except ImportError:
            return cls()
        try:
            settings = get_plugin_settings(PLUGIN)
        except KeyError:
            return cls()
        click, keys = settings.click, settings.keys
        kind = str(click.refinement)
        steps = 0 if kind == "standard" else int(click.steps)
        return cls(
            model=str(click.model),
            refinement=Refinement(
                "cfr" if kind == "cfr" else "a-cfr" if kind == "a-cfr" else "standard",
                steps,
                int(click.changed_px),
            ),
            rule=OverlapRule(str(click.overlap)),
            threshold=float(click.threshold),
            keys={action.name: str(getattr(keys, action.name)) for action in ACTIONS},
        )
