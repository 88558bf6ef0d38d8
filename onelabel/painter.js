// The painter in the page: painter.py is Python's side.
//
// The page paints by itself, and sends a stroke when it ends. Python keeps the strokes;
// every page follows it. A view has the pixels of its window alone: the part of the image
// that its canvas shows, every `step`-th row and column of it.
//
// page -> Python, each with its page and the number of the picture:
//   hello                              answered by the state
//   add {stroke}, remove {id}          strokes are painted, undone and redone
//   look {window, layers, view}        answered by layers, then "looked"
//   enter                              the key was pressed
// Python -> page, each with the number of the picture:
//   state {shape, layers, strokes, place, page}   an image begins; page null: for all pages
//   added {stroke, page}, removed {id, page}
//   layer {name, labels, window, view} and a PNG, looked {view}
//   changed {layers}, go {place}

const NONE = 255; // the label of pixels without one; the eraser's
const HEIGHT = 560; // of the canvas, in CSS pixels
const MOST = 200; // the largest brush, in pixels of the screen
const LARGEST = 10_000; // the largest radius, in pixels of the image, as in strokes.py
const PATIENCE = 10_000; // ms until an answer is taken to be late or lost
const FAR = 2 ** 30; // beyond any image
const CLOSEST = 64; // pixels of the screen to a pixel of the image, at most
const BASE = ["image", "start"]; // the layers that are always shown
const LATE = "NOT KEPT so far: Python does not answer. If the kernel was restarted, " +
  "run all cells again.";

const clamp = (value, least, most) => Math.min(Math.max(value, least), most);
// crypto.randomUUID is missing on pages that come by plain http from another machine.
const unique = () => [0, 0].map(() => Math.random().toString(36).slice(2, 12)).join("");
const keyOf = (window) => Object.values(window).join();

// ---- strokes, and the labels they draw: the same integers as strokes.py ----

/** Half the length of each row of a brush, from its top to its bottom. */
function makeReach(radius) {
  const half = (rise) => Math.floor(Math.sqrt(radius * radius + radius - rise * rise));
  return Int32Array.from({ length: 2 * radius + 1 }, (_, row) => half(row - radius));
}

const boxes = new WeakMap(); // of strokes that are finished

/** The box of the pixels that a stroke may cover, its ends included. */
function boxOf(stroke) {
  if (!boxes.has(stroke)) {
    let [left, top, right, bottom] = [Infinity, Infinity, -Infinity, -Infinity];
    for (const [x, y] of stroke.points) {
      [left, right] = [Math.min(left, x), Math.max(right, x)];
      [top, bottom] = [Math.min(top, y), Math.max(bottom, y)];
    }
    const { radius } = stroke;
    [left, top, right, bottom] = [left - radius, top - radius, right + radius, bottom + radius];
    boxes.set(stroke, { left, top, right, bottom });
  }
  return boxes.get(stroke);
}

/** Whether a stroke reaches into a window of the image. */
function reaches(stroke, { top, left, bottom, right }) {
  const box = boxOf(stroke);
  return box.right >= left && box.bottom >= top && box.left < right && box.top < bottom;
}

/** The labels of a window, as numbers and as a picture. */
class Labels {
  constructor() {
    this.canvas = document.createElement("canvas");
    this.context = this.canvas.getContext("2d");
    this.window = { top: 0, left: 0, bottom: 0, right: 0, step: 1 };
  }

  /** Begin anew in a window, with the labels that were there before any stroke. */
  begin(window, starts) {
    const { top, left, bottom, right, step } = window;
    this.window = window;
    this.columns = this.canvas.width = Math.ceil((right - left) / step);
    this.rows = this.canvas.height = Math.ceil((bottom - top) / step);
    this.values = new Uint8Array(this.columns * this.rows).fill(NONE);
    this.starts = new Int32Array(this.rows); // of what a line covers of each row
    this.ends = new Int32Array(this.rows);
    this.image = this.context.createImageData(this.columns, this.rows);
    this.colours = new Uint32Array(this.image.data.buffer);
    this.dirty = { left: 0, top: 0, right: this.columns, bottom: this.rows };
    for (const start of starts) this.copy(start);
  }

  /** Take over the values of another window; of another step, the nearest. */
  copy({ window: from, values, columns }) {
    const { top, left, step } = this.window;
    if (keyOf(from) === keyOf(this.window)) return this.values.set(values);
    for (let row = 0; row < this.rows; row++) {
      const y = top + row * step;
      if (y < from.top || y >= from.bottom) continue;
      const line = Math.floor((y - from.top) / from.step) * columns;
      for (let column = 0; column < this.columns; column++) {
        const x = left + column * step;
        if (x < from.left || x >= from.right) continue;
        const value = values[line + Math.floor((x - from.left) / from.step)];
        this.values[row * this.columns + column] = value;
      }
    }
  }

