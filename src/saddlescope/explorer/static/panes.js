// One function a picture or table: a result in, a drawing out. Nothing is computed here.

import { Chart, css, make, short } from "./chart.js";
import { contour, quantiles, shading, unpack } from "./contour.js";

const NAMES = ["no case", "Case I", "Case II", "Case III"];
const LINKS = 250;
const MARKS = { minimum: "star", saddle: "cross", maximum: "triangle", degenerate: "diamond", spurious: "diamond", cycle: "circle" };
const BASINS = {
  minimum: ["#7DB8DC", "#B5DDE9", "#4F93BF", "#9CCBC4"], saddle: ["#E8935A", "#F2C08E"], maximum: ["#D9A5C4"],
  spurious: ["#E9D36B", "#F3E7A6"], cycle: ["#8CCBAE", "#BFE3D2", "#5FAE8C"], undecided: ["#9AA1AB"],
  unstable: ["#5B6470", "#747D89"],
};
const BRANCHES = { minimum: "--gd", saddle: "--sam", maximum: "--green", degenerate: "--quiet", spurious: "--usam", "two-cycle": "--yellow" };
const EVENTS = { transcritical: "circle", pitchfork: "triangle", "saddle-node": "diamond", "period-doubling": "square" };
const INK = { stroke: "var(--ink)" };

const rgb = (name) => css(name).split(" ").map(Number);
const node = (name, text = "", kind = "") => Object.assign(document.createElement(name), { textContent: text, className: kind });
export const point = (p) => `(${p.map((x) => short(x)).join(", ")})`;

/** Return a table element; cells are texts or elements. */
export function table(heads, rows) {
  const body = node("table"), top = body.createTHead().insertRow();
  for (const head of heads) top.append(Object.assign(node("th", head), { scope: "col" }));
  const rest = body.createTBody();
  for (const cells of rows) {
    const row = rest.insertRow();
    for (const cell of cells) {
      const place = row.insertCell();
      place.append(cell);
      if (typeof cell === "string") place.className = "number";
    }
  }
  return body;
}

/** Return a text that opens to say why. */
function why(text, reason, kind = "") {
  if (!reason) return node("span", text, kind);
  const details = node("details", "", "why");
  details.append(node("summary", text, kind), node("small", reason));
  return details;
}

/** Column k of row n of an array of shape (rows, columns, 2). */
const series = ({ shape: [, length], data }, n, k) => Float64Array.from({ length }, (_, i) => data[(n * length + i) * 2 + k]);

/** Draw the loss and the critical points into a chart. */
function landscape(chart, picture, points) {
  const [x, y] = picture.bounds, grid = (picture.grid ??= unpack(picture.loss));
  chart.frame(x, y);
  chart.image(shading(grid, rgb("--low"), rgb("--high")), x, y);
  const lines = (picture.lines ??= quantiles(grid.data, 14).flatMap((level) => contour(grid, level, x, y)));
  chart.segments(lines, { class: "contour" });
  for (const p of points ?? []) chart.marker(...p.point, MARKS[p.kind], p.kind === "minimum" ? { fill: "#F0E442" } : {});
}

export function drawPath(chart, picture, run, points, colour) {
  landscape(chart, picture, points);
  const path = unpack(run.points), [count, length] = path.shape, seen = run.perturbed && unpack(run.perturbed);
  const every = Math.max(1, Math.floor((count * length) / LINKS)), links = [];
  for (let n = 0; n < count; n++) {
    const xs = series(path, n, 0), ys = series(path, n, 1);
    if (seen) {
      const px = series(seen, n, 0), py = series(seen, n, 1);
      for (let i = 0; i < length; i += every) if ([xs[i], ys[i], px[i], py[i]].every((v) => Math.abs(v) < 1e6)) links.push([xs[i], ys[i], px[i], py[i]]);
    }
    chart.line(xs, ys, { stroke: colour, "stroke-width": 2, "data-path": n });
    chart.marker(xs[0], ys[0], "plus", {}, 6);
    if (run.status[n] === "completed") chart.marker(xs[length - 1], ys[length - 1], "circle", { fill: colour, "data-end": n }, 4.5);
  }
  chart.segments(links, { stroke: "var(--usam)", "stroke-width": 0.7, opacity: 0.55, "data-links": links.length });
  chart.dots(links.map((l) => l[2]), links.map((l) => l[3]), 1.3, { stroke: "var(--usam)" });
}

export function ends(result, starts) {
  const cells = (run, n) => node("span", run.status[n] === "diverged" ? "diverged" : `${point(run.final[n])}, loss ${short(run.loss[n])}`);
  return table(["start", result.gd.label, result.optimizer.label], starts.map((start, n) => [point(start), cells(result.gd, n), cells(result.optimizer, n)]));
}

