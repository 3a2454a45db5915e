"""The rooms in Shiny: a session is one browser's settings, which become pages; nothing of it is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from shiny import App, Inputs, Outputs, Session, reactive, render, ui

from hierlmm.app import hierarchy, negative_icc, own_data, own_data_live, shrinkage, study, study_live, two_meanings
from hierlmm.app.page import page
from hierlmm.app.room import Room, named
from hierlmm.errors import HierlmmError

ROOMS: tuple[Room, ...] = (
    hierarchy.ROOM,
    study.ROOM,
    shrinkage.ROOM,
    negative_icc.ROOM,
    two_meanings.ROOM,
    own_data.ROOM,
)
PARTS = {"study": study_live.PARTS, "own_data": own_data_live.PARTS}


def make_app() -> App:
    """The app, to be served."""
    return App(lambda request: page(ROOMS, PARTS, dict(request.query_params)), _server)


def _server(input: Inputs, output: Outputs, session: Session) -> None:
    settings = {room.name: _settings(room, input) for room in ROOMS}
    for room in ROOMS:
        if room.name not in PARTS:
            _page(room, settings[room.name], output)
        if room.name != "own_data":
            _code(room, settings[room.name], output)

    @output
    @render.ui
    def study_view() -> Any:
        values = settings["study"]()
        return ui.tags.div(ui.HTML(study.show_study(values, *study.draw(values))), data_settings=named(values))

    study_live.serve_study(settings["study"], input, output, session)
    own_data_live.serve_own_data(settings["own_data"], input, output, session)


def _settings(room: Room, input: Inputs) -> Callable[[], Mapping[str, Any]]:
    """Possible values of the settings, whatever the browser sent."""

    @reactive.calc
    def values() -> Mapping[str, Any]:
        return room.read({one.name: input[f"{room.name}_{one.name}"]() for one in room.settings})

    return values


def _page(room: Room, values: Callable[[], Mapping[str, Any]], output: Outputs) -> None:
    """A page that follows from the settings alone."""

    @output(id=f"{room.name}_view")
    @render.ui
    def view() -> Any:
        now = values()
        try:
            page = room.show(room.numbers(**now))
        except HierlmmError as error:
            page = own_data.refusal(error)
        return ui.tags.div(ui.HTML(page), data_settings=named(now))


def _code(room: Room, values: Callable[[], Mapping[str, Any]], output: Outputs) -> None:
    @output(id=f"{room.name}_code")
    @render.code
    def code() -> str:
        return room.code(values())
