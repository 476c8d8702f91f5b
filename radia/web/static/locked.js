// After the lock: what the model in use says, asked for while the reader already looks; heat maps over the film.
// Keys: H heat map · up and down the finding · P the film before · Enter the next film.
"use strict";

{
  const place = document.getElementById("model"), next = document.getElementById("next");
  const heat = document.querySelector("#film [data-overlay]");
  let chosen = null;

  const findings = () => [...(place?.querySelectorAll("[data-map]") ?? [])];

  function show(button) {
    for (const other of findings()) other.setAttribute("aria-pressed", String(other === button));
    chosen = button;
    if (button) heat.src = button.dataset.map;
    heat.hidden = !button;
  }

  function step(by) {
    const there = findings();
    if (there.length) { show(there[Math.max(0, Math.min(there.length - 1, there.indexOf(chosen) + by))]); chosen.scrollIntoView({ block: "nearest" }); }
  }

  async function ask() {
    const reply = await fetch(place.dataset.address, { credentials: "same-origin", redirect: "error" });
    if (reply.ok) place.innerHTML = await reply.text();
    place.dataset.state = reply.ok ? "ready" : "failed";
  }

  place?.addEventListener("click", (event) => {
    const button = event.target.closest("[data-map]");
    if (button) show(button === chosen ? null : button);
  });

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || event.shiftKey || event.repeat) return;
    if (event.target.closest?.("input:not([type=radio]), textarea, select")) return;
    const act = {
      h: () => show(chosen ? null : findings().find((one) => one.dataset.question !== undefined) ?? findings()[0]),
      ArrowDown: () => step(1), ArrowUp: () => step(-1),
      p: () => document.getElementById("show-prior")?.click(),
      Enter: event.target.closest?.("a, button, summary") ? null : () => next.click(),
    }[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!act || event.target.closest?.("#change") && event.key.startsWith("Arrow")) return;
    event.preventDefault();
    act();
  });

  if (place) ask().catch(() => { place.dataset.state = "failed"; });
}
