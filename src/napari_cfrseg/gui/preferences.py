"""Preferences of this plugin in napari: where a dock starts from, and its keys.

napari asks the active layer's instance first, so keys bound there come before napari's
own and the viewer's; only keys that are free on a layer, or replaced on purpose
(undo and redo), are bound there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from app_model.types import KeyBinding, KeyCode

from napari_cfrseg.annotation.events import OverlapRule
from napari_cfrseg.engine.refinement import DEFAULT_REFINEMENT, Refinement
from napari_cfrseg.gui.dock_widget import on_current
from napari_cfrseg.gui.segment.resting_pointer import Resting

if TYPE_CHECKING:
    from napari_cfrseg.gui.segment.controller import Controller

PLUGIN = "napari-cfrseg"


@dataclass(frozen=True, slots=True)
class KeyAction:
    """A key and what it does.

    Preferences keep another key under ``name``; ``key`` is as napari writes it, and
    ``layers`` are the controller's layers on which it is free; none: it is a key of the
    canvas, which napari does not get. ``at_once``: also while a session is being
    reopened.
    """

    name: str
    key: str
    text: str
    run: Callable[[Controller], None]
    layers: tuple[str, ...] = ("clicks", "labels", "image")
    at_once: bool = False


_NO_IMAGE, _NO_LABELS = ("clicks", "labels"), ("clicks", "image")


ACTIONS = (
    KeyAction(
        "polarity",
        "T",
        "swap what the mouse buttons mean",
        lambda c: c.toggle_polarity(),
    ),
    KeyAction("new_object", "N", "next object", lambda c: c.new_object()),
    # C is an image's contrast
    KeyAction("other_mask", "C", "another mask", lambda c: c.other_mask(), _NO_IMAGE),
    KeyAction(
        "mask_before",
        "Shift-C",
        "the mask before",
        lambda c: c.other_mask(-1),
        _NO_IMAGE,
    ),
    # brush sizes on Labels
    KeyAction(
        "outline_wider", "[", "outline wider", lambda c: c.tighten(-0.05), _NO_LABELS
    ),
    KeyAction(
        "outline_tighter", "]", "outline tighter", lambda c: c.tighten(0.05), _NO_LABELS
    ),
    KeyAction("pick", "G", "select the object pointed at", lambda c: c.edits.pick()),
    # M and X are keys of Labels
    KeyAction(
        "merge",
        "M",
        "merge the object pointed at with the selected one",
        lambda c: c.edits.merge_pointed(),
        _NO_LABELS,
    ),
    KeyAction(
        "split",
        "X",
        "split off the part pointed at",
        lambda c: c.edits.split_pointed(),
        _NO_LABELS,
    ),
    # F fills on Labels
    KeyAction(
        "suggest", "F", "suggest objects", lambda c: c.suggestions.start(), _NO_LABELS
    ),
    KeyAction(
        "reject",
        "Delete",
        "reject a suggestion",
        lambda c: c.edits.reject(),
        ("clicks",),
    ),
    KeyAction(
        "reject_all",
        "Shift-Delete",
        "reject all suggestions",
        lambda c: c.suggestions.reject_all(),
    ),
    KeyAction("undo", "Control-Z", "undo", lambda c: c.undo()),
    KeyAction("redo", "Control-Shift-Z", "redo", lambda c: c.redo()),
    KeyAction("reset_object", "R", "reset object", lambda c: c.reset_object()),
    KeyAction(
        "closer", "Q", "it is a smaller structure", lambda c: c.steps.shift_focus(-1)
    ),
    # E is the eraser on Labels
    KeyAction(
        "wider",
        "E",
        "it is a larger structure",
        lambda c: c.steps.shift_focus(+1),
        _NO_LABELS,
    ),
    KeyAction("forward", "D", "propagate forward", lambda c: c.stack.forward()),
    KeyAction("both", "Shift-D", "propagate both ways", lambda c: c.stack.both()),
    KeyAction(
        "cancel",
        "Escape",
        "cancel the click being computed",
        lambda c: c.cancel_pending(),
        _NO_LABELS,
        at_once=True,
    ),
    KeyAction("help", "F1", "show all keys", lambda c: c.show_keys(), at_once=True),
    # Qt keeps Tab from napari, and napari does not know ?
    KeyAction("other_mask_too", "Tab", "another mask", lambda c: c.other_mask(), ()),
    KeyAction(
        "mask_before_too",
        "Shift-Tab",
        "the mask before",
        lambda c: c.other_mask(-1),
        (),
    ),
    KeyAction("help_too", "?", "show all keys", lambda c: c.show_keys(), (), True),
)


@dataclass(frozen=True, slots=True)
class Preferences:
    """Where a dock starts from; ``keys`` are by action name.

    ``problems`` say which keys cannot be used as they were chosen.
    """

    model: str = "default"
    device: str = "auto"
    precision: str = "float32"
    refinement: Refinement = DEFAULT_REFINEMENT
    rule: OverlapRule = OverlapRule.KEEP
    threshold: float = 0.5
    resting: Resting = Resting.PREPARE
    auto_next: bool = True
    unfolded: tuple[str, ...] = ("stack",)
    keys: dict[str, str] = field(
        default_factory=lambda: {action.name: action.key for action in ACTIONS}
    )
    problems: tuple[str, ...] = ()

    def say_problems(self, tell: Callable[[str, str], None]) -> None:
        """Tell (level, message), where there are any."""
        if self.problems:
            tell("warning", f"Preferences → CFR-Seg: {'; '.join(self.problems)}.")

    @classmethod
    def load(cls) -> Preferences:
        """Read them from napari; defaults on a napari without plugin settings."""
        try:
            from napari.settings import get_plugin_settings

            settings = get_plugin_settings(PLUGIN)
        except (ImportError, KeyError):
            return cls()
        click, keys = settings.click, settings.keys
        kind = str(click.refinement)
        steps = 0 if kind == "standard" else int(click.steps)
        usable, problems = usable_keys(
            {action.name: str(getattr(keys, action.name)) for action in ACTIONS}
        )
        return cls(
            model=str(click.model),
            device=str(click.device).strip() or "auto",
            precision=str(click.precision),
            refinement=Refinement(
                "cfr" if kind == "cfr" else "a-cfr" if kind == "a-cfr" else "standard",
                steps,
                int(click.changed_px),
            ),
            rule=OverlapRule(str(click.overlap)),
            threshold=float(click.threshold),
            resting=Resting(str(click.resting)),
            auto_next=bool(click.auto_next),
            unfolded=tuple(str(click.unfolded).split(",")),
            keys=usable,
            problems=problems,
        )


def usable_keys(chosen: Mapping[str, str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the keys of all actions as napari knows them, and what is wrong.

    An action whose key is none, several, or empty, keeps its default; of two with one
    key only the latter is bound.
    """
    keys: dict[str, str] = {}
    problems: list[str] = []
    owners: dict[str, str] = {}
    for action in ACTIONS:
        said = re.sub(
            r"\bDel$", "Delete", re.sub(r"\bEsc$", "Escape", chosen[action.name])
        )
        parts = KeyBinding.from_str(said).parts if said.strip() else []
        is_key = len(parts) < 2 and all(
            part.key != KeyCode.UNKNOWN and not part.is_modifier_key() for part in parts
        )
        is_key |= not action.layers and len(said.strip()) == 1  # Qt knows it
        if not is_key:
            default = shown_key({action.name: action.key}, action.name)
            problems.append(f"“{said}” is no key: “{action.text}” keeps {default}")
        keys[action.name] = said if parts and is_key else action.key
        key = keys[action.name]
        other = owners.setdefault(str(KeyBinding.from_str(key)) or key, action.text)
        if other != action.text:
            key = shown_key(keys, action.name)
            problems.append(f"{key} is the key of “{other}” and of “{action.text}”")
    return keys, tuple(problems)