  /** Draw a stroke, or what it has gained since it had `known` points. */
  draw({ label, radius, points }, known = 0) {
    const brush = { label, radius, reach: makeReach(radius) };
    if (known === 0) this.line(brush, points[0], points[0]);
    for (let i = Math.max(known, 1); i < points.length; i++) {
      this.line(brush, points[i - 1], points[i]);
    }
  }

  /**
   * Move the brush from a point to another. It moves by one pixel at a time, so what it
   * covers of a row is one piece without a gap.
   */
  line({ label, radius, reach }, [fromX, fromY], [toX, toY]) {
    const { top, left, right, step } = this.window, { starts, ends } = this;
    if (Math.max(fromX, toX) + radius < left) return;
    if (Math.min(fromX, toX) - radius >= right) return;
    const lowest = (y) => Math.max(Math.ceil((y - radius - top) / step), 0);
    const highest = (y) => Math.min(Math.floor((y + radius - top) / step), this.rows - 1);
    const first = lowest(Math.min(fromY, toY)), last = highest(Math.max(fromY, toY));
    for (let row = first; row <= last; row++) [starts[row], ends[row]] = [FAR, -FAR];
    const across = toX - fromX, down = toY - fromY;
    const count = Math.max(Math.abs(across), Math.abs(down), 1);
    for (let i = 0; i <= count; i++) {
      const x = fromX + Math.floor((2 * i * across + count) / (2 * count));
      const y = fromY + Math.floor((2 * i * down + count) / (2 * count));
      const end = highest(y);
      for (let row = lowest(y); row <= end; row++) {
        const half = reach[top + row * step - y + radius];
        if (x - half < starts[row]) starts[row] = x - half;
        if (x + half > ends[row]) ends[row] = x + half;
      }
    }
    for (let row = first; row <= last; row++) this.fill(label, row, starts[row], ends[row]);
  }

  /** Label the columns of a row from one x to another, which may lie outside. */
  fill(label, row, fromX, toX) {
    const { left, step } = this.window;
    const first = Math.max(Math.ceil((fromX - left) / step), 0);
    const end = Math.min(Math.floor((toX - left) / step), this.columns - 1) + 1;
    if (first >= end) return;
    const start = row * this.columns, dirty = this.dirty;
    this.values.fill(label, start + first, start + end);
    if (first < dirty.left) dirty.left = first;
    if (end > dirty.right) dirty.right = end;
    if (row < dirty.top) dirty.top = row;
    if (row >= dirty.bottom) dirty.bottom = row + 1;
  }

  /** Bring the part of the picture up to date that has changed. */
  upload(palette) {
    const { left, top, right, bottom } = this.dirty;
    for (let row = top; row < bottom; row++) {
      const start = row * this.columns;
      for (let i = start + left; i < start + right; i++) {
        this.colours[i] = palette[this.values[i]];
      }
    }
    if (right > left) {
      const size = [right - left, bottom - top];
      this.context.putImageData(this.image, 0, 0, left, top, ...size);
    }
    this.dirty = { left: Infinity, top: Infinity, right: 0, bottom: 0 };
  }
}

// ---- the strokes of the image shown, which the views of a page share ----

/** A list of strokes after one was added or removed. */
function after(strokes, { stroke, id }) {
  if (!stroke) return strokes.filter((other) => other.id !== id);
  return strokes.some((other) => other.id === stroke.id) ? strokes : [...strokes, stroke];
}

class Shared {
  constructor(model) {
    Object.assign(this, { model, page: unique(), picture: 0, layers: [], place: null });
    this.kept = []; // Python's strokes
    this.queue = []; // what this page has done that Python has not confirmed
    this.strokes = []; // both together
    this.undone = [];
    this.views = new Set();
    model.on("msg:custom", (message, buffers) => this.hear(message, buffers));
    this.tell({ kind: "hello" });
  }

  tell(message) {
    try {
      this.model.send({ ...message, page: this.page, picture: this.picture });
    } catch (error) {
      console.warn(error); // the kernel was restarted; `warn` says so
    }
  }

  hear(message, buffers) {
    if (message.kind === "state") return this.begin(message);
    if (message.picture !== this.picture) return; // of the image before
    if (["added", "removed"].includes(message.kind)) return this.confirm(message);
    if (message.kind === "go") this.place = message.place;
    for (const view of this.views) view.hear(message, buffers);
  }

  begin({ page, picture, shape, layers, strokes, place }) {
    if (page !== null && page !== this.page) return;
    if (picture === this.picture) return; // it has begun already
    Object.assign(this, { picture, shape, layers, place, kept: strokes, strokes });
    this.late = false;
    this.queue = [];
    this.undone = [];
    for (const view of this.views) view.begin();
  }

  add(stroke) {
    const [height, width] = this.shape;
    if (!reaches(stroke, { top: 0, left: 0, bottom: height, right: width })) return;
    this.undone = [];
    this.change({ kind: "add", stroke });
  }

  undo() {
    const last = this.strokes.at(-1);
    if (!last) return;
    this.undone.push(last);
    this.change({ kind: "remove", id: last.id });
  }

