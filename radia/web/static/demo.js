// The demo: sends chosen films one at a time, keeps what comes back, shows one of them, exports all.
"use strict";

const films = document.getElementById("films");
const shown = document.getElementById("shown");
const list = document.querySelector("#list tbody");
const token = document.querySelector("#upload [name=csrf_token]").value;
const texts = films.dataset;
const AT_ONCE = 3, TRIES = 30, KEPT = 6;
let entries = [], running = 0, current = null, chosenFinding = null;

// --- asking the server

async function ask(address, file, fields = {}) {
  for (let attempt = 1; ; attempt++) {
    const form = new FormData();
    form.append("image", file, "image");
    for (const [name, value] of Object.entries(fields)) form.append(name, value);
    const answer = await fetch(address, { method: "POST", body: form, headers: { "X-CSRFToken": token }, redirect: "manual" });
    if (answer.type === "opaqueredirect" || answer.status === 401) { location.reload(); await new Promise(() => {}); }
    if (answer.status !== 503 || attempt === TRIES) return answer;
    await new Promise((go) => setTimeout(go, 1000 * Number(answer.headers.get("Retry-After") || 1)));
  }
}

function add(files) {
  for (const file of files) {
    const row = document.createElement("tr");
    row.append(document.createElement("th"), document.createElement("td"));
    row.firstChild.scope = "row";
    row.firstChild.textContent = file.name;
    row.lastChild.textContent = texts.waiting;
    row.className = "waiting";
    list.append(row);
    entries.push({ file, name: file.name, row, state: "waiting" });
  }
  films.hidden = !entries.length;
  tell();
  while (running < AT_ONCE && next()) { /* as many as may run */ }
}

function next() {
  const entry = entries.find(({ state }) => state === "waiting");
  if (!entry) return false;
  entry.state = "sent";
  running++;
  read(entry).catch(() => failed(entry, texts.lost)).finally(() => { running--; tell(); next(); });
  return true;
}

async function read(entry) {
  const answer = await ask(texts.read, entry.file);
  if (answer.status === 413) return failed(entry, texts.tooLarge);
  const html = await answer.text();
  const page = new DOMParser().parseFromString(html, "text/html");
  const row = page.querySelector("tr");
  if (!row) return failed(entry, texts.lost);
  entry.article = page.querySelector("article.reading");
  entry.reading = entry.article ? JSON.parse(entry.article.dataset.reading) : null;
  entry.error = entry.reading ? "" : row.dataset.reason;
  entry.state = entry.reading ? "read" : "refused";
  for (const place of row.querySelectorAll(".name")) place.textContent = entry.name;
  row.querySelector("button.name")?.addEventListener("click", () => show(entry));
  entry.row.replaceWith(row);
  entry.row = row;
  if (entry.reading && !current) show(entry);
}

function failed(entry, why) {
  entry.state = "refused";
  entry.error = why;
  entry.row.className = "refused";
  entry.row.lastChild.textContent = why;
}

function tell() {
  const done = entries.filter(({ state }) => state === "read" || state === "refused").length;
  const progress = document.getElementById("progress");
  progress.textContent = texts.progress.replace("{done}", done).replace("{all}", entries.length);
  films.dataset.state = done === entries.length ? "done" : "busy";
}

// --- one film

function show(entry) {
  current = entry;
  for (const other of entries) other.row.classList.toggle("current", other === entry);
  const article = document.importNode(entry.article, true);
  article.querySelector(".name").textContent = entry.name;
  shown.replaceChildren(article);
  const heat = article.querySelector("[data-overlay]"), caption = article.querySelector("#caption");
  const toggle = article.querySelector("#heat"), opacity = article.querySelector("#opacity");
  const buttons = [...article.querySelectorAll(".finding")];
  let chosen = null;

  const look = (button) => {
    chosen = button;
    for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
    toggle.setAttribute("aria-pressed", String(Boolean(button)));
    heat.hidden = !button;
    const told = button ? `${caption.dataset.mapOf} ${button.textContent}` : caption.dataset.choose;
    if (button) heat.src = button.dataset.map;
    heat.alt = button ? told : "";
    caption.textContent = told;
    chosenFinding = button?.dataset.finding ?? null;
  };
  let last = buttons[0];
  for (const button of buttons) {
    button.addEventListener("click", () => { last = button; look(chosen === button ? null : button); });
  }
  toggle.addEventListener("click", () => look(chosen ? null : last));
  opacity.addEventListener("input", () => heat.style.setProperty("opacity", opacity.value / 100));
  heat.style.setProperty("opacity", opacity.value / 100);
  chosenFinding = null;
  article.querySelector("#film").addEventListener("viewer", ({ target }) => {
    const told = article.querySelector("#window"), { level, width } = target.dataset;
    if (level) told.textContent = `${told.dataset.level} ${Math.round(level)} · ${told.dataset.width} ${Math.round(width)}`;
  });
  for (const button of article.querySelectorAll("[data-report]")) button.addEventListener("click", () => fetchReport(entry, button));
  article.querySelector("[data-send]")?.addEventListener("click", (event) => send(entry, event.target));
  draw(entry, article.querySelector("#film"));
}

