// A chart of the latest round trips, drawn as SVG. Colours come from the style sheet.

const NAMESPACE = "http://www.w3.org/2000/svg";
const CAPACITY = 60;
const HEIGHT = 160;
const LEFT = 52;
const BOTTOM = 8;
const TOP = 12;

/** Draws the latest round trips into an `svg` element. */
export class Chart {
  #svg;
  #values = [];
  #width = 0;

  constructor(svg) {
    this.#svg = svg;
    svg.setAttribute("height", HEIGHT);
    new ResizeObserver(([entry]) => {
      this.#width = entry.contentRect.width;
      this.#draw();
    }).observe(svg);
  }

  /** The median of what is drawn, in milliseconds; undefined while there is nothing. */
  get median() {
    const sorted = [...this.#values].sort((a, b) => a - b);
    return sorted[Math.floor((sorted.length - 1) / 2)];
  }

  /** Adds a round trip in milliseconds. */
  add(value) {
    this.#values = [...this.#values, value].slice(-CAPACITY);
    this.#draw();
  }

  #draw() {
    const top = roundUp(Math.max(1, ...this.#values));
    const x = (index) => LEFT + ((index + 0.5) * (this.#width - LEFT)) / CAPACITY;
    const y = (value) => HEIGHT - BOTTOM - (value / top) * (HEIGHT - BOTTOM - TOP);
    const grid = [0, top / 2, top].flatMap((value) => [
      shape("line", { class: "grid", x1: LEFT, x2: this.#width, y1: y(value), y2: y(value) }),
      shape("text", { class: "scale", x: LEFT - 8, y: y(value) }, `${+value.toPrecision(3)} ms`),
    ]);
    const points = this.#values.map((value, index) => [x(index), y(value)]);
    const line = shape("polyline", { class: "line", points: points.map((point) => point.join()).join(" ") });
    const dots = points.map(([cx, cy]) => shape("circle", { class: "dot", cx, cy, r: 3.5 }));
    this.#svg.replaceChildren(...grid, line, ...dots);
    this.#svg.setAttribute("aria-label", this.#describe());
  }

  #describe() {
    if (this.#values.length === 0) return "Round trips: none yet";
    const [low, high] = [Math.min(...this.#values), Math.max(...this.#values)];
    const shown = [low, this.median, high].map((value) => value.toFixed(1));
    return `The latest ${this.#values.length} round trips: from ${shown[0]} to ${shown[2]} ms, median ${shown[1]} ms`;
  }
}

/** Returns the next of 1, 2, 5, 10, 20, 50 … that is not below the value. */
function roundUp(value) {
  const unit = 10 ** Math.floor(Math.log10(value));
  return unit * [1, 2, 5, 10].find((step) => unit * step >= value);
}

function shape(name, attributes, text = "") {
  const element = document.createElementNS(NAMESPACE, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.textContent = text;
  return element;
}