  redo() {
    const stroke = this.undone.pop();
    if (stroke) this.change({ kind: "add", stroke });
  }

  change(action) {
    this.queue.push(action);
    setTimeout(() => this.queue.includes(action) && this.warn(true), PATIENCE);
    this.update();
    this.tell(action);
  }

  /** Say that Python is busy or gone, or no more. */
  warn(late) {
    this.late = late;
    for (const view of this.views) view.report();
  }

  /** Python has changed its strokes, for this page or another. */
  confirm(message) {
    this.kept = after(this.kept, message);
    if (message.page === this.page) {
      const id = (action) => action.stroke?.id ?? action.id;
      const same = (mine) => id(mine) === id(message) && !mine.stroke === !message.stroke;
      this.queue.splice(0, this.queue.findIndex(same) + 1);
      if (!this.queue.length) this.warn(false);
    }
    this.update();
  }

  /** Put both lists together, and have drawn what is new: all, unless strokes came last. */
  update() {
    const before = this.strokes;
    this.strokes = this.queue.reduce(after, this.kept);
    const grown = before.every((stroke, i) => stroke.id === this.strokes[i]?.id);
    const more = grown ? this.strokes.slice(before.length) : null;
    for (const view of this.views) view.change(more);
  }
}

// ---- the tools above the picture ----

const KEYS = [
  ["1, 2", "paint a class"], ["X", "eraser (or the right button)"],
  ["[ and ]", "smaller or larger brush"], ["Ctrl+Z", "undo"],
  ["Ctrl+Y, Ctrl+Shift+Z", "redo"], ["H", "hide or show labels and overlays"],
  ["wheel, + and -", "zoom, after a click"],
  ["Ctrl+wheel", "zoom at any time"], ["Space+drag, middle button", "move"],
  ["two fingers", "move and zoom"], ["0", "show the whole image"], ["Enter", "train"],
];

const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};

const button = (text, title, onclick) =>
  make("button", { type: "button", title, ariaLabel: title, onclick }, text);

const slider = (title, min, max, act) => {
  const oninput = (event) => act(Number(event.target.value));
  return make("input", { type: "range", title, ariaLabel: title, min, max, oninput });
};

class Toolbar {
  constructor(view) {
    this.view = view;
    const { shared } = view;
    this.swatches = [0, 1].map(() => make("span", { className: "swatch" }));
    this.classes = [0, 1].map((label) => button("", "", () => view.set({ tool: label })));
    const erase = "Remove labels (X, or the right button)";
    this.eraser = button("Eraser", erase, () => view.set({ tool: NONE }));
    const size = "Size of the brush or the eraser, in pixels of the screen ([ and ])";
    this.size = slider(size, 1, MOST, (value) => view.resize(value));
    this.sizeText = make("output");
    this.undo = button("Undo", "Undo the last stroke (Ctrl+Z)", () => view.undo());
    this.redo = button("Redo", "Redo (Ctrl+Y)", () => shared.redo());
    this.fit = button("Fit", "Show the whole image (0)", () => view.fit());
    this.overlays = make("span", { className: "group" });
    const opacity = "Opacity of labels and overlays";
    this.opacity = slider(opacity, 0, 100, (value) => view.set({ opacity: value / 100 }));
    const hide = "Hide or show labels and overlays (H)";
    this.hide = button("Hide", hide, () => view.set({ hidden: !view.hidden }));
    const keys = KEYS.map(([key, does]) => make("div", {}, make("b", {}, key), does));
    this.keys = make("div", { className: "keys", hidden: true }, ...keys);
    this.help = button("?", "Show the keys", () => (this.keys.hidden = !this.keys.hidden));
    const group = (...parts) => make("span", { className: "group" }, ...parts);
    const tools = make("div", { className: "tools", role: "toolbar" },
      group(...this.classes, this.eraser),
      group(make("label", {}, "size ", this.size), this.sizeText),
      group(this.undo, this.redo, this.fit), this.overlays,
      group(make("label", {}, "opacity ", this.opacity)), group(this.hide, this.help));
    // The keys work on the picture again, once the mouse is done with a tool.
    tools.addEventListener("pointerup", () => setTimeout(() => view.focus()));
    this.element = make("div", {}, tools, this.keys);
  }

  /** A check box for each overlay; what the user chose for a name stays. */
  begin() {
    const { view } = this;
    this.overlays.replaceChildren(...view.overlays().map((name) => {
      const onchange = (event) => view.choose(name, event.target.checked);
      const checked = view.chosen.has(name);
      const box = make("input", { type: "checkbox", checked, onchange });
      return make("label", { title: `Show or hide: ${name}` }, box, name);
    }));
    this.update();
  }

