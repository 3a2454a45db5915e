"""The page of the app: a navigation bar of rooms, each with its controls, pictures, questions and code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from shiny import ui

from hierlmm.app.room import Room
from hierlmm.app.settings import Choice, Number, Setting
from hierlmm.drawing.theme import DARK, LIGHT


class Parts(NamedTuple):
    """What a room has besides its settings and its picture."""

    above: Any = None
    below: Any = None
    after: Any = None


STATIC = Path(__file__).with_name("static")


def page(rooms: Sequence[Room], parts: Mapping[str, Parts], given: Mapping[str, str]) -> Any:
    """The whole page, with the settings of an address.

    Parameters
    ----------
    rooms : sequence of Room
    parts : mapping
        Name of a room -> its own controls, above and below its sliders, and what stands below its picture.
    given : mapping
        The query of the address: ``room``, and settings of that room by name.
    """
    names = [room.name for room in rooms]
    chosen = given.get("room", "")
    chosen = chosen if chosen in names else names[0]
    panels = [
        _panel(room, room.read(given if room.name == chosen else {}), parts.get(room.name, Parts())) for room in rooms
    ]
    return ui.page_navbar(
        *panels,
        ui.nav_spacer(),
        ui.nav_control(ui.input_dark_mode(id="mode", aria_label="Light or dark")),
        id="room",
        selected=chosen,
        title="hierlmm",
        window_title="hierlmm: hierarchical and marginal models",
        lang="en",
        header=_head(),
    )


def _head() -> Any:
    colours = "".join(f"--c{k}: {colour};" for k, colour in enumerate(LIGHT))
    dark = "".join(f"--c{k}: {colour};" for k, colour in enumerate(DARK))
    own = f":root {{{colours}}} [data-bs-theme=dark] {{{dark}}}\n"
    style, script = ((STATIC / name).read_text(encoding="utf-8") for name in ("app.css", "app.js"))
    return ui.head_content(
        ui.tags.style(own + style), ui.tags.script(ui.HTML(script)), ui.tags.link(rel="icon", href="data:,")
    )


def _panel(room: Room, values: Mapping[str, Any], own: Parts) -> Any:
    texts = room.texts
    controls = [_control(room, one, values[one.name]) for one in room.settings]
    reset = ui.tags.button("Back to the start", type="button", class_="btn btn-sm btn-outline-secondary reset")
    return ui.nav_panel(
        texts["title"],
        ui.tags.div(
            ui.tags.h1(texts["title"], class_="h3"),
            ui.tags.p(texts["lead"], class_="lead-text"),
            ui.tags.div(
                ui.tags.form(
                    own.above,
                    *controls,
                    own.below,
                    reset,
                    class_="controls",
                    data_room=room.name,
                    onsubmit="return false",
                ),
                ui.tags.div(ui.output_ui(f"{room.name}_view"), own.after, class_="view"),
                class_="desk",
            ),
            _questions(texts),
            ui.tags.details(
                ui.tags.summary("The code for this picture"),
                ui.output_code(f"{room.name}_code", placeholder=False),
                class_="code",
            ),
            class_="room",
            id=f"room-{room.name}",
        ),
        value=room.name,
    )


def _control(room: Room, one: Setting, value: Any) -> Any:
    """A slider, a list, or the hidden place of points."""
    key = f"{room.name}_{one.name}"
    common = {"id": key, "data-name": one.name, "class": "setting"}
    if isinstance(one, Number):
        shown = ui.tags.output(f"{value:g}", {"for": key})
        numbers = {"min": f"{one.low:g}", "max": f"{one.high:g}", "step": f"{one.step:g}", "value": f"{value:g}"}
        slider = ui.tags.input({**common, **numbers, "type": "range", "data-default": f"{one.default:g}"})
        return ui.tags.div(ui.tags.label(one.label, {"for": key}), shown, slider, class_="control")
    if isinstance(one, Choice):
        options = [
            ui.tags.option(text, value=name, selected="" if name == value else None)
            for name, text in one.options.items()
        ]
        chosen = ui.tags.select(
            {**common, "class": "setting form-select form-select-sm", "data-default": one.default}, *options
        )
        return ui.tags.div(ui.tags.label(one.label, {"for": key}), chosen, class_="control")
    text = ",".join(f"{v:g}" for v in value)
    return ui.tags.input({**common, "type": "hidden", "value": text, "data-default": ""})


def _questions(texts: Mapping[str, Any]) -> Any:
    items = [
        ui.tags.li(ui.tags.details(ui.tags.summary(question), ui.tags.p(answer)))
        for question, answer in zip(texts["questions"], texts["answers"], strict=True)
    ]
    return ui.tags.section(ui.tags.h2("Questions for the class", class_="h5"), ui.tags.ol(*items), class_="questions")
