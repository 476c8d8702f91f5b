// Blind reading by keyboard alone. Before the lock this page knows the film and the questions, and nothing else.
//
// Keys: 1 present · 0 absent · U uncertain · N not assessed, of the row that is marked; up and down (or J, K) choose it;
// Backspace takes the last answer back; A opens all 14; P the film before; Enter locks. Digits go by their place on the
// keyboard (event.code), so that a French one needs no Shift. The film's own keys are those of viewer.js.
// Every answer is kept on the server at once. Time counts while the page is in view, has the focus and somebody does
// something: after IDLE milliseconds without a key or the mouse it stands still.
"use strict";

{
  const IDLE = 20_000, BEAT = 60_000;
  const form = document.getElementById("read");
  const rows = [...form.querySelectorAll("[data-finding]")];
  const asked = rows.filter((row) => row.dataset.asked !== undefined);
  const all = document.getElementById("all");
  const lock = document.getElementById("lock");
  const said = document.getElementById("said");
  const done = [], before = new Map();
  let current = null, counted = 0, last = performance.now(), touched = last, saving = null;

  const answerOf = (row) => row.querySelector("input:checked")?.value ?? "";
  const open = () => rows.filter((row) => !row.closest("details:not([open])"));
  const answers = () => Object.fromEntries(rows.map((row) => [row.dataset.finding, answerOf(row)]).filter(([, value]) => value));

  function choose(row) {
    current?.classList.remove("current");
    current = row;
    row.classList.add("current");
    row.scrollIntoView({ block: "nearest" });
  }

  function step(by) {
    const there = open();
    choose(there[Math.max(0, Math.min(there.length - 1, there.indexOf(current) + by))]);
  }

  function put(row, value) {
    for (const input of row.querySelectorAll("input")) input.checked = input.value === value;
    show();
    keep();
  }

  function answer(value) {
    done.push([current, answerOf(current)]);
    const row = current;
    put(row, value);
    const there = open(), next = there.slice(there.indexOf(row) + 1).find((other) => !answerOf(other));
    if (next) choose(next);
    tell(`${row.dataset.name}: ${row.querySelector("input:checked").dataset.word}`);
  }

  function undo() {
    const step = done.pop();
    if (!step) return;
    choose(step[0]);
    put(...step);
    tell(`${step[0].dataset.name}: ${step[1] ? step[0].querySelector("input:checked").dataset.word : form.dataset.undone}`);
  }

  function show() {
    const missing = asked.filter((row) => !answerOf(row));
    lock.disabled = missing.length > 0;
    for (const row of rows) before.set(row, answerOf(row));
    document.getElementById("undo").disabled = done.length === 0;
    return missing;
  }

  function tell(text) { said.textContent = text; }

  function tick() {
    const now = performance.now();
    if (document.visibilityState === "visible" && document.hasFocus() && now - touched < IDLE) counted += Math.min(now - last, 2000);
    last = now;
    form.elements.seconds.value = (counted / 1000).toFixed(2);
  }

  function keep() {
    tick();
    clearTimeout(saving);
    saving = setTimeout(send, 120);
  }

  async function send() {
    clearTimeout(saving);
    saving = null;
    tick();
    try {
      const reply = await fetch(form.dataset.draft, {
        method: "POST", credentials: "same-origin", keepalive: true, redirect: "error",
        headers: { "Content-Type": "application/json", Accept: "application/json", "X-CSRFToken": form.elements.csrf_token.value },
        body: JSON.stringify({ answers: answers(), seconds: counted / 1000 }),
      });
      if (reply.ok) form.dataset.kept = String(Object.keys(answers()).length);
      else if (reply.status === 409) location.reload();
      else tell(reply.status === 401 ? form.dataset.gone : form.dataset.lost);
      form.dataset.reply = String(reply.status);
    } catch { tell(form.dataset.lost); }
  }

  const keys = { u: "U", n: "N" };
  const digits = { Digit1: "1", Numpad1: "1", Digit0: "0", Numpad0: "0" };

  document.addEventListener("keydown", (event) => {
    touched = performance.now();
    if (event.ctrlKey || event.altKey || event.metaKey || event.repeat) return;
    if (event.target.closest?.("input:not([type=radio]), textarea, select")) return;
    const value = digits[event.code] ?? keys[event.key.toLowerCase()];
    const act = value ? () => answer(value) : {
      ArrowDown: () => step(1), ArrowUp: () => step(-1), j: () => step(1), k: () => step(-1),
      Backspace: undo, a: () => { if (all) { all.open = !all.open; opened(); } }, p: prior,
      Enter: event.target.closest?.("a, button, summary") ? null : finish,
    }[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!act || (event.shiftKey && event.key.startsWith("Arrow"))) return;
    event.preventDefault();
    act();
  });

  // the mark goes with what is open: to the first row without an answer, or back to the question
  function opened() {
    const inside = current.closest("details") === all;
    if (all.open && !inside) { const next = open().find((row) => !answerOf(row)); if (next) choose(next); }
    else if (!all.open && inside) choose(rows[0]);
  }

  function prior() { document.getElementById("show-prior")?.click(); }

  function finish() {
    const missing = show();
    if (missing.length) {
      choose(missing[0]);
      tell(`${form.dataset.missing} ${missing[0].dataset.name}`);
    } else if (!form.dataset.going) {
      form.requestSubmit();
    }
  }

  for (const kind of ["pointermove", "pointerdown", "wheel"]) document.addEventListener(kind, () => { touched = performance.now(); }, { passive: true });
  form.addEventListener("change", (event) => {
    const row = event.target.closest("[data-finding]");
    if (!row) return;
    choose(row);
    done.push([row, before.get(row)]);
    show();
    keep();
  });
  form.addEventListener("submit", () => { form.dataset.going = "yes"; clearTimeout(saving); tick(); });
  document.getElementById("undo").addEventListener("click", undo);
  all?.addEventListener("toggle", opened); // comes late: a key calls it at once
  document.addEventListener("visibilitychange", () => { if (document.visibilityState === "hidden") send(); else { last = performance.now(); } });
  setInterval(tick, 500);
  setInterval(() => { if (performance.now() - touched < BEAT) send(); }, BEAT);

  if (rows.some((row) => row.dataset.asked === undefined && answerOf(row))) all.open = true;
  choose(asked.find((row) => !answerOf(row)) ?? asked[0] ?? rows[0]);
  show();
}
