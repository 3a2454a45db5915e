"""Room (f) in Shiny: the browser reads the file and sends it as text; it stays in the memory of its session."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl

import pandas as pd
from shiny import Inputs, Outputs, Session, reactive, render, ui

from hierlmm.app import own_data
from hierlmm.app.page import Parts
from hierlmm.app.room import paragraph, say
from hierlmm.app.threads import in_thread, kept
from hierlmm.datasets.catalogue import load_dataset
from hierlmm.errors import DataError, HierlmmError

LABELS = {"subject": "Subject", "time": "Time", "outcome": "Outcome"}
UNBOUND = {"data-shiny-no-bind-input": ""}
"""Shiny itself would send the file to be stored."""
PARTS = Parts(
    above=ui.tags.div(
        ui.tags.label("Your table (CSV)", {"for": "own_data_file"}),
        ui.tags.input(
            id="own_data_file", type="file", accept=".csv,.tsv,.txt", data_most=str(own_data.MOST_BYTES), **UNBOUND
        ),
        ui.output_ui("own_data_opened"),
        class_="control",
    ),
    below=ui.output_ui("own_data_columns"),
)
EMPTY: Mapping[str, Any] = {"name": "", "frame": None, "refused": ""}


def serve_own_data(values: Callable[[], Mapping[str, Any]], input: Inputs, output: Outputs, session: Session) -> None:
    """Connect the room.

    Parameters
    ----------
    values : callable
        Present settings; a reactive calculation.
    input, output, session
        Of Shiny.
    """
    with reactive.isolate():
        asked = dict(parse_qsl(str(session.clientdata.url_search()).removeprefix("?")))

    @reactive.extended_task
    async def reading(sent: Any) -> dict[str, Any]:
        return await in_thread(_table_of, sent)

    read = kept(reading)

    @reactive.effect
    @reactive.event(input.own_data_sent)
    def _read() -> None:
        reading.invoke(input.own_data_sent())

    def opened() -> Mapping[str, Any]:
        return read() or EMPTY

    @reactive.calc
    def frame() -> pd.DataFrame:
        own = opened()["frame"]
        return load_dataset(values()["example"]) if own is None else own

    @reactive.calc
    def columns() -> dict[str, str]:
        given = {role: input[f"own_data_{role}"]() for role in own_data.ROLES if f"own_data_{role}" in input}
        return own_data.chosen_columns(frame(), given or asked)

    _controls(output, opened, frame, asked)
    _results(output, values, opened, frame, columns)


def _table_of(sent: Any) -> dict[str, Any]:
    """What was sent, as a table or as a refusal."""
    name = str(sent.get("name", "")) if isinstance(sent, dict) else ""
    if not name:
        return dict(EMPTY)
    try:
        content = base64.b64decode(sent["content"], validate=True)
        source = own_data.read_table(name, content, int(sent.get("size", 0)))
    except HierlmmError as error:
        return {**EMPTY, "name": name, "refused": own_data.refusal(error)}
    except (KeyError, TypeError, ValueError, binascii.Error):
        return dict(EMPTY)
    return {**EMPTY, "name": name, "frame": source.frame}


def _controls(output: Outputs, opened: Any, frame: Callable[[], pd.DataFrame], asked: Mapping[str, str]) -> None:
    @output
    @render.ui
    def own_data_opened() -> Any:
        now = opened()
        if now["frame"] is None:
            return ui.HTML(now["refused"] or paragraph(say("own_data.example"), "hint"))
        rows, columns = now["frame"].shape
        return ui.HTML(paragraph(say("own_data.opened", name=now["name"], rows=rows, columns=columns), "hint"))

    @output
    @render.ui
    def own_data_columns() -> Any:
        known = own_data.chosen_columns(frame(), asked)
        return ui.tags.div(
            *(_select(role, list(map(str, frame().columns)), known[role]) for role in own_data.ROLES), class_="columns"
        )


def _select(role: str, columns: list[str], chosen: str) -> Any:
    key = f"own_data_{role}"
    options = [ui.tags.option(name, value=name, selected="" if name == chosen else None) for name in columns]
    look: dict[str, Any] = {
        "id": key,
        "data-name": role,
        "data-default": chosen,
        "class": "setting form-select form-select-sm",
    }
    return ui.tags.div(ui.tags.label(LABELS[role], {"for": key}), ui.tags.select(look, *options), class_="control")


def _results(
    output: Outputs,
    values: Callable[[], Mapping[str, Any]],
    opened: Any,
    frame: Callable[[], pd.DataFrame],
    columns: Callable[[], dict[str, str]],
) -> None:
    @reactive.extended_task
    async def fitting(table: pd.DataFrame, names: dict[str, str], random: str) -> str:
        def work() -> str:
            try:
                return own_data.show(own_data.fit_table(table, names, random))
            except HierlmmError as error:
                return own_data.refusal(error, names)
            except Exception as error:  # a table that nobody thought of must not end the session
                reason = f"its fit failed in a way that was not foreseen ({type(error).__name__})"
                remedy = "try other columns, or an intercept only; hierlmm fit FILE FORMULA --debug shows where"
                return own_data.refusal(DataError("this table", reason, remedy, own_data.SEE), names)

        return await in_thread(work)

    @reactive.effect
    def _refit() -> None:
        fitting.cancel()
        fitting.invoke(frame(), columns(), values()["random"])

    fitted = kept(fitting)

    @output
    @render.ui
    def own_data_view() -> Any:
        return ui.HTML(fitted() or "")

    @output
    @render.code
    def own_data_code() -> str:
        file = opened()["name"] if opened()["frame"] is not None else ""
        return own_data.ROOM.code({**values(), "file": file, "columns": columns()})