  update() {
    const { view } = this, { model, strokes, undone } = view.shared;
    this.classes.forEach((chosen, label) => {
      const name = model.get("names")[label] ?? `class ${label}`;
      chosen.replaceChildren(this.swatches[label], name);
      chosen.title = chosen.ariaLabel = `Paint ${name} (${label + 1})`;
      chosen.ariaPressed = view.tool === label;
      this.swatches[label].style.background = `rgb(${model.get("colours")[label]})`;
    });
    this.eraser.ariaPressed = view.tool === NONE;
    this.hide.ariaPressed = view.hidden;
    this.size.value = view.sizeOf(view.tool);
    this.sizeText.textContent = `${this.size.value} px`;
    this.opacity.value = 100 * view.opacity;
    this.undo.disabled = !strokes.length;
    this.redo.disabled = !undone.length;
  }
}

// ---- a view: a canvas on the image, at a place and a zoom of its own ----

const STYLE = `
.onelabel-painter { outline: none; color: var(--jp-ui-font-color1, #222); padding: 2px;
  font: 13px var(--jp-ui-font-family, sans-serif); }
.onelabel-painter:focus-within .stage { border-color: var(--jp-brand-color1, #1976d2); }
.onelabel-painter .tools { display: flex; flex-wrap: wrap; gap: 4px 14px;
  padding: 2px 0 6px; }
.onelabel-painter .group, .onelabel-painter label { display: inline-flex;
  align-items: center; gap: 4px; }
.onelabel-painter button { font: inherit; color: inherit; padding: 2px 8px; cursor: pointer;
  border: 1px solid var(--jp-border-color1, #bbb); border-radius: 3px;
  background: var(--jp-layout-color2, #eee); }
.onelabel-painter button[aria-pressed="true"] {
  border-color: var(--jp-brand-color1, #1976d2);
  box-shadow: inset 0 0 0 1px var(--jp-brand-color1, #1976d2); }
.onelabel-painter button:disabled { opacity: 0.4; cursor: default; }
.onelabel-painter button:focus-visible, .onelabel-painter input:focus-visible {
  outline: 2px solid var(--jp-brand-color1, #1976d2); }
.onelabel-painter input[type="range"] { width: 100px; }
.onelabel-painter output { min-width: 3.5em; }
.onelabel-painter .swatch { display: inline-block; width: 0.8em; height: 0.8em;
  margin-right: 5px; border-radius: 2px; vertical-align: -1px; }
.onelabel-painter .keys { display: grid; padding-bottom: 6px; gap: 2px 20px;
  grid-template-columns: repeat(auto-fill, minmax(min(420px, 100%), 1fr)); }
.onelabel-painter .keys b { display: inline-block; min-width: 225px; }
.onelabel-painter [hidden] { display: none !important; }
.onelabel-painter .stage { position: relative; overflow: hidden; height: ${HEIGHT}px;
  border: 2px solid var(--jp-border-color1, #bbb);
  background: var(--jp-layout-color2, #eee); }
.onelabel-painter canvas { position: absolute; width: 100%; height: 100%;
  touch-action: none; cursor: crosshair; }
.onelabel-painter .ring { position: absolute; left: 0; top: 0; pointer-events: none;
  box-sizing: border-box; border: 1.5px solid; border-radius: 50%;
  box-shadow: 0 0 0 1px #000, inset 0 0 0 1px #000; }
.onelabel-painter .status { min-height: 1.4em; padding-top: 4px; }
`;

class View {
  constructor(shared, model, el) {
    Object.assign(this, { shared, id: unique(), zoom: 1, offset: { x: 0, y: 0 } });
    this.screen = { width: 0, height: 0 }; // of the canvas, in CSS pixels
    this.raster = new Labels();
    this.layers = {}; // by name: what was asked for, and what is there
    this.chosen = new Set(); // overlays
    this.known = new Set(); // overlays that the user could choose
    Object.assign(this, { tool: 0, brush: 20, eraser: 40, opacity: 0.35, hidden: false });
    this.pointers = new Map(); // those that are down
    this.gesture = null; // "paint", "pan", "pinch" or null
    this.build(el);
    model.on("change:names", () => this.toolbar.update());
    model.on("change:colours", () => this.recolour());
    model.on("change:status", () => this.report());
    this.sizes = new ResizeObserver(() => this.measure());
    this.sizes.observe(this.stage);
    this.report();
    this.toolbar.update();
    if (shared.picture) this.begin();
  }

  build(el) {
    this.canvas = make("canvas", { ariaLabel: "The image, to paint on" });
    this.context = this.canvas.getContext("2d");
    this.ring = make("div", { className: "ring", hidden: true });
    this.stage = make("div", { className: "stage" }, this.canvas, this.ring);
    this.status = make("div", { className: "status", role: "status" });
    this.toolbar = new Toolbar(this);
    const style = make("style", {}, STYLE);
    const parts = [style, this.toolbar.element, this.stage, this.status];
    this.root = make("div", { className: "onelabel-painter", tabIndex: 0 }, ...parts);
    this.root.dataset.lmSuppressShortcuts = "true"; // JupyterLab's own keys, such as X
    el.append(this.root);
    const on = (element, type, act, options) => {
      element.addEventListener(type, (event) => act.call(this, event), options);
    };
    on(this.canvas, "pointerdown", this.down);
    on(this.canvas, "pointermove", this.move);
    on(this.canvas, "pointerup", (event) => this.up(event, true));
    on(this.canvas, "pointercancel", (event) => this.up(event, false));
    on(this.canvas, "pointerleave", () => this.hover(null));
    on(this.canvas, "contextmenu", (event) => this.use(event));
    on(this.canvas, "wheel", this.wheel, { passive: false });
    on(this.root, "keydown", this.key);
    on(this.root, "keyup", (event) => event.key === " " && this.hold(false));
    on(this.root, "focusout", () => this.hold(false));
  }

