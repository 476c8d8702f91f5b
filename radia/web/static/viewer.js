// A film with window and level, zoom, pan and invert, at the full depth of its pixels.
//
// What a page gives (nothing is drawn without it):
//   <div class="viewer" id="film" tabindex="0" role="img" aria-label="…" data-film="URL">
//     <img data-overlay hidden alt="">          laid over the whole film, moved and enlarged with it (a heat map)
//   </div>
//   data-film     an address of this app, or data:application/octet-stream;base64,…: the shades row by row, brighter is
//                 higher, one byte each, or two with the low one first
//   data-rows, data-columns, data-bits (8 or 16), data-low, data-high (the shades shown black and white as it is meant):
//                 on the element, or as the answer's headers X-Film-Rows, X-Film-Columns, X-Film-Bits, X-Film-Low, X-Film-High
//   A page that has the film already sets element.film = {bytes, rows, columns, bits, low, high} instead, and says so by an
//   event `film` on the element, which also begins a viewer that was not there when the page was loaded.
//   <button type="button" data-viewer="in|out|invert|reset|pan|contrast|softer|brighter|darker" data-for="film">
// What it says: data-state (loading, ready, failed) and, once ready, data-level, data-width, data-zoom, data-inverted on
// the element; an event `viewer` on every change. `pan` is a switch (aria-pressed): dragging moves the film, not the window.
// Mouse: drag changes the window (across: width, up: level), drag with Shift or another button moves, the wheel enlarges.
// Touch: two fingers enlarge and move. Keys, unless one types or another control has the focus it needs:
//   i invert · f whole film as it is meant · + - enlarge · c C contrast · b B brightness · Shift and arrows move.
"use strict";

class Viewer {
  constructor(element) {
    this.element = element;
    this.layer = document.createElement("div");
    this.layer.className = "layer";
    this.canvas = document.createElement("canvas");
    this.layer.append(this.canvas, ...element.querySelectorAll("[data-overlay]"));
    element.prepend(this.layer);
    this.pointers = new Map();
    this.panning = false;
    this.listen();
    element.dataset.state = "loading";
    this.load().then(
      () => this.start(),
      () => { element.dataset.state = "failed"; this.tell(); },
    );
  }

  async load() {
    const source = this.element.dataset.film, given = this.element.film, fact = {};
    let bytes, headers = null;
    if (given) {
      bytes = given.bytes;
    } else if (source.startsWith("data:")) {
      bytes = Uint8Array.from(atob(source.slice(source.indexOf(",") + 1)), (letter) => letter.charCodeAt(0));
    } else {
      const answer = await fetch(source, { credentials: "same-origin" });
      if (!answer.ok || answer.redirected) throw new Error("no film");
      headers = answer.headers;
      bytes = new Uint8Array(await answer.arrayBuffer());
    }
    for (const name of ["rows", "columns", "bits", "low", "high"]) {
      fact[name] = Number(given?.[name] ?? headers?.get(`X-Film-${name}`) ?? this.element.dataset[name]);
    }
    this.rows = fact.rows; this.columns = fact.columns; this.low = fact.low; this.high = fact.high;
    this.shades = fact.bits === 8 ? bytes : new Uint16Array(bytes.buffer, 0, bytes.length >> 1);
    if (this.shades.length !== this.rows * this.columns || !this.shades.length) throw new Error("not the size it says");
  }

  start() {
    this.canvas.width = this.columns; this.canvas.height = this.rows;
    this.picture = new ImageData(this.columns, this.rows);
    this.table = new Uint32Array(this.shades instanceof Uint8Array ? 256 : 65536);
    this.element.dataset.state = "ready";
    this.reset();
    new ResizeObserver(() => this.place()).observe(this.element);
  }

  reset() {
    this.level = (this.low + this.high) / 2; this.width = Math.max(this.high - this.low, 1);
    this.inverted = false; this.zoom = 1; this.x = 0; this.y = 0;
    this.draw(); this.place();
  }

  draw() {
    if (!this.picture || this.due) return;
    this.due = requestAnimationFrame(() => {
      this.due = 0;
      const { table, shades } = this, low = this.level - this.width / 2, step = 255 / this.width;
      for (let shade = 0; shade < table.length; shade++) {
        const bright = Math.max(0, Math.min(255, Math.round((shade - low) * step)));
        table[shade] = (this.inverted ? 255 - bright : bright) * 0x010101 | 0xff000000;
      }
      const pixels = new Uint32Array(this.picture.data.buffer);
      for (let at = 0; at < shades.length; at++) pixels[at] = table[shades[at]];
      this.canvas.getContext("2d").putImageData(this.picture, 0, 0);
      this.tell();
    });
  }

  place() {
    if (!this.rows) return;
    const box = this.element.getBoundingClientRect();
    const fit = Math.min(box.width / this.columns, box.height / this.rows);
    const wide = this.columns * fit * this.zoom, high = this.rows * fit * this.zoom;
    const edge = (size, room) => Math.max((size + room) / 2 - 40, 0);
    this.x = Math.max(-edge(wide, box.width), Math.min(edge(wide, box.width), this.x));
    this.y = Math.max(-edge(high, box.height), Math.min(edge(high, box.height), this.y));
    const style = this.layer.style;
    style.width = `${wide}px`; style.height = `${high}px`;
    style.left = `${(box.width - wide) / 2 + this.x}px`; style.top = `${(box.height - high) / 2 + this.y}px`;
    this.tell();
  }

