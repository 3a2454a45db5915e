"""Response times of the teaching app, from the browser's side: what a user waits for after moving a slider.

    .venv/bin/python benchmarks/app.py [--moves 40]

Each move sets a slider to another value; the time is from its event to the page that belongs to the new value, both in
the browser. REML refit: the fits of the room of studies, from the event to their table. NUTS: from the click to its
column. Needs the Chromium of the machine, and playwright (the extra ``test``).
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from typing import Any

import numpy as np
from playwright.sync_api import sync_playwright

SLIDERS = {
    "hierarchy": ("sd_slope", 0.05, 1.0, 0.05),
    "study": ("slope", 0.0, 1.0, 0.05),
    "negative_icc": ("icc", -0.3, 0.9, 0.05),
    "two_meanings": ("sd", 0.0, 5.0, 0.1),
}
MOVE = """([room, name, value, view]) => new Promise((done) => {
  const field = document.getElementById(`${room}_${name}`), place = document.getElementById(view);
  const wanted = `[data-settings*="${name}=${value};"]`, start = performance.now();
  const seen = () => {
    if (!place.querySelector(wanted)) return;
    watch.disconnect();
    requestAnimationFrame(() => done(performance.now() - start));
  };
  const watch = new MutationObserver(seen);
  watch.observe(place, { childList: true, subtree: true });
  field.value = value;
  field.dispatchEvent(new Event("input", { bubbles: true }));
})"""
DRAG = """(k) => new Promise((done) => {
  const place = document.getElementById("shrinkage_view"), start = performance.now();
  const watch = new MutationObserver(() => {
    watch.disconnect();
    requestAnimationFrame(() => done(performance.now() - start));
  });
  watch.observe(place, { childList: true, subtree: true });
  const key = k % 20 < 10 ? "ArrowUp" : "ArrowDown";
  place.querySelector(".handle").dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
})"""
NUTS = """() => new Promise((done) => {
  const place = document.getElementById("study_nuts_text"), start = performance.now();
  const seen = () => /chains/.test(place.textContent) && (watch.disconnect(), done(performance.now() - start));
  const watch = new MutationObserver(seen);
  place.textContent = "";
  watch.observe(place, { childList: true, subtree: true });
  document.getElementById("study_nuts").click();
})"""


def report(name: str, times: list[float]) -> None:
    """Median, 95th percentile and maximum in milliseconds."""
    median, high = np.percentile(times, [50, 95])
    print(f"{name:<42} {median:7.0f} {high:7.0f} {max(times):7.0f}   ({len(times)})")


def measure(page: Any, moves: int) -> None:
    """Move, and print."""
    print(f"{'milliseconds':<42} {'median':>7} {'95 %':>7} {'max':>7}")
    for room, (name, low, high, step) in SLIDERS.items():
        go(page, room)
        values = np.random.default_rng(1).permutation(np.arange(low, high + step / 2, step))
        values = [f"{v:g}" for v in np.round(np.resize(values, moves), 10) + 0.0]
        times = [page.evaluate(MOVE, [room, name, v, f"{room}_view"]) for v in values]
        report(f"{room}, slider to picture", times[1:])
    go(page, "shrinkage")
    report("shrinkage, point to picture (REML refit)", [page.evaluate(DRAG, k) for k in range(moves)][1:])
    go(page, "study")
    times = [
        page.evaluate(MOVE, ["study", "sigma", f"{v:g}", "study_fits"]) for v in np.linspace(0.5, 1.4, 10).round(1)
    ]
    report("study, slider to REML, ML, GEE and GLS", times[1:])
    page.wait_for_timeout(3000)  # the sampler is loaded beside the first fits
    report("study, click to NUTS", [page.evaluate(NUTS) for _ in range(5)])


def go(page: Any, room: str) -> None:
    """Open a room."""
    page.locator(f"a[data-value={room}]").click()
    page.wait_for_selector(f"#{room}_view .chart")
    page.wait_for_timeout(500)


def main() -> None:
    """Serve the app, drive it, and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--moves", type=int, default=40)
    moves = parser.parse_args().moves
    command = [sys.executable, "-m", "hierlmm", "app", "--port", "0", "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server, sync_playwright() as playwright:
        assert server.stdout is not None
        address = re.search(r"http://\S+/", server.stdout.readline())
        assert address is not None
        path = shutil.which("chromium") or shutil.which("chromium-browser")
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(address.group())
        measure(page, moves)
        browser.close()
        server.terminate()


if __name__ == "__main__":
    main()