  close() {
    this.sizes.disconnect();
    cancelAnimationFrame(this.planned);
    this.shared.views.delete(this);
  }

  focus() {
    this.root.focus({ preventScroll: true });
  }

  /** Keep an event from the page around. */
  use(event) {
    event.preventDefault();
    event.stopPropagation();
  }

  // -- what is shown --

  overlays() {
    return this.shared.layers.filter((name) => !BASE.includes(name));
  }

  /** Show another image. */
  begin() {
    this.overlays().forEach((name, i) => {
      if (i === 0 && !this.known.has(name)) this.chosen.add(name);
      this.known.add(name);
    });
    Object.assign(this, { layers: {}, waiting: null, stroke: null, gesture: null });
    this.toolbar.begin();
    this.redraw();
    if (this.shared.place) this.go(this.shared.place);
    else this.fit();
  }

  measure() {
    const { clientWidth: width, clientHeight: height } = this.stage;
    if (!width || !height) return; // it is out of view
    // What is in the middle stays there.
    this.offset.x += (this.screen.width - width) / 2 / this.zoom;
    this.offset.y += (this.screen.height - height) / 2 / this.zoom;
    this.screen = { width, height };
    if (this.place) this.go(this.place);
    this.plan();
  }

  fit() {
    if (!this.shared.picture) return;
    const [bottom, right] = this.shared.shape;
    this.go({ top: 0, left: 0, bottom, right });
  }

  /** Show a block of the image as large as it fits, until the user moves. */
  go(place) {
    const { width, height } = this.screen, { top, left, bottom, right } = place;
    this.place = place;
    if (!width) return; // it does when the canvas has a size
    this.zoom = Math.min(width / (right - left), height / (bottom - top), CLOSEST);
    this.offset.x = (left + right - width / this.zoom) / 2;
    this.offset.y = (top + bottom - height / this.zoom) / 2;
    this.plan();
  }

  /** Move a point of the picture from one place of the canvas to another, and zoom. */
  drag(from, to, factor = 1) {
    const { width, height } = this.screen, [rows, columns] = this.shared.shape;
    const { x, y } = this.pointAt(from), whole = Math.min(width / columns, height / rows);
    this.zoom = clamp(this.zoom * factor, Math.min(whole, 1) / 2, CLOSEST);
    const edge = this.canvas.getBoundingClientRect();
    // The middle of the canvas stays on the image.
    const halfX = width / 2 / this.zoom, halfY = height / 2 / this.zoom;
    this.offset.x = clamp(x - (to.x - edge.left) / this.zoom, -halfX, columns - halfX);
    this.offset.y = clamp(y - (to.y - edge.top) / this.zoom, -halfY, rows - halfY);
    this.place = null;
    this.plan();
  }

  zoomBy(factor) {
    const edge = this.canvas.getBoundingClientRect();
    const centre = { x: edge.left + edge.width / 2, y: edge.top + edge.height / 2 };
    this.drag(centre, centre, factor);
  }

  /** The place in the image of a point on the page. */
  pointAt({ x, y }) {
    const edge = this.canvas.getBoundingClientRect();
    return {
      x: this.offset.x + (x - edge.left) / this.zoom,
      y: this.offset.y + (y - edge.top) / this.zoom,
    };
  }

  /** Where the centre of a pixel of the image is on the page. */
  toScreen(x, y) {
    const edge = this.canvas.getBoundingClientRect();
    return {
      x: edge.left + (x + 0.5 - this.offset.x) * this.zoom,
      y: edge.top + (y + 0.5 - this.offset.y) * this.zoom,
    };
  }

  /** The part of the image that the canvas sees; its step divides top and left. */
  seen() {
    const [rows, columns] = this.shared.shape, { x, y } = this.offset;
    const step = Math.max(Math.floor(1 / this.scale() + 1e-9), 1);
    const first = (at, end) => Math.floor(clamp(at, 0, end - 1) / step) * step;
    const last = (at, end) => clamp(Math.ceil(at), 1, end);
    return {
      top: first(y, rows), left: first(x, columns),
      bottom: last(y + this.screen.height / this.zoom, rows),
      right: last(x + this.screen.width / this.zoom, columns), step,
    };
  }

  /** Pixels of the device to a pixel of the image. */
  scale() {
    return this.zoom * devicePixelRatio;
  }

  // -- layers --

