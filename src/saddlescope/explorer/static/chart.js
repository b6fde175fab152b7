// One set of axes drawn as SVG, sized to the element that holds it, with its file exports.

const SVG = "http://www.w3.org/2000/svg";
const STYLES = ["fill", "stroke", "stroke-width", "stroke-dasharray", "opacity", "font-family", "font-size"];
let clips = 0;

export function make(name, attributes = {}, parent = null, text = null) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== null) element.textContent = text;
  if (parent) parent.append(element);
  return element;
}

/** Return round numbers in [low, high], about `count` of them. */
export function ticks(low, high, count) {
  const rough = (high - low) / Math.max(1, count);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough * 0.75) ?? rough;
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9 && found.length < 50; k++) found.push(k * step);
  return found;
}

/** Return a number as text of so many digits; null stands for infinity. */
export function short(x, digits = 4) {
  if (x === null || !Number.isFinite(x)) return "∞";
  const size = Math.abs(x), plain = String(Number(x.toPrecision(digits)));
  return ((size && size < 1e-3) || size >= 1e6 ? Number(x.toPrecision(digits)).toExponential().replace("e+", "e") : plain).replaceAll("-", "−");
}

export const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

export class Chart {
  /** @param {HTMLElement} figure holds the picture; `ratio` is its height over its width. */
  constructor(figure, { title, xlabel = "", ylabel = "", ratio = 0.72, legendRows = 0, name = figure.id } = {}) {
    Object.assign(this, { figure, xlabel, ylabel, ratio, legendRows });
    this.svg = make("svg", { role: "img", "aria-label": title });
    figure.append(this.svg);
    const row = document.createElement("div");
    row.className = "save";
    for (const kind of ["SVG", "PNG"]) {
      const button = document.createElement("button");
      Object.assign(button, { type: "button", className: "small", textContent: kind, title: `Save as ${kind}` });
      button.setAttribute("aria-label", `Save ${title} as ${kind}`);
      button.onclick = () => this.save(kind, `saddlescope-${name}`);
      row.append(button);
    }
    figure.append(row);
    this.clip = `clip-${++clips}`;
  }

  /** Begin anew, with the ends of both axes. */
  frame(x, y) {
    const width = Math.max(220, Math.round(this.figure.clientWidth)), right = 16, below = 36;
    const top = 8 + 17 * this.legendRows, height = Math.max(170, Math.round(width * this.ratio)) + 17 * this.legendRows;
    const levels = ticks(...y, (height - top - below) / 45), left = 25 + 6.8 * Math.max(...levels.map((t) => short(t, 3).length));
    this.area = { left, top, width: width - left - right, height: height - top - below };
    Object.assign(this, { x, y, rows: 0 });
    this.svg.replaceChildren();
    for (const [key, value] of Object.entries({ width, height, viewBox: `0 0 ${width} ${height}` })) this.svg.setAttribute(key, value);
    this.svg.dataset.x = JSON.stringify(x);
    this.svg.dataset.y = JSON.stringify(y);
    this.svg.dataset.area = JSON.stringify(this.area);
    const area = this.area, box = { x: left, y: top, width: area.width, height: area.height };
    make("rect", box, make("clipPath", { id: this.clip }, make("defs", {}, this.svg)));
    const grid = make("g", {}, this.svg);
    this.back = make("g", { "clip-path": `url(#${this.clip})` }, this.svg);
    const lines = make("g", {}, this.svg);
    this.plot = make("g", { "clip-path": `url(#${this.clip})`, class: "plot" }, this.svg);
    make("rect", { ...box, fill: "transparent" }, this.plot);
    for (const t of ticks(...x, area.width / 75)) {
      make("path", { class: "grid", d: `M${this.px(t)} ${top}v${area.height}` }, grid);
      make("text", { x: this.px(t), y: top + area.height + 15, "text-anchor": "middle" }, lines, short(t));
    }
    for (const t of levels) {
      make("path", { class: "grid", d: `M${left} ${this.py(t)}h${area.width}` }, grid);
      make("text", { x: left - 5, y: this.py(t) + 4, "text-anchor": "end" }, lines, short(t, 3));
    }
    make("path", { class: "axis", d: `M${left} ${top}v${area.height}h${area.width}` }, lines);
    make("text", { x: left + area.width / 2, y: height - 5, "text-anchor": "middle", class: "title" }, lines, this.xlabel);
    const turned = `translate(11 ${top + area.height / 2}) rotate(-90)`;
    make("text", { transform: turned, "text-anchor": "middle", class: "title" }, lines, this.ylabel);
    this.cursor = 0;
    return this;
  }

  px(x) { return this.area.left + ((x - this.x[0]) / (this.x[1] - this.x[0])) * this.area.width; }
  py(y) { return this.area.top + ((this.y[1] - y) / (this.y[1] - this.y[0])) * this.area.height; }

  /** Return the point of the plane under a pointer, null outside the axes. */
  at(event) {
    const box = this.svg.getBoundingClientRect(), { left, top, width, height } = this.area;
    const u = (event.clientX - box.left - left) / width, v = (event.clientY - box.top - top) / height;
    if (u < 0 || u > 1 || v < 0 || v > 1) return null;
    return [this.x[0] + u * (this.x[1] - this.x[0]), this.y[1] - v * (this.y[1] - this.y[0])];
  }

  /** Draw a line through (xs, ys), broken where a number is not finite or far outside. */
  line(xs, ys, attributes = {}) {
    const limit = 1e5;
    let d = "", pen = false;
    for (let k = 0; k < xs.length; k++) {
      const x = this.px(xs[k]), y = this.py(ys[k]);
      if (Math.abs(x) < limit && Math.abs(y) < limit) {
        d += `${pen ? "L" : "M"}${x.toFixed(2)} ${y.toFixed(2)}`;
        pen = true;
      } else pen = false;
    }
    return make("path", { d, fill: "none", "stroke-linejoin": "round", ...attributes }, this.plot);
  }

