"""The rooms in Shiny: a session is one browser's settings, which become pages; nothing of it is kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shiny import App, Inputs, Outputs, Session, reactive, render, ui

from hierlmm.app import hierarchy, negative_icc, shrinkage, two_meanings
from hierlmm.app.page import page
from hierlmm.app.room import Room

ROOMS: tuple[Room, ...] = (hierarchy.ROOM, shrinkage.ROOM, negative_icc.ROOM, two_meanings.ROOM)


def make_app() -> App:
    """The app, to be served."""
    return App(lambda request: page(ROOMS, {}, dict(request.query_params)), _server)


def settings_of(room: Room, input: Inputs) -> dict[str, Any]:
    """Possible values of the settings, whatever the browser sent."""
    return room.read({one.name: input[f"{room.name}_{one.name}"]() for one in room.settings})


def _server(input: Inputs, output: Outputs, session: Session) -> None:
    for room in ROOMS:
        _plain(room, input, output)


def _plain(room: Room, input: Inputs, output: Outputs) -> None:
    """A room whose page follows from its settings alone."""

    @reactive.calc
    def values() -> Mapping[str, Any]:
        return settings_of(room, input)

    @output(id=f"{room.name}_view")
    @render.ui
    def view() -> Any:
        return ui.HTML(room.show(room.numbers(**values())))

    @output(id=f"{room.name}_code")
    @render.code
    def code() -> str:
        return room.code(values())