  hear(message, buffers) {
    if (message.kind === "go" && !this.gesture) this.go(message.place);
    if (message.kind === "changed") this.forget(message.layers);
    if (message.view !== this.id) return;
    if (message.kind === "layer") this.receive(message, buffers[0]);
    if (message.kind === "looked") this.waiting = null;
    this.plan();
  }

  layer(name) {
    return (this.layers[name] ??= { asked: null, turn: 0, now: null, whole: null });
  }

  /** Layers have changed; what is there is shown until the new pixels come. */
  forget(names) {
    for (const name of names) Object.assign(this.layer(name), { asked: null, whole: null });
    this.plan();
  }

  wants(name) {
    return BASE.includes(name) || (this.chosen.has(name) && !this.hidden);
  }

  /** Ask for what is missing, one question at a time. */
  look(window) {
    if (this.waiting) {
      if (performance.now() - this.waiting < PATIENCE) return;
      this.forget(this.shared.layers); // the answer was lost
    }
    const asked = keyOf(window);
    const missing = (name) => this.wants(name) && this.layer(name).asked !== asked;
    const layers = this.shared.layers.filter(missing);
    if (!layers.length) return;
    for (const name of layers) this.layer(name).asked = asked;
    this.waiting = performance.now();
    this.shared.tell({ kind: "look", view: this.id, window, layers });
  }

  async receive({ name, labels, window, picture }, buffer) {
    const layer = this.layer(name), turn = (this.turn = (this.turn ?? 0) + 1);
    const bitmap = await createImageBitmap(new Blob([buffer], { type: "image/png" }));
    if (picture !== this.shared.picture || turn < layer.turn) return;
    layer.turn = turn;
    layer.now = { window, ...(labels ? this.coloured(bitmap) : { source: bitmap }) };
    const [rows, columns] = this.shared.shape;
    const { top, left, bottom, right } = window;
    const all = top === 0 && left === 0 && bottom === rows && right === columns;
    if (all) layer.whole = layer.now;
    if (name === "start") this.redraw();
    this.plan();
  }

  /** Labels as numbers, and as a picture of the classes' colours. */
  coloured(bitmap) {
    const { width, height } = bitmap, source = make("canvas", { width, height });
    const context = source.getContext("2d", { willReadFrequently: true });
    context.drawImage(bitmap, 0, 0);
    const image = context.getImageData(0, 0, width, height);
    const values = new Uint8Array(width * height);
    const colours = new Uint32Array(image.data.buffer), palette = this.palette();
    for (let i = 0; i < values.length; i++) {
      values[i] = image.data[4 * i];
      colours[i] = palette[values[i]];
    }
    context.putImageData(image, 0, 0);
    return { source, values, columns: width };
  }

  /** The colour of each label as the bytes red, green, blue and opacity. */
  palette() {
    const palette = new Uint32Array(256);
    this.shared.model.get("colours").forEach((colour, label) => {
      palette[label] = new Uint32Array(Uint8Array.of(...colour, 255).buffer)[0];
    });
    return palette;
  }

  // -- drawing --

  /** Strokes were added at the end; null where the strokes changed otherwise. */
  change(more) {
    if (more) for (const stroke of more) this.raster.draw(stroke);
    else this.redraw();
    this.toolbar.update();
    this.plan();
  }

  /** Draw all labels anew, before the next frame. */
  redraw() {
    this.stale = true;
    this.plan();
  }

  /** Bring the labels to the window that is seen. */
  update() {
    const window = this.seen();
    if (!this.stale && keyOf(window) === keyOf(this.raster.window)) return;
    const { whole, now } = this.layers.start ?? {};
    this.raster.begin(window, [whole, now].filter(Boolean));
    for (const stroke of this.shared.strokes) {
      if (reaches(stroke, window)) this.raster.draw(stroke);
    }
    if (this.stroke) this.raster.draw(this.stroke);
    this.stale = false;
  }

  plan() {
    this.planned ??= requestAnimationFrame(() => {
      this.planned = undefined;
      if (this.shared.picture && this.screen.width) this.frame();
    });
  }

  frame() {
    this.update();
    this.look(this.raster.window);
    const { canvas, context, layers } = this;
    const sizes = [this.screen.width, this.screen.height];
    const [width, height] = sizes.map((size) => Math.round(size * devicePixelRatio));
    if (canvas.width !== width || canvas.height !== height) {
      Object.assign(canvas, { width, height });
    }
    context.clearRect(0, 0, width, height);
    context.globalAlpha = 1;
    context.imageSmoothingEnabled = this.scale() < 3;
    this.drawLayer(layers.image);
    context.imageSmoothingEnabled = false;
    if (!this.hidden) {
      context.globalAlpha = this.opacity;
      for (const name of this.overlays()) {
        if (this.chosen.has(name)) this.drawLayer(layers[name]);
      }
      context.globalAlpha = Math.sqrt(this.opacity); // strokes stand out from overlays
      this.raster.upload(this.palette());
      this.drawPixels(this.raster.canvas, this.raster.window);
    }
    this.drawRing();
    if (this.since) this.latency = performance.now() - this.since;
    this.since = null;
  }