  dots(xs, ys, r, attributes = {}) {
    let d = "";
    for (let k = 0; k < xs.length; k++) {
      const x = this.px(xs[k]), y = this.py(ys[k]);
      if (Math.abs(x) < 1e5 && Math.abs(y) < 1e5) d += `M${x.toFixed(2)} ${y.toFixed(2)}h0`;
    }
    return make("path", { d, "stroke-width": 2 * r, "stroke-linecap": "round", fill: "none", ...attributes }, this.plot);
  }

  segments(pairs, attributes = {}) {
    const d = pairs.map(([a, b, c, e]) => `M${this.px(a).toFixed(2)} ${this.py(b).toFixed(2)}L${this.px(c).toFixed(2)} ${this.py(e).toFixed(2)}`);
    return make("path", { d: d.join(""), fill: "none", ...attributes }, this.plot);
  }

  bar(x0, x1, y0, y1, attributes = {}) {
    const x = this.px(x0), y = this.py(y1);
    return make("rect", { x, y, width: Math.max(0.5, this.px(x1) - x), height: Math.max(0, this.py(y0) - y), ...attributes }, this.plot);
  }

  vertical(x, attributes = {}) {
    return make("path", { d: `M${this.px(x)} ${this.area.top}v${this.area.height}`, fill: "none", ...attributes }, this.plot);
  }

  image(canvas, x, y, pixelated) {
    const left = this.px(x[0]), top = this.py(y[1]);
    const image = make("image", { x: left, y: top, width: this.px(x[1]) - left, height: this.py(y[0]) - top, preserveAspectRatio: "none", href: canvas.toDataURL() }, this.back);
    if (pixelated) image.setAttribute("image-rendering", "pixelated");
    return image;
  }

  /** Mark a point with a shape: "star", "cross", "plus", "triangle", "diamond", "square" or "circle". */
  marker(x, y, shape, attributes = {}, size = 6) {
    const s = size, shapes = {
      circle: `M${-s} 0a${s} ${s} 0 1 0 ${2 * s} 0a${s} ${s} 0 1 0 ${-2 * s} 0z`,
      square: `M${-s} ${-s}h${2 * s}v${2 * s}h${-2 * s}z`,
      diamond: `M0 ${-1.2 * s}L${1.2 * s} 0L0 ${1.2 * s}L${-1.2 * s} 0z`,
      triangle: `M0 ${-1.1 * s}L${s} ${0.8 * s}H${-s}z`,
      plus: `M${-s} ${-s / 3}h${(2 * s) / 3}v${(-2 * s) / 3}h${(2 * s) / 3}v${(2 * s) / 3}h${(2 * s) / 3}v${(2 * s) / 3}h${(-2 * s) / 3}v${(2 * s) / 3}h${(-2 * s) / 3}v${(-2 * s) / 3}h${(-2 * s) / 3}z`,
      star: Array.from({ length: 10 }, (_, k) => {
        const r = (k % 2 ? 0.5 : 1.25) * s, a = (Math.PI * k) / 5;
        return `${k ? "L" : "M"}${(r * Math.sin(a)).toFixed(2)} ${(-r * Math.cos(a)).toFixed(2)}`;
      }).join("") + "z",
    };
    const turn = shape === "cross" ? " rotate(45)" : "";
    const place = { transform: `translate(${this.px(x).toFixed(2)} ${this.py(y).toFixed(2)})${turn}`, d: shapes[shape === "cross" ? "plus" : shape] };
    return make("path", { ...place, fill: "#fff", stroke: "#222", "stroke-width": 1.2, ...attributes }, this.plot);
  }

  /** Add an entry above the axes: a swatch and its text. */
  legend(text, attributes) {
    const group = make("g", {}, this.svg), label = make("text", { x: 20, y: 4 }, group, text);
    make("path", { d: "M2 0h14", "stroke-width": 3, fill: "none", ...attributes }, group);
    const needed = 30 + label.getComputedTextLength();
    if (this.cursor && this.cursor + needed > this.area.left + this.area.width) { this.rows++; this.cursor = 0; }
    if (!this.cursor) this.cursor = this.area.left;
    group.setAttribute("transform", `translate(${this.cursor} ${12 + 17 * this.rows})`);
    this.cursor += needed;
  }

  /** Return the picture as a document of its own: every style written out. */
  document() {
    const copy = this.svg.cloneNode(true);
    const from = [this.svg, ...this.svg.querySelectorAll("*")], to = [copy, ...copy.querySelectorAll("*")];
    from.forEach((element, k) => {
      const style = getComputedStyle(element);
      for (const name of STYLES) to[k].setAttribute(name, style.getPropertyValue(name));
      for (const name of ["class", "tabindex"]) to[k].removeAttribute(name);
    });
    const box = { x: 0, y: 0, width: "100%", height: "100%", fill: css("--card") };
    copy.prepend(make("rect", box));
    copy.setAttribute("xmlns", SVG);
    return new XMLSerializer().serializeToString(copy);
  }

  async save(kind, name) {
    let blob = new Blob([this.document()], { type: "image/svg+xml" });
    if (kind === "PNG") {
      const picture = new Image(), address = URL.createObjectURL(blob), scale = 3;
      picture.src = address;
      await picture.decode();
      URL.revokeObjectURL(address);
      const canvas = Object.assign(document.createElement("canvas"), { width: scale * this.svg.clientWidth, height: scale * this.svg.clientHeight });
      canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
      blob = await new Promise((done) => canvas.toBlob(done, "image/png"));
    }
    const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: `${name}.${kind.toLowerCase()}` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }
}