  // enlarge by a factor, keeping the point [from the middle] where it is
  enlarge(factor, x = 0, y = 0) {
    const before = this.zoom;
    this.zoom = Math.max(1, Math.min(16, this.zoom * factor));
    const part = this.zoom / before;
    this.x = x + (this.x - x) * part; this.y = y + (this.y - y) * part;
    if (this.zoom === 1) { this.x = 0; this.y = 0; }
    this.place();
  }

  move(x, y) { this.x += x; this.y += y; this.place(); }

  window(width, level) {
    const whole = this.table ? this.table.length : 256;
    this.width = Math.max(whole / 4096, Math.min(2 * whole, this.width * width));
    this.level += level * this.width;
    this.level = Math.max(-whole, Math.min(2 * whole, this.level));
    this.draw();
  }

  act(what) {
    if (this.element.dataset.state !== "ready") return;
    switch (what) {
      case "in": this.enlarge(1.25); break;
      case "out": this.enlarge(0.8); break;
      case "invert": this.inverted = !this.inverted; this.draw(); break;
      case "reset": this.reset(); break;
      case "pan": this.panning = !this.panning; this.tell(); break;
      case "contrast": this.window(0.85, 0); break;
      case "softer": this.window(1 / 0.85, 0); break;
      case "brighter": this.window(1, -0.06); break;
      case "darker": this.window(1, 0.06); break;
      case "left": this.move(60, 0); break;
      case "right": this.move(-60, 0); break;
      case "up": this.move(0, 60); break;
      case "down": this.move(0, -60); break;
    }
  }

  tell() {
    const told = this.element.dataset;
    if (told.state === "ready") {
      told.level = this.level.toFixed(1); told.width = this.width.toFixed(1);
      told.zoom = this.zoom.toFixed(2); told.inverted = String(this.inverted);
    }
    for (const button of document.querySelectorAll('[data-viewer="pan"]')) {
      if (button.dataset.for === this.element.id) button.setAttribute("aria-pressed", String(this.panning));
    }
    this.element.dispatchEvent(new CustomEvent("viewer", { bubbles: true }));
  }

  fromMiddle(event) {
    const box = this.element.getBoundingClientRect();
    return [event.clientX - box.left - box.width / 2, event.clientY - box.top - box.height / 2];
  }

  listen() {
    const element = this.element;
    element.addEventListener("contextmenu", (event) => event.preventDefault());
    element.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.enlarge(event.deltaY < 0 ? 1.15 : 1 / 1.15, ...this.fromMiddle(event));
    }, { passive: false });
    element.addEventListener("dblclick", () => this.act("reset"));
    element.addEventListener("pointerdown", (event) => {
      Viewer.current = this;
      element.setPointerCapture(event.pointerId);
      this.pointers.set(event.pointerId, [event.clientX, event.clientY]);
    });
    for (const kind of ["pointerup", "pointercancel"]) {
      element.addEventListener(kind, (event) => this.pointers.delete(event.pointerId));
    }
    element.addEventListener("pointermove", (event) => this.dragged(event));
    element.addEventListener("focus", () => { Viewer.current = this; });
  }

  dragged(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before || this.element.dataset.state !== "ready") return;
    const across = event.clientX - before[0], down = event.clientY - before[1];
    if (this.pointers.size === 2) {
      const other = [...this.pointers].find(([id]) => id !== event.pointerId)[1];
      const apart = (x, y) => Math.hypot(x - other[0], y - other[1]);
      this.enlarge(apart(event.clientX, event.clientY) / Math.max(apart(...before), 1), ...this.fromMiddle(event));
      this.move(across / 2, down / 2);
    } else if (this.panning || event.shiftKey || event.buttons > 1) {
      this.move(across, down);
    } else {
      this.window(Math.exp(across / 250), down / 500);
    }
    this.pointers.set(event.pointerId, [event.clientX, event.clientY]);
  }
}

{
  const all = new Map();
  const begin = (element) => {
    for (const old of all.keys()) if (!old.isConnected) all.delete(old);
    all.set(element, new Viewer(element));
  };
  document.querySelectorAll(".viewer[data-film]").forEach(begin);
  Viewer.current = [...all.values()][0] ?? null;
  document.addEventListener("film", ({ target }) => { begin(target); Viewer.current = all.get(target); });

  document.addEventListener("click", (event) => {
    const button = event.target.closest?.("[data-viewer]");
    if (button) all.get(document.getElementById(button.dataset.for))?.act(button.dataset.viewer);
  });

  const keys = { i: "invert", I: "invert", f: "reset", F: "reset", "+": "in", "=": "in", "-": "out", c: "contrast", C: "softer", b: "brighter", B: "darker" };
  const arrows = { ArrowLeft: "left", ArrowRight: "right", ArrowUp: "up", ArrowDown: "down" };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || !Viewer.current) return;
    if (event.target.closest?.("input:not([type=radio]):not([type=checkbox]), textarea, select")) return;
    const what = event.shiftKey && arrows[event.key] ? arrows[event.key] : keys[event.key];
    if (what) { event.preventDefault(); Viewer.current.act(what); }
  });
}
