// A live curve in an SVG element: one series over the seconds of a run, and the limit that it can't pass.

const NS = "http://www.w3.org/2000/svg";
const MARGIN = { top: 14, right: 14, bottom: 22, left: 62 };

function draw(parent, name, attributes, text = "") {
  const element = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.textContent = text;
  parent.append(element);
}

// A step for at most `count` marks of an axis: 1, 2 or 5 times a power of ten.
function roundStep(range, count) {
  const rough = range / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= rough);
}

export class Plot {
  // svg: where; title: of what; readout: element for the newest value; format: number to text;
  // lines: of the grid, up to the limit.
  constructor(svg, { title, readout, format, lines }) {
    Object.assign(this, { svg, title, readout, format, lines });
    this.limit = 1;
    this.seconds = 1;
    this.pointer = null;
    this.reset();
    new ResizeObserver(() => this.render()).observe(svg);
    svg.addEventListener("pointermove", (event) => { this.pointer = event.offsetX; this.render(); });
    svg.addEventListener("pointerleave", () => { this.pointer = null; this.render(); });
  }

  scale(limit, seconds) {
    this.limit = limit;
    this.seconds = seconds;
    this.render();
  }

  reset() {
    this.points = [];
    this.render();
  }

  add(second, value) {
    if (value === null) return;
    this.points.push([second, value]);
    this.render();
  }

  render() {
    const { svg, points, limit } = this;
    const width = svg.clientWidth, height = svg.clientHeight;
    const last = points.at(-1);
    const most = 1.1 * Math.max(limit, ...points.map(([, value]) => value));
    const end = Math.max(this.seconds, last ? last[0] : 0);
    const x = (second) => MARGIN.left + (width - MARGIN.left - MARGIN.right) * second / end;
    const y = (value) => height - MARGIN.bottom - (height - MARGIN.top - MARGIN.bottom) * value / most;
    svg.replaceChildren();
    for (let value = 0; value <= most; value += limit / this.lines) {
      draw(svg, "line", { class: "grid", x1: x(0), x2: x(end), y1: y(value), y2: y(value) });
      draw(svg, "text", { x: x(0) - 8, y: y(value) + 4, "text-anchor": "end" }, this.format(value));
    }
    for (let second = 0; second <= end; second += roundStep(end, 5))
      draw(svg, "text", { x: x(second), y: height - 5, "text-anchor": "middle" }, `${second} s`);
    draw(svg, "line", { class: "limit", x1: x(0), x2: x(end), y1: y(limit), y2: y(limit) });
    draw(svg, "text", { x: x(end), y: y(limit) - 5, "text-anchor": "end" }, "limit");
    if (last) {
      const curve = points.map(([second, value]) => `${x(second).toFixed(1)},${y(value).toFixed(1)}`).join(" L");
      draw(svg, "path", { class: "area", d: `M${x(points[0][0])},${y(0)} L${curve} L${x(last[0])},${y(0)} Z` });
      draw(svg, "path", { class: "curve", d: `M${curve}` });
    }
    const shown = this.pointed(x) ?? last;
    if (shown && shown !== last)
      draw(svg, "line", { class: "pointer", x1: x(shown[0]), x2: x(shown[0]), y1: MARGIN.top, y2: y(0) });
    if (shown) draw(svg, "circle", { class: "dot-now", cx: x(shown[0]), cy: y(shown[1]), r: 5 });
    this.tell(shown, shown !== last);
  }

  // The point nearest to the mouse or finger.
  pointed(x) {
    if (this.pointer === null || !this.points.length) return null;
    const distance = ([second]) => Math.abs(x(second) - this.pointer);
    return this.points.reduce((best, point) => (distance(point) < distance(best) ? point : best));
  }

  tell(point, earlier) {
    this.readout.textContent = point ? this.format(point[1]) : "–";
    if (point) {
      const when = document.createElement("small");
      when.textContent = earlier ? ` at ${point[0].toFixed(1)} s` : ` of ${this.format(this.limit)}`;
      this.readout.append(when);
    }
    const value = point ? `${this.format(point[1])} of ${this.format(this.limit)}` : "nothing yet";
    this.svg.setAttribute("aria-label", `${this.title} over time: ${value}`);
  }
}