export function drawCosine(chart, run, cases) {
  chart.legendRows = chart.figure.clientWidth < 420 ? 2 : 1;
  if (!run.cosine) {
    chart.frame([0, 1], [-1.35, 1.1]);
    make("text", { x: chart.area.left + 12, y: chart.area.top + 24 }, chart.svg, `${run.label} takes one gradient a step: there is no angle`);
    return;
  }
  const cosine = unpack(run.cosine), [count, length] = cosine.shape, last = (count - 1) * length;
  const ys = cosine.data.slice(last, last + length), xs = Float64Array.from(ys, (_, k) => k);
  chart.frame([0, Math.max(1, length - 1)], [-1.35, 1.1]);
  const labels = cases && unpack(cases), row = labels && labels.data.slice((count - 1) * (length - 1), count * (length - 1));
  if (!row) chart.dots(xs, ys, 1.6, { stroke: "var(--sam)", "data-cosine": "" });
  for (let kind = 0; row && kind < 4; kind++) {
    const here = [...row.keys()].filter((k) => row[k] === kind);
    if (!here.length) continue;
    const colour = { stroke: `var(--case-${kind})` };
    chart.dots(here, here.map((k) => ys[k]), 1.6, { ...colour, "data-cosine": kind });
    chart.segments(here.map((k) => [k, -1.23, k + 1, -1.23]), { ...colour, "stroke-width": 12, "data-case": kind });
    chart.legend(NAMES[kind], colour);
  }
}

export function drawBasins(chart, result) {
  const labels = unpack(result.labels), [size] = labels.shape, used = {}, colours = new Map();
  for (const row of [...result.rows].sort((a, b) => a.label - b.label)) {
    const kind = row.unstable ? "unstable" : row.kind, shades = kind === "diverged" ? [css("--diverged")] : BASINS[kind];
    colours.set(row.label, shades[(used[kind] ??= 0) % shades.length]);
    used[kind]++;
  }
  const canvas = Object.assign(document.createElement("canvas"), { width: size, height: size });
  const context = canvas.getContext("2d"), pixels = context.createImageData(size, size);
  const parts = new Map([...colours].map(([k, hex]) => [k, [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16))]));
  for (let k = 0; k < labels.data.length; k++) {
    const to = 4 * ((size - 1 - Math.floor(k / size)) * size + (k % size));
    pixels.data.set([...parts.get(labels.data[k]), 255], to);
  }
  context.putImageData(pixels, 0, 0);
  const [x, y] = result.bounds;
  chart.frame(x, y);
  const edges = [x, y].map(([low, high]) => [low - (high - low) / (size - 1) / 2, high + (high - low) / (size - 1) / 2]);
  chart.image(canvas, ...edges, true);
  for (const row of result.rows) if (row.point) chart.marker(...row.point, MARKS[row.kind], {}, row.kind === "minimum" ? 7 : 5.5);
  const percent = (x) => `${(100 * x).toFixed(1)}%`;
  return table(["ends at", "share of starts", "95% interval"], result.rows.slice(0, 12).map((row) => {
    const name = node("span", "", "named"), swatch = make("svg", { width: 12, height: 12, class: "swatch" });
    make("rect", { width: 12, height: 12, fill: colours.get(row.label) }, swatch);
    name.append(swatch, why(row.name, row.evidence));
    return [name, percent(row.share), `${percent(row.low)} to ${percent(row.high)}`];
  }));
}

export function pointsTable(rows, use) {
  if (!rows.length) return node("p", "None in this box.", "hint");
  return table(["point", "eigenvalues", "ρ*", "verdict"], rows.map((row) => {
    const place = node("span", `${row.kind} ${point(row.point)}`), values = node("span", point(row.eigenvalues)), verdict = node("span");
    if (row.eigenvalues[0] < 0) {
      const button = node("button", "escape along λ₁", "small");
      button.type = "button";
      button.onclick = () => use(row.eigenvalues[0]);
      place.append(document.createElement("br"), button);
    }
    verdict.append(why(row.verdict, row.reason, `verdict ${row.verdict}`));
    return [place, values, row.rho_star === null ? "–" : short(row.rho_star), verdict];
  }));
}