  /** Draw a layer's pixels, and around them those of the whole image, if coarser. */
  drawLayer(layer) {
    if (!layer?.now) return;
    const { whole, now } = layer, { context } = this;
    if (whole && keyOf(now.window) !== keyOf(this.raster.window)) {
      context.save();
      const around = new Path2D();
      around.rect(0, 0, this.canvas.width, this.canvas.height);
      around.rect(...this.rectangle(now.window));
      context.clip(around, "evenodd");
      this.drawPixels(whole.source, whole.window);
      context.restore();
    }
    this.drawPixels(now.source, now.window);
  }

  drawPixels(source, window) {
    this.context.drawImage(source, ...this.rectangle(window));
  }

  /** Where the pixels of a window lie on the canvas: x, y, width, height. */
  rectangle({ top, left, bottom, right, step }) {
    const scale = this.scale(), long = (size) => Math.ceil(size / step) * step * scale;
    const x = (left - this.offset.x) * scale, y = (top - this.offset.y) * scale;
    return [x, y, long(right - left), long(bottom - top)];
  }

  /** Draw what the brush will cover, where the cursor is. */
  drawRing() {
    const { ring, canvas } = this, tool = this.stroke?.label ?? this.tool;
    const moves = this.space || this.gesture === "pan";
    canvas.style.cursor = moves ? "grab" : "crosshair";
    ring.hidden = moves || !this.cursor;
    if (ring.hidden) return;
    const { x, y } = this.pointAt(this.cursor), edge = canvas.getBoundingClientRect();
    const radius = this.stroke?.radius ?? this.radiusOf(tool);
    const across = (2 * radius + 1) * this.zoom + 3; // its border is outside
    const centre = this.toScreen(Math.floor(x), Math.floor(y));
    const left = centre.x - edge.left - across / 2, top = centre.y - edge.top - across / 2;
    const colour = this.shared.model.get("colours")[tool];
    Object.assign(ring.style, {
      width: `${across}px`, height: `${across}px`,
      transform: `translate(${left}px, ${top}px)`,
      borderColor: colour ? `rgb(${colour})` : "#fff",
      borderStyle: colour ? "solid" : "dashed",
    });
  }

  // -- tools --

  /** Change the tool, the opacity, or whether labels are hidden. */
  set(values) {
    Object.assign(this, values);
    this.toolbar.update();
    this.plan();
  }

  sizeOf(tool) {
    return tool === NONE ? this.eraser : this.brush;
  }

  /** The radius in the image of a brush whose size is one of the screen. */
  radiusOf(tool) {
    return clamp(Math.round((this.sizeOf(tool) / this.zoom - 1) / 2), 0, LARGEST);
  }

  resize(size) {
    this[this.tool === NONE ? "eraser" : "brush"] = clamp(Math.round(size), 1, MOST);
    this.toolbar.update();
    this.plan();
  }

  choose(name, shown) {
    if (shown) this.chosen.add(name);
    else this.chosen.delete(name);
    this.plan();
  }

  report() {
    this.status.textContent = this.shared.late ? LATE : this.shared.model.get("status");
  }

  recolour() {
    this.toolbar.update();
    this.forget(this.overlays());
    this.redraw();
  }

  undo() {
    if (this.stroke) this.drop();
    else this.shared.undo();
  }

  hold(space) {
    this.space = space;
    this.plan();
  }

  key(event) {
    const inTools = event.target !== this.root;
    // Space and Enter press a button, as everywhere.
    if (inTools && (event.key === " " || event.key === "Enter")) return;
    // Of other alphabets, the key's place tells.
    const name = /^[ -~]/.test(event.key) ? event.key : event.code.replace("Key", "");
    const key = name.toLowerCase(), size = this.sizeOf(this.tool);
    const smaller = Math.min(size - 1, size / 1.25);
    const larger = Math.max(size + 1, size * 1.25);
    const withControl = {
      z: () => (event.shiftKey ? this.shared.redo() : this.undo()),
      y: () => this.shared.redo(),
      s: () => {}, // strokes are kept already: no dialog of the browser's
    };
    const plain = {
      1: () => this.set({ tool: 0 }), 2: () => this.set({ tool: 1 }),
      x: () => this.set({ tool: NONE }),
      "[": () => this.resize(smaller), "]": () => this.resize(larger),
      h: () => this.set({ hidden: !this.hidden }), 0: () => this.fit(),
      "+": () => this.zoomBy(1.25), "=": () => this.zoomBy(1.25),
      "-": () => this.zoomBy(0.8), " ": () => this.hold(true),
      enter: () => event.repeat || this.shared.tell({ kind: "enter" }),
    };
    // Where [ is made by AltGr, that may read as Ctrl and Alt.
    const control = (event.ctrlKey || event.metaKey) && !event.altKey;
    const act = (control ? withControl : plain)[key];
    if (!act || !this.shared.picture) return;
    this.use(event);
    act();
  }

