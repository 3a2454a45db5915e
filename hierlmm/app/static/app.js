/* Controls of the rooms: plain elements of the browser, bound to Shiny; the address follows the settings. */
(function () {
  "use strict";
  const settings = (form) => Array.from(form.querySelectorAll(".setting"));
  const changed = (element) => element.dispatchEvent(new Event("input", { bubbles: true }));

  function showValue(element) {
    const output = element.parentElement.querySelector("output");
    if (output && element.type === "range") output.textContent = Number(element.value);
  }

  function address() {
    const panel = document.querySelector(".tab-pane.active .controls");
    if (!panel) return;
    const query = new URLSearchParams({ room: panel.dataset.room });
    for (const one of settings(panel))
      if (one.value !== one.dataset.default) query.set(one.dataset.name, one.value);
    history.replaceState(null, "", "?" + query);
  }
  let later = 0;
  function addressSoon() {
    clearTimeout(later);
    later = setTimeout(address, 150);
  }

  function bind() {
    class SettingBinding extends Shiny.InputBinding {
      find(scope) { return $(scope).find(".setting"); }
      getValue(element) { return element.value; }
      setValue(element, value) { element.value = value; showValue(element); }
      subscribe(element, callback) {
        $(element).on("input.setting change.setting", () => { showValue(element); addressSoon(); callback(true); });
      }
      unsubscribe(element) { $(element).off(".setting"); }
      getRatePolicy() { return { policy: "throttle", delay: 40 }; }
    }
    Shiny.inputBindings.register(new SettingBinding(), "hierlmm.setting");
    Shiny.addCustomMessageHandler("hierlmm-progress", ({ id, value, text }) => {
      document.getElementById(id).value = value;
      document.getElementById(id + "_text").textContent = text;
    });
  }
  if (window.Shiny && Shiny.InputBinding) bind();
  else document.addEventListener("DOMContentLoaded", bind);

  document.addEventListener("shown.bs.tab", address);
  document.addEventListener("click", (event) => {
    const button = event.target.closest(".reset");
    if (!button) return;
    for (const one of settings(button.form)) {
      one.value = one.dataset.default;
      changed(one);
    }
    const file = button.form.querySelector("input[type=file]");
    if (file && file.value) {
      file.value = "";
      Shiny.setInputValue("own_data_sent", { name: "", size: 0, content: "" }, { priority: "event" });
    }
  });

  /* A file is read here and sent as text; one that is too large is only named. */
  document.addEventListener("change", async (event) => {
    const field = event.target;
    if (field.id !== "own_data_file" || !field.files.length) return;
    const file = field.files[0];
    let content = "";
    if (file.size <= Number(field.dataset.most)) {
      const url = await new Promise((done) => {
        const reader = new FileReader();
        reader.onloadend = () => done(reader.result || "");
        reader.readAsDataURL(file);
      });
      content = url.slice(url.indexOf(",") + 1);
    }
    Shiny.setInputValue("own_data_sent", { name: file.name, size: file.size, content }, { priority: "event" });
  });

  /* Points that can be moved: by pointer, or by arrow keys when one of them has the focus. */
  function heights(svg) {
    return Array.from(svg.querySelectorAll(".handle"), (h) => Number(h.dataset.y).toFixed(2)).join(",");
  }
  function place(svg, handle, y) {
    const { low, high, top, bottom } = svg.dataset;
    const value = Math.min(Math.max(y, Number(low)), Number(high));
    handle.dataset.y = value;
    handle.setAttribute("aria-valuenow", value.toFixed(2));
    handle.setAttribute("cy", Number(bottom) - ((value - low) / (high - low)) * (bottom - top));
  }
  function send(svg) {
    const room = svg.closest(".room");
    const input = room.querySelector("input[type=hidden].setting");
    input.value = heights(svg);
    changed(input);
  }
  let held = null;
  document.addEventListener("pointerdown", (event) => {
    const handle = event.target.closest && event.target.closest(".handle");
    if (!handle) return;
    event.preventDefault();
    held = { room: handle.closest(".room"), k: handle.dataset.k };
    handle.focus();
  });
  const current = () => held && held.room.querySelector(`.handle[data-k="${held.k}"]`);
  document.addEventListener("pointermove", (event) => {
    const handle = current();
    if (!handle) return;
    const svg = handle.ownerSVGElement, box = svg.getBoundingClientRect(), data = svg.dataset;
    const pixel = ((event.clientY - box.top) / box.height) * svg.viewBox.baseVal.height;
    const share = (Number(data.bottom) - pixel) / (data.bottom - data.top);
    place(svg, handle, Number(data.low) + share * (data.high - data.low));
    send(svg);
  });
  for (const name of ["pointerup", "pointercancel"]) document.addEventListener(name, () => { held = null; });
  document.addEventListener("keydown", (event) => {
    const handle = event.target.closest && event.target.closest(".handle");
    const steps = { ArrowUp: 0.25, ArrowRight: 0.25, ArrowDown: -0.25, ArrowLeft: -0.25, PageUp: 2, PageDown: -2 };
    if (!handle || !(event.key in steps)) return;
    event.preventDefault();
    place(handle.ownerSVGElement, handle, Number(handle.dataset.y) + steps[event.key]);
    send(handle.ownerSVGElement);
  });
  /* The picture is drawn anew while a point is moved: the new point keeps the focus. */
  document.addEventListener("DOMContentLoaded", () => {
    let focused = null;
    document.addEventListener("focusin", (event) => {
      const handle = event.target.closest && event.target.closest(".handle");
      focused = handle ? { room: handle.closest(".room"), k: handle.dataset.k } : null;
    });
    new MutationObserver(() => {
      if (!focused || document.activeElement !== document.body) return;
      const handle = focused.room.querySelector(`.handle[data-k="${focused.k}"]`);
      if (handle) handle.focus({ preventScroll: true });
    }).observe(document.body, { childList: true, subtree: true });
  });
})();
