"""Room (b) in Shiny: the study at once, its fits a moment later, NUTS and many studies when asked, all in threads."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple

from shiny import Inputs, Outputs, Session, reactive, render, ui

from hierlmm.app import study
from hierlmm.app.page import Parts
from hierlmm.app.room import named, paragraph, say
from hierlmm.app.threads import in_thread, kept

PARTS = Parts(
    below=ui.tags.div(
        ui.input_action_button("study_nuts", "Fit by NUTS", class_="btn-sm btn-primary"),
        ui.input_action_button("study_repeat", f"Repeat {study.REPETITIONS} times", class_="btn-sm btn-primary"),
        ui.input_action_button("study_stop", "Stop", class_="btn-sm"),
        ui.tags.progress(id="study_progress", value="0", max=str(study.REPETITIONS), aria_label="Studies done"),
        ui.tags.output("", id="study_progress_text", role="status"),
        class_="buttons",
    ),
    after=ui.tags.div(ui.output_ui("study_fits"), ui.output_ui("study_nuts_text"), ui.output_ui("study_repeated")),
)


@cache
def _warm() -> None:
    """Load the sampler beside what goes on, so that the first NUTS is as fast as the next."""
    if sys.platform != "emscripten":
        threading.Thread(target=study.warm, daemon=True).start()


type Values = Callable[[], Mapping[str, Any]]


class Tasks(NamedTuple):
    """Work that goes on while the page can be used."""

    fitting: Any
    sampling: Any
    repeating: Any


def serve_study(values: Values, input: Inputs, output: Outputs, session: Session) -> None:
    """Connect the room.

    Parameters
    ----------
    values : callable
        Present settings; a reactive calculation.
    input, output, session
        Of Shiny.
    """
    stopped = threading.Event()
    session.on_ended(stopped.set)
    tasks = _tasks(session, stopped)
    _started(tasks, stopped, values, input)
    _shown(tasks, values, output)


def _tasks(session: Session, stopped: threading.Event) -> Tasks:
    @reactive.extended_task
    async def fitting(asked: Mapping[str, Any]) -> Any:
        _, data = study.draw(asked)
        fits = await in_thread(study.fit_all, data, asked["working"])
        _warm()
        return asked, fits

    @reactive.extended_task
    async def sampling(asked: Mapping[str, Any]) -> Any:
        _, data = study.draw(asked)
        start = time.perf_counter()
        fit = await in_thread(study.fit_nuts, data)
        return asked, fit, time.perf_counter() - start

    @reactive.extended_task
    async def repeating(asked: Mapping[str, Any]) -> Any:
        found: list[Any] = []
        for k in range(1, study.REPETITIONS + 1):
            found.append(await in_thread(study.repetition, asked, k))
            text = say("study.progress", done=k, all=study.REPETITIONS)
            await session.send_custom_message("hierlmm-progress", {"id": "study_progress", "value": k, "text": text})
            if stopped.is_set():
                break
        return asked, found

    return Tasks(fitting, sampling, repeating)


def _started(tasks: Tasks, stopped: threading.Event, values: Values, input: Inputs) -> None:
    """What starts and stops them: a change of the settings, and the buttons."""

    @reactive.effect
    def _refit() -> None:
        tasks.fitting.cancel()
        tasks.fitting.invoke(values())

    @reactive.effect
    @reactive.event(input.study_nuts)
    def _sample() -> None:
        tasks.sampling.cancel()
        tasks.sampling.invoke(values())

    @reactive.effect
    @reactive.event(input.study_repeat)
    def _repeat() -> None:
        if tasks.repeating.status() != "running":
            stopped.clear()
            tasks.repeating.invoke(values())

    @reactive.effect
    @reactive.event(input.study_stop)
    def _stop() -> None:
        stopped.set()


def _shown(tasks: Tasks, values: Values, output: Outputs) -> None:
    """What they found."""
    fitted, sampled, many = (kept(task) for task in tasks)

    @output
    @render.ui
    def study_fits() -> Any:
        if fitted() is None:
            return None
        asked, fits = fitted()
        if sampled() is not None and sampled()[0] == asked:
            fits = {**fits, "NUTS": sampled()[1]}
        return ui.tags.div(ui.HTML(study.show_fits(asked, fits)), data_settings=named(asked))

    @output
    @render.ui
    def study_nuts_text() -> Any:
        if tasks.sampling.status() == "running":
            return ui.HTML(paragraph(say("study.running")))
        if sampled() is None or sampled()[0] != values():
            return None
        _, fit, seconds = sampled()
        said = say("study.nuts", seconds=seconds)
        return ui.HTML("".join(paragraph(text) for text in (said, *fit.warnings)))

    @output
    @render.ui
    def study_repeated() -> Any:
        if many() is None:
            return None
        asked, found = many()
        note = paragraph(say("study.earlier")) if asked != values() else ""
        return ui.HTML(note + study.show_repeated(asked, found))
