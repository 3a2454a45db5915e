"""The app in a real browser: every room, both ends of every slider, files good and bad, two users, links, the keyboard.

It takes the Chromium of the machine (``apt-get install chromium``) and downloads none.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

import hierlmm as hl
from hierlmm.app import hierarchy, negative_icc, own_data, shrinkage, study, two_meanings
from hierlmm.app.settings import Number

sync_api = pytest.importorskip("playwright.sync_api", reason="the browser is driven by playwright (the extra 'test')")
pytest.importorskip("shiny", reason="the app needs shiny (the extra 'app')")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
# A browser is a package of the system, which `make` does not install: without one these say why they did not run, and
# the numbers of the rooms are tested without a browser (test_rooms.py, test_study.py, test_own_data.py).
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium (apt-get install chromium)"),
]
ROOMS = [room.ROOM for room in (hierarchy, study, shrinkage, negative_icc, two_meanings, own_data)]
GOOD = "id,week,weight\n" + "\n".join(
    f"{i},{t},{20 + i % 3 + 2 * t + (i * 7 + t * 3) % 5 / 4}" for i in range(12) for t in range(4)
)
EVIL = GOOD.replace("week", "<img src=x onerror=alert(1)>").replace("weight", "=1+1|`y`")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The address of the app in a process of its own, and the folder of its temporary files."""
    folder = tmp_path_factory.mktemp("temporary")
    command = [sys.executable, "-m", "hierlmm", "app", "--port", "0", "--no-browser"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(folder)})
    yield re.search(r"http://\S+/", process.stdout.readline()).group(), folder
    process.terminate()
    process.communicate(timeout=60)