  /** Zoom at the cursor; a page that the painter has no focus of is scrolled. */
  wheel(event) {
    if (!this.shared.picture) return;
    if (!event.ctrlKey && !this.root.contains(document.activeElement)) return;
    this.use(event);
    const pixels = event.deltaY * [1, 16, 400][event.deltaMode];
    const cursor = { x: event.clientX, y: event.clientY };
    this.drag(cursor, cursor, Math.exp(-clamp(pixels, -200, 200) / 400));
  }

  // -- mouse, pen and touch --

  down(event) {
    this.use(event);
    if (!this.shared.picture) return;
    this.focus();
    this.canvas.setPointerCapture(event.pointerId);
    const touch = event.pointerType === "touch";
    this.pointers.set(event.pointerId, { x: event.clientX, y: event.clientY, touch });
    const fingers = [...this.pointers.values()];
    if (fingers.length === 2 && fingers.every((finger) => finger.touch)) {
      this.drop();
      this.gesture = "pinch";
    } else if (fingers.length === 1 || event.pointerType === "pen") {
      this.drop(); // what the hand has begun that holds the pen
      this.leader = event.pointerId;
      const { button } = event; // 5 is the other end of a pen
      if (button === 1 || this.space) this.gesture = "pan";
      else if (button === 0) this.start(this.tool);
      else if (button === 2 || button === 5) this.start(NONE);
    }
    this.move(event);
  }

  start(label) {
    this.gesture = "paint";
    this.set({ hidden: false }); // nobody paints blindly
    this.drawn = 0;
    this.stroke = { id: unique(), label, radius: this.radiusOf(label), points: [] };
  }

  move(event) {
    const here = { x: event.clientX, y: event.clientY };
    this.hover(event.pointerType === "touch" ? null : here);
    const before = this.pointers.get(event.pointerId);
    if (!before) return;
    this.since ??= event.timeStamp;
    const leads = event.pointerId === this.leader;
    if (this.gesture === "pinch") this.pinch(event.pointerId, here);
    if (this.gesture === "pan" && leads) this.drag(before, here);
    if (this.gesture === "paint" && leads) this.paint(event);
    Object.assign(before, here);
  }

  hover(cursor) {
    this.cursor = cursor;
    this.plan();
  }

  pinch(moved, here) {
    const others = [...this.pointers].filter(([id]) => id !== moved);
    const before = this.pointers.get(moved), other = others[0][1];
    const apart = (finger) => Math.hypot(finger.x - other.x, finger.y - other.y) || 1;
    const between = ({ x, y }) => ({ x: (x + other.x) / 2, y: (y + other.y) / 2 });
    this.drag(between(before), between(here), apart(here) / apart(before));
  }

  /** Lead the stroke in hand to where the pointer is, by all places it was seen at. */
  paint(event) {
    const events = event.getCoalescedEvents?.() ?? [], { points } = this.stroke;
    for (const { clientX, clientY } of events.length ? events : [event]) {
      const { x, y } = this.pointAt({ x: clientX, y: clientY });
      const point = [Math.floor(x), Math.floor(y)], last = points.at(-1);
      if (point[0] !== last?.[0] || point[1] !== last?.[1]) points.push(point);
    }
    this.update();
    if (points.length > this.drawn) this.raster.draw(this.stroke, this.drawn);
    this.drawn = points.length;
    this.plan();
  }

  up(event, done) {
    if (!this.pointers.delete(event.pointerId)) return;
    const leads = event.pointerId === this.leader, { stroke } = this;
    if (stroke && leads && done) {
      this.stroke = null;
      this.shared.add(stroke);
    }
    if (leads) this.drop();
    // A finger that is left of several neither paints nor moves the picture.
    if (leads || this.gesture === "pinch") this.gesture = "over";
    if (!this.pointers.size) this.gesture = null;
    this.plan();
  }

  /** Give up the stroke in hand. */
  drop() {
    if (!this.stroke) return;
    Object.assign(this, { stroke: null, gesture: "over" });
    this.redraw();
  }

  // -- for tests --

  labels() {
    this.update();
    return this.raster.values;
  }

  get window() {
    this.update();
    return this.raster.window;
  }

  /** Whether all pixels that the view wants are there. */
  get settled() {
    if (this.planned || !this.shared.picture || !this.screen.width) return false;
    const seen = keyOf(this.window);
    const there = (name) => keyOf(this.layers[name]?.now?.window ?? {});
    return this.shared.layers.every((name) => !this.wants(name) || there(name) === seen);
  }
}

export default () => {
  let shared; // one for each widget in a page, whatever views it has
  return {
    initialize({ model }) {
      shared = new Shared(model);
    },
    render({ model, el }) {
      const view = new View(shared, model, el);
      const views = (window.onelabelPainters ??= []); // for tests
      shared.views.add(view);
      views.push(view);
      return () => {
        view.close();
        views.splice(views.indexOf(view), 1);
      };
    },
  };
};