export function drawBifurcation(chart, result, state, bounds) {
  const kinds = [...new Set(result.branches.map((b) => b.kind))];
  chart.legendRows = 1 + Math.floor((100 * (kinds.length + 3)) / Math.max(220, chart.figure.clientWidth));
  const heights = [...result.branches.flatMap((b) => b.heights.flat()), ...result.samples.map((s) => s[1])].filter(Number.isFinite);
  if (!heights.length) heights.push(...bounds["xy".indexOf(state.coordinate)]);
  const side = bounds["xy".indexOf(state.coordinate)], low = Math.min(...heights), high = Math.max(...heights);
  const margin = Math.max(0.06 * (high - low), 0.03 * (side[1] - side[0])); // what a rounding moves is no branch
  chart.ylabel = state.coordinate;
  chart.frame([Number(state.rho_from), Number(state.rho_to)], [low - margin, high + margin]);
  chart.dots(result.samples.map((s) => s[0]), result.samples.map((s) => s[1]), 1.3, { ...INK, opacity: 0.55, "data-samples": result.samples.length });
  for (const branch of result.branches) {
    const colour = { stroke: `var(${BRANCHES[branch.kind]})` };
    for (const row of branch.heights) {
      for (const part of parts(branch.rho, row, branch.stable, result.events)) {
        const width = part.stable ? { "stroke-width": 2.6 } : { "stroke-width": 1.3, "stroke-dasharray": "5 3" };
        chart.line(part.x, part.y, { ...colour, ...width, "data-branch": branch.kind, "data-stable": part.stable });
      }
    }
  }
  for (const event of result.events) {
    const mark = chart.marker(event.rho, event.height, EVENTS[event.kind] ?? "square", {}, 4.5);
    make("title", {}, mark, `${event.kind} at ρ = ${short(event.rho, 6)}`);
  }
  const now = Number(state.rho);
  chart.vertical(now, { stroke: "var(--focus)", "stroke-dasharray": "2 3", "stroke-width": 1.6, "data-rho": now });
  for (const kind of kinds) chart.legend(kind, { stroke: `var(${BRANCHES[kind]})` });
  if (kinds.length) chart.legend("repels", { ...INK, "stroke-dasharray": "4 2", "stroke-width": 1.3 });
  chart.legend("sampled", { ...INK, opacity: 0.55, "stroke-width": 3, "stroke-dasharray": "3 3" });
  chart.legend("ρ now", { stroke: "var(--focus)", "stroke-dasharray": "2 3" });
}

/** Cut a branch where its stability changes: at a bifurcation between the two values, else half-way. */
function parts(x, y, stable, events) {
  const found = [{ stable: stable[0], x: [x[0]], y: [y[0]] }];
  for (let k = 1; k < x.length; k++) {
    if (stable[k] !== stable[k - 1]) {
      const near = 1e-6 * (x[k] - x[k - 1]), between = (rho) => x[k - 1] - near <= rho && rho <= x[k] + near;
      const cut = events.map((e) => e.rho).find(between) ?? (x[k - 1] + x[k]) / 2;
      const height = y[k - 1] + ((cut - x[k - 1]) / (x[k] - x[k - 1])) * (y[k] - y[k - 1]), last = found.at(-1);
      last.x.push(cut);
      last.y.push(height);
      found.push({ stable: stable[k], x: [cut], y: [height] });
    }
    found.at(-1).x.push(x[k]);
    found.at(-1).y.push(y[k]);
  }
  return found;
}

export function drawEscape(chart, result) {
  const { edges, density, theory, simulated, exponential } = result, lines = [
    ["exact mean", theory.exact?.steps, { stroke: "var(--ink)", "stroke-width": 2 }],
    ["diffusion limit", theory.diffusion?.steps, { stroke: "var(--gd)", "stroke-width": 2, "stroke-dasharray": "6 3" }],
    ["paper", theory.paper?.steps, { stroke: "var(--usam)", "stroke-width": 2, "stroke-dasharray": "2 3" }],
    ["simulated mean", simulated.mean, { stroke: "var(--sam)", "stroke-width": 2 }],
  ];
  chart.legendRows = chart.figure.clientWidth < 460 ? 3 : 2;
  const end = edges.at(-1), top = Math.max(...density, ...(exponential ?? []), 1e-12);
  chart.frame([0, end], [0, 1.06 * top * 1]);
  density.forEach((height, k) => chart.bar(edges[k], edges[k + 1], 0, height, { fill: "var(--sam)", opacity: 0.35, "data-bar": k }));
  if (exponential) {
    const middles = exponential.map((_, k) => (edges[k] + edges[k + 1]) / 2);
    chart.line(middles, exponential, { stroke: "var(--green)", "stroke-width": 1.8 });
  }
  for (const [name, steps, attributes] of lines) {
    if (steps === null || steps === undefined) continue;
    if (steps <= end) chart.vertical(steps, attributes);
    chart.legend(`${name} ${short(steps)}${steps > end ? " →" : ""}`, attributes);
  }
  if (exponential) chart.legend("exponential law", { stroke: "var(--green)" });
  const [low, high] = simulated.confidence_interval;
  const left = simulated.replicas - simulated.censored;
  return `${left} of ${simulated.replicas} replicas left within ${simulated.max_steps} steps; simulated mean ${short(simulated.mean)}, 95% interval ${short(low)} to ${short(high)}. Unnormalized SAM with the ρ, η, γ, batch size and noise kind of the settings; the noise has variance |λ| / batch size. Times out of a trap follow the exponential law, those from a saddle do not.`;
}