@pytest.fixture(scope="module")
def chromium():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def visit(server, chromium):
    """Open the app at a query; what the console, the page or the network should not show is kept in ``visit.wrong``."""
    wrong = []

    def opened(query=""):
        page = chromium.new_context(viewport={"width": 1280, "height": 900}).new_page()
        page.on("console", lambda m: wrong.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: (wrong.append(f"dialog {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda r: None if r.url.startswith((server[0], "data:")) else wrong.append(r.url))
        page.goto(server[0] + query)
        page.wait_for_selector(".tab-pane.active .chart", timeout=60_000)
        return page

    opened.wrong = wrong
    return opened


@pytest.fixture(scope="module")
def first(visit):
    return visit()


@pytest.fixture
def page(first, visit):
    """One page for many tests: loading it takes most of the time."""
    yield first
    assert not first.locator(".shiny-output-error").count()
    assert not visit.wrong


def go(page, room):
    page.get_by_role("tab", name=room.texts["title"]).click()
    page.wait_for_selector(f"#{room.name}_view .chart")


def put(page, room, **values):
    """Set controls, and wait for the page that belongs to them."""
    for name, value in values.items():
        page.locator(f"#{room.name}_{name}").evaluate(
            "(e, v) => { e.value = v; e.dispatchEvent(new Event('input', {bubbles: true})); }", str(value)
        )
    reached(page, room, **values)


def reached(page, room, **values):
    if room is not own_data.ROOM:
        wanted = "".join(f'[data-settings*="{k}={v};"]' for k, v in values.items())
        page.wait_for_selector(f"#{room.name}_view {wanted}", state="attached")


def until(page, seen):
    """Wait until something holds."""
    for _ in range(400):
        if seen():
            return
        page.wait_for_timeout(50)
    raise AssertionError("it never came")


def cells(page, selector):
    """Texts of a table, by row heading."""
    rows = page.locator(f"{selector} tbody tr").all()
    return {row.locator("th").inner_text(): row.locator("td").all_inner_texts() for row in rows}


def send(page, name, content):
    page.set_input_files("#own_data_file", {"name": name, "mimeType": "text/csv", "buffer": content})


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_every_slider_goes_to_both_ends(page, room):
    """By the keyboard, in a room that is reached by a click; the address follows, and goes back."""
    go(page, room)
    for one in room.settings:
        field = page.locator(f"#{room.name}_{one.name}")
        if isinstance(one, Number):
            for key, value in (("End", one.high), ("Home", one.low)):
                field.press(key)
                assert float(field.input_value()) == pytest.approx(value)
                assert page.locator(f"output[for={room.name}_{one.name}]").inner_text() == f"{value:g}"
                reached(page, room, **{one.name: f"{value:g}"})
        elif field.is_visible():
            for option in list(one.options)[:4][::-1]:
                field.select_option(option)
                reached(page, room, **{one.name: option})
        assert not page.locator(".tab-pane.active .shiny-output-error").count(), one.name
    page.locator(".tab-pane.active .reset").click()
    page.wait_for_function(f"location.search === '?room={room.name}'")
    page.locator(".tab-pane.active details.code summary").click()
    page.wait_for_function(f"document.getElementById('{room.name}_code').textContent.includes('hierlmm')")


def test_numbers_are_those_of_the_package(page):
    room, given = hierarchy.ROOM, {"sd_slope": 0.5, "visits": 3, "errors": "ar1"}
    go(page, room)
    put(page, room, **given)
    found = room.numbers(**room.read(given))
    shown = page.locator("#hierarchy_view svg", has_text="V of one subject").locator("text.cell").all_text_contents()
    assert shown == [format(v, ".3g") for v in found.V.ravel()]
    go(page, negative_icc.ROOM)
    put(page, negative_icc.ROOM, icc=0.5)
    table = negative_icc.ROOM.numbers(**negative_icc.ROOM.read({"icc": 0.5})).table
    rows = cells(page, "#negative_icc_view table")
    for name in table.index:
        np.testing.assert_allclose([float(v) for v in rows[name]], table.loc[name].to_numpy(), rtol=2e-3)
    go(page, two_meanings.ROOM)
    put(page, two_meanings.ROOM, sd=3)
    slope = two_meanings.numbers(**two_meanings.ROOM.read({"sd": 3})).marginal_slope
    assert float(cells(page, "#two_meanings_view table")["for the mean (marginal)"][0]) == pytest.approx(
        slope, rel=1e-3
    )


def test_a_point_is_moved_by_keys_and_by_hand(page):
    room, start = shrinkage.ROOM, hl.load_dataset("dental").query("subject == 3")["distance"].to_numpy()
    go(page, room)
    put(page, room, child="3")
    handle = page.locator(".handle[data-k='3']")
    handle.focus()
    for _ in range(4):
        page.keyboard.press("ArrowUp")
    moved = (*start[:3].tolist(), float(start[3]) + 1.0)
    reached(page, room, points=moved)
    # Also after the picture was drawn anew.
    until(page, lambda: handle.evaluate("element => element === document.activeElement"))

    def check(points):
        rows, wanted = cells(page, "#shrinkage_view table"), shrinkage.numbers(child="3", points=points).own
        shown = [[float(v) for v in rows[kind]] for kind in wanted.index]
        np.testing.assert_allclose(shown, wanted, atol=6e-4)

    check(moved)
    box = page.locator(".handle[data-k='0']").bounding_box()
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0], middle[1] - 60, steps=6)
    page.mouse.up()
    points = room.read({"points": page.locator("#shrinkage_points").input_value()})["points"]
    assert points[0] > start[0] + 2 and points[1:] == moved[1:]
    reached(page, room, points=points)
    check(points)


def test_a_study_is_fitted_sampled_and_repeated(page):
    room, given = study.ROOM, {"subjects": 20, "visits": 4, "seed": 3}
    values = room.read(given)
    go(page, room)
    put(page, room, **given)
    page.wait_for_selector("#study_fits [data-settings*='subjects=20;visits=4;'][data-settings*='seed=3;']")
    found = study.fit_all(study.draw(values)[1], values["working"])
    shown = [float(v) for v in cells(page, "#study_fits table")["slope"][1:]]
    np.testing.assert_allclose(shown, [fit.beta["time"] for fit in found.values()], atol=6e-4)
    page.click("#study_nuts")
    page.wait_for_selector("#study_fits td:nth-child(7)", timeout=120_000)
    nuts = float(cells(page, "#study_fits table")["slope"][5])
    assert abs(nuts - found["REML"].beta["time"]) < found["REML"].beta_se["time"]
    page.click("#study_repeat")
    page.wait_for_function("document.getElementById('study_progress').value >= 5")
    page.click("#study_stop")
    page.wait_for_selector("#study_repeated table")
    done = int(page.locator("#study_repeated caption").inner_text().split()[0])
    assert 5 <= done < study.REPETITIONS
    wanted = study.repeated(values, [study.repetition(values, k) for k in range(1, done + 1)])
    bias = [float(v) for v in cells(page, "#study_repeated table")["bias of the slope"]]
    assert bias == pytest.approx(list(wanted["bias"]), abs=6e-4)


BAD = {
    "big.csv": (None, "200.0 MB"),
    "bomb.csv": (b"PK\x03\x04" + bytes(range(256)), "not text"),
    "page.csv": (b"<html><script>alert(1)</script></html>", "one column only"),
    "empty.csv": (b"", "empty"),
    "numbers.csv": (b"1,2,3\n4,5,6\n", "holds numbers"),
}


def test_files_good_and_bad(page, server, tmp_path):
    go(page, own_data.ROOM)
    for name, (content, reason) in BAD.items():
        (tmp_path / name).write_bytes(content or b"")
        if content is None:
            os.truncate(tmp_path / name, 200_000_000)
        page.set_input_files("#own_data_file", tmp_path / name)
        page.wait_for_selector(f"#own_data_opened .refusal:has-text({reason!r})")
    for text in (GOOD, EVIL):
        send(page, f"<b>{len(text)}.csv", text.encode())
        page.wait_for_selector(f"#own_data_opened:has-text('{len(text)}.csv, 48 rows')")
        frame = own_data.read_table("t.csv", text.encode()).frame
        names = own_data.guess_columns(frame)
        fit = own_data.fit_table(frame, names, "slopes").fits["REML"]
        page.wait_for_selector(f"#own_data_view th:text('REML: slope of {names['time']}')")
        shown = float(cells(page, "#own_data_view table")["REML: intercept"][0])
        assert shown == pytest.approx(fit.beta["Intercept"], rel=1e-3)
        assert not page.locator("#own_data_view img, #own_data_columns img, #own_data_opened b").count()
    page.select_option("#own_data_time", "id")
    page.wait_for_selector("#own_data_view .refusal:has-text('its own column')")
    page.locator(".tab-pane.active .reset").click()
    page.wait_for_selector("#own_data_opened:has-text('No file is open')")
    # Nothing of what was sent lies anywhere.
    assert not [path for path in server[1].rglob("*") if path.is_file()]


def test_two_at_once(page, visit):
    """One lets many studies run; the other meanwhile moves sliders and opens a file, and sees the own settings only."""
    go(page, study.ROOM)
    put(page, study.ROOM, subjects=25)
    other = visit("?room=own_data")
    page.click("#study_repeat")
    page.wait_for_function("document.getElementById('study_progress_text').textContent.startsWith('2 of')")
    send(other, "t.csv", GOOD.encode())
    other.wait_for_selector("#own_data_opened:has-text('t.csv, 48 rows')")
    go(other, hierarchy.ROOM)
    put(other, hierarchy.ROOM, visits=3)
    assert not page.locator("#study_repeated:has-text('200 studies')").count()
    page.click("#study_stop")
    assert page.locator("#study_subjects").input_value() == "25"
    go(page, own_data.ROOM)
    page.wait_for_selector("#own_data_opened:has-text('No file is open')")
    other.context.close()


def test_a_link_restores_and_impossible_values_do_no_harm(page, visit, server):
    go(page, negative_icc.ROOM)
    put(page, negative_icc.ROOM, icc=0.9, visits=2)
    page.wait_for_function("location.search.includes('icc=0.9') && location.search.includes('visits=2')")
    again = visit("?" + page.url.split("?")[1])
    assert [again.input_value(f"#negative_icc_{name}") for name in ("icc", "visits", "sd")] == ["0.9", "2", "1"]
    wild = "visits=999&sd_slope=abc&errors=%3Cscript%3Ealert(1)%3C/script%3E&sigma=nan&rho=-1e999&x=%00&%FF"
    again.goto(f"{server[0]}?room=hierarchy&{wild}")
    again.wait_for_selector("#hierarchy_view .chart")
    fields = ("visits", "sd_slope", "errors", "sigma", "rho")
    assert [again.input_value(f"#hierarchy_{f}") for f in fields] == ["8", "0.3", "independent", "1", "0.05"]
    again.goto(f"{server[0]}?room=shrinkage&child=99&points=1,2,nan,1e9")
    again.wait_for_selector("#shrinkage_view .chart")
    assert again.input_value("#shrinkage_child") == "15" and not again.input_value("#shrinkage_points")
    again.context.close()


def test_it_fits_a_telephone_and_goes_dark(page):
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    for room in ROOMS:
        go(page, room)
        page.set_viewport_size({"width": 400, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, room.name
        page.set_viewport_size({"width": 1280, "height": 900})
    page.get_by_label("Light or dark").click()
    page.wait_for_function(f"getComputedStyle(document.body).backgroundColor !== '{light}'")
    page.get_by_label("Light or dark").click()


def test_everything_has_a_name_and_is_reached_by_the_keyboard(page):
    for room in ROOMS:
        page.get_by_role("tab", name=room.texts["title"]).focus()
        page.keyboard.press("Enter")
        page.wait_for_selector(f"#{room.name}_view .chart")
        unnamed = page.locator(".tab-pane.active").evaluate(
            "pane => [...pane.querySelectorAll('input:not([type=hidden]), select, [role=slider], [role=img]')]"
            ".filter(e => !(e.labels && e.labels.length) && !e.getAttribute('aria-label')).map(e => e.outerHTML)"
        )
        assert not unnamed
        wanted = page.locator(".tab-pane.active").evaluate(
            "pane => [...pane.querySelectorAll('input:not([type=hidden]), select, button, summary, .handle')]"
            ".filter(e => e.offsetParent || e.classList.contains('handle')).length"
        )
        page.locator(".tab-pane.active").evaluate("pane => { pane.tabIndex = -1; pane.focus(); }")
        inside = 0
        for _ in range(wanted):
            page.keyboard.press("Tab")
            inside += page.evaluate("!!document.activeElement.closest('.tab-pane.active')")
        assert inside == wanted, room.name