async function draw(entry, element) {
  element.dataset.state = "loading";
  try {
    entry.film ??= await fetchFilm(entry);
  } catch {
    element.dataset.state = "failed";
    return;
  }
  const kept = entries.filter(({ film }) => film);
  if (kept.length > KEPT) delete kept.find((other) => other !== entry).film;
  if (!element.isConnected) return;
  element.film = entry.film;
  element.dispatchEvent(new CustomEvent("film", { bubbles: true }));
}

async function fetchFilm(entry) {
  const answer = await ask(texts.film, entry.file);
  if (!answer.ok) throw new Error("no film");
  const film = { bytes: new Uint8Array(await answer.arrayBuffer()) };
  for (const fact of ["rows", "columns", "bits", "low", "high"]) film[fact] = Number(answer.headers.get(`X-Film-${fact}`));
  return film;
}

// --- handing on

async function fetchReport(entry, button) {
  const told = document.getElementById("handed");
  told.textContent = told.dataset.working;
  try {
    const answer = await ask(button.dataset.report, entry.file, chosenFinding ? { finding: chosenFinding } : {});
    if (!answer.ok) { told.textContent = (await answer.json()).error; return; }
    save(await answer.blob(), `${stem(entry.name)}-${button.dataset.name}`);
    told.textContent = "";
  } catch { told.textContent = told.dataset.lost; }
}

async function send(entry, button) {
  const told = document.getElementById("handed");
  told.textContent = told.dataset.working;
  button.disabled = true;
  try {
    const fields = { identifiers: document.getElementById("original").checked ? "original" : "pseudonymous" };
    if (chosenFinding) fields.finding = chosenFinding;
    const answer = await ask(button.dataset.send, entry.file, fields);
    told.textContent = answer.ok ? told.dataset.sent : (await answer.json()).error;
  } catch { told.textContent = told.dataset.lost; }
  button.disabled = false;
}

function stem(name) { return name.replace(/\.[A-Za-z0-9]{1,5}$/, "") || "film"; }

function save(content, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

// Rows as `radia evaluate --probs` takes them: the file, then a column a finding.
function csv() {
  const findings = Object.keys(entries.find(({ reading }) => reading)?.reading.findings ?? {}).sort();
  const cell = (value) => {
    const text = /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value);
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const lines = entries.filter(({ state }) => state === "read" || state === "refused").map(({ name, reading, error }) => [
    cell(name), ...findings.map((finding) => reading?.findings[finding].probability ?? ""), cell(reading?.model ?? ""), cell(error ?? ""),
  ]);
  return [["file", ...findings.map(cell), "model", "refused"], ...lines].map((line) => line.join(",")).join("\r\n") + "\r\n";
}

function json() {
  const films = entries.filter(({ state }) => state === "read" || state === "refused")
    .map(({ name, reading, error }) => (reading ? { file: name, ...reading } : { file: name, refused: error }));
  return JSON.stringify({ notice: "assistance, not diagnosis", films }, null, 2);
}

// --- what a person does

document.getElementById("image").addEventListener("change", (event) => { add(event.target.files); event.target.value = ""; });
document.getElementById("clear").addEventListener("click", () => {
  entries = []; current = null;
  list.replaceChildren(); shown.replaceChildren();
  films.hidden = true;
  document.getElementById("image").focus();
});
for (const button of document.querySelectorAll("[data-export]")) {
  button.addEventListener("click", () => {
    const kind = button.dataset.export;
    save(new Blob([kind === "csv" ? csv() : json()], { type: kind === "csv" ? "text/csv" : "application/json" }), `radia.${kind}`);
  });
}
for (const button of document.querySelectorAll("[data-example]")) {
  button.addEventListener("click", async () => {
    button.disabled = true;
    const answer = await fetch(button.dataset.example);
    if (answer.ok) add([new File([await answer.arrayBuffer()], `${texts.exampleName} ${button.textContent}.dcm`)]);
    button.disabled = false;
  });
}
for (const kind of ["dragenter", "dragover"]) {
  document.addEventListener(kind, (event) => {
    if (![...event.dataTransfer.types].includes("Files")) return;
    event.preventDefault();
    document.body.classList.add("dropping");
  });
}
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("dropping"); });
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  add(event.dataTransfer.files);
});
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.target.closest?.("input:not([type=range]):not([type=checkbox]), textarea")) return;
  if (event.key === "h" || event.key === "H") document.getElementById("heat")?.click();
});