def remember_unfolded(names: Iterable[str]) -> None:
    """Let the next dock begin with these sections unfolded, where napari keeps that."""
    with suppress(ImportError, KeyError):
        from napari.settings import get_plugin_settings

        get_plugin_settings(PLUGIN).click.unfolded = ",".join(names)


def shown_key(keys: dict[str, str], name: str) -> str:
    """Return an action's key as a person reads it."""
    key = keys[name].replace("Control", "Ctrl").replace("Escape", "Esc")
    return key.replace("-", "+")


def bind_keys(
    controller: Controller, keys: dict[str, str] | None = None
) -> Callable[[], None]:
    """Bind every action on the controller's layers; return what unbinds them.

    ``keys`` are by action name, where they differ from the table.
    """
    bound: list[tuple[Any, str]] = []
    chosen = {a.name: (keys or {}).get(a.name) or a.key for a in ACTIONS}
    controller.join_key = shown_key(chosen, "merge")
    for action in ACTIONS:
        key = chosen[action.name]
        act = on_current(lambda: controller, action.run, at_once=action.at_once)
        for name in action.layers:
            layer = getattr(controller, name).layer
            layer.bind_key(key, lambda _, a=act: a(), overwrite=True)
            bound.append((layer, key))

    def unbind() -> None:
        for layer, key in bound:
            layer.bind_key(key, None)

    return unbind
