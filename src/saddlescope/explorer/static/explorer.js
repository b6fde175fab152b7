// The page: settings in, pictures out. The address holds everything that is set.

import { Chart } from "./chart.js";
import { drawBasins, drawBifurcation, drawCosine, drawEscape, drawPath, ends, pointsTable } from "./panes.js";
import { fill, read, fields } from "./form.js";
import { ask } from "./ask.js";
import { steerable } from "./view.js";

const REST = 150; // milliseconds without a change before the long computations begin
const $ = (id) => document.getElementById(id);
const charts = {
  gd: new Chart($("gd"), { title: "Trajectories of gradient descent", xlabel: "x", ylabel: "y", ratio: 0.8 }),
  optimizer: new Chart($("optimizer"), { title: "Trajectories of the optimizer", xlabel: "x", ylabel: "y", ratio: 0.8 }),
  cosine: new Chart($("cosine"), { title: "Cosine between the two gradients of SAM", xlabel: "step of the last start", ylabel: "cos(g(w), g(w_p))", ratio: 0.24, legendRows: 1 }),
  map: new Chart($("map"), { title: "Basins of attraction", xlabel: "x", ylabel: "y", ratio: 0.8 }),
  branches: new Chart($("branches"), { title: "Bifurcations", xlabel: "ρ", ylabel: "x", ratio: 0.7, legendRows: 2 }),
  times: new Chart($("times"), { title: "Escape times", xlabel: "steps", ylabel: "share per step", ratio: 0.7, legendRows: 2 }),
};
const results = {}, keys = {}, running = {};
let meaning, state, timer, address, busy = false, again = false, standing = [];

/** Return what the fields that a computation depends on are set to. */
const key = (job) => JSON.stringify(meaning.depends[job].map((name) => state[name]));

function query() {
  const parts = Object.keys(meaning.defaults).filter((name) => state[name] !== meaning.defaults[name]);
  return parts.map((name) => `${name}=${encodeURIComponent(state[name])}`).join("&");
}

function notice(notes) {
  $("notes").textContent = notes.join("\n");
  $("notes").hidden = !notes.length;
}

/** Show what can be shown at once, and the rest when the settings have stood still. */
function changed() {
  standing = []; // what was wrong with the address that was opened is known by now
  show();
}

function show() {
  clearTimeout(address); // browsers stop listening to those who change it at every move of a slider
  address = setTimeout(write, 100);
  follow();
  for (const section of document.querySelectorAll("[data-job]")) section.classList.toggle("stale", section.dataset.job in results && keys[section.dataset.job] !== key(section.dataset.job));
  clearTimeout(timer);
  timer = setTimeout(settle, REST);
}

/** Ask for trajectories; while an answer is under way only the latest settings wait for the next. */
async function follow() {
  if (busy) { again = true; return; }
  busy = true;
  do {
    again = false;
    const wanted = key("picture"), asked = query();
    if (keys.picture !== wanted) {
      const picture = await ask("picture", asked);
      if (picture.result) { Object.assign(results, { picture: picture.result, points: null }); keys.picture = wanted; keys.points = null; }
    }
    const path = key("trajectories"), answer = await ask("trajectories", asked);
    if (answer.result) { results.trajectories = answer.result; keys.trajectories = path; $("snippet").textContent = answer.snippet; }
    notice([...standing, ...(answer.error ? [answer.error] : answer.notes ?? [])]);
    if (results.picture && results.trajectories) draw("trajectories");
  } while (again);
  busy = false;
}

function write() {
  history.replaceState(null, "", query() ? `/?${query()}` : "/");
}

function settle() {
  for (const section of document.querySelectorAll("[data-job]:not([data-manual])")) compute(section);
}

async function compute(section) {
  const job = section.dataset.job, wanted = key(job);
  if (running[job]?.wanted === wanted || (!running[job] && keys[job] === wanted)) return;
  running[job]?.controller.abort();
  const controller = new AbortController(), mine = (running[job] = { wanted, controller });
  const bar = section.querySelector("progress"), say = section.querySelector(".said");
  if ("manual" in section.dataset) remember(job);
  section.classList.add("computing");
  Object.assign(bar, { hidden: false }).removeAttribute("value");
  say.textContent = "";
  section.querySelector(".cancel").hidden = false;
  section.querySelector(".run").hidden = true;
  const answer = await ask(job, query(), (share) => (bar.value = share), controller.signal);
  if (running[job] !== mine) return;
  delete running[job];
  section.classList.remove("computing");
  bar.hidden = section.querySelector(".cancel").hidden = true;
  section.querySelector(".run").hidden = !("manual" in section.dataset) && Boolean(answer.result);
  if (answer.result) {
    results[job] = answer.result;
    keys[job] = wanted;
    section.classList.remove("stale");
    draw(job);
  } else {
    say.textContent = answer.error;
    if (job === "phases") { results.phases = null; keys.phases = wanted; draw("phases"); }
  }
}

/** Let the address say that this long computation belongs to the page. */
function remember(job) {
  state.show = [job, ""].includes(state.show) ? job : "all";
  write();
}

const draws = {
  trajectories() {
    const { gd, optimizer } = results.trajectories;
    drawPath(charts.gd, results.picture, gd, results.points?.points, "var(--gd)");
    drawPath(charts.optimizer, results.picture, optimizer, results.points?.points, "var(--sam)");
    $("optimizer").querySelector("figcaption").textContent = optimizer.label;
    const starts = state.starts.split(";").map((part) => part.split(",").map(Number));
    $("ends").replaceChildren(ends(results.trajectories, starts.slice(0, gd.status.length)));
    draws.phases();
  },
  phases() {
    const current = results.phases && keys.phases === keys.trajectories;
    drawCosine(charts.cosine, results.trajectories.optimizer, current ? results.phases.cases : null);
    const shares = current ? Object.entries(results.phases.shares).map(([k, x]) => `${["no case", "Case I", "Case II", "Case III"][k]} ${(100 * x).toFixed(1)}%`) : [];
    $("cases").textContent = shares.length ? `All starts: ${shares.join(", ")}. Case I: w and w_p on one side of the saddle's stable manifold; II: w_p across it; III: the step crosses it.` : "";
  },
  points() {
    $("found").replaceChildren(pointsTable(results.points.points, (value) => { state.eigenvalue = String(value); fill(meaning.form, state); changed(); $("escape").scrollIntoView(); compute($("escape")); }));
    if (results.trajectories) draws.trajectories();
  },
  basins() { $("shares").replaceChildren(drawBasins(charts.map, results.basins)); },
  bifurcation() {
    $("followed").textContent = results.bifurcation.note;
    drawBifurcation(charts.branches, results.bifurcation, state, results.picture.bounds);
  },
  escape() { $("law").textContent = drawEscape(charts.times, results.escape); },
};

function draw(name) {
  if (results[name] || name === "phases") draws[name]();
}

/** Let pointer and keyboard choose a start on a chart. */
function pickable(chart) {
  const svg = chart.svg;
  Object.assign(svg, { tabIndex: 0 });
  svg.setAttribute("role", "application");
  svg.setAttribute("aria-label", `${svg.getAttribute("aria-label")}: arrow keys move a cross, Enter drops a start, plus and minus zoom, 0 resets the view`);
  const pan = steerable(chart, view, look);
  let cross = null;
  const mark = () => {
    svg.querySelector(".cross")?.remove();
    if (cross && document.activeElement === svg) chart.marker(...cross, "plus", { class: "cross", fill: "none", stroke: "var(--focus)" }, 9);
  };
  svg.addEventListener("click", (event) => { const at = performance.now() - chart.dragged > 50 && chart.at(event); if (at) addStart(at); });
  svg.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }, step = event.shiftKey ? 0.1 : 0.02;
    if (!(event.key in moves) && event.key !== "Enter") return;
    event.preventDefault();
    const sides = [chart.x, chart.y];
    cross ??= sides.map(([low, high]) => (low + high) / 2);
    if (event.key === "Enter") { addStart(cross); return; }
    const wanted = cross.map((v, k) => v + moves[event.key][k] * step * (sides[k][1] - sides[k][0]));
    cross = wanted.map((v, k) => Math.min(sides[k][1], Math.max(sides[k][0], v)));
    // At an edge the view goes along.
    if (cross.some((v, k) => v !== wanted[k])) pan(...moves[event.key].map((v) => 2 * step * v));
    mark();
  });
  svg.addEventListener("blur", mark);
}

/** Return the sides of the box that is wanted, which the pictures may not show yet. */
function view() {
  const [x0, x1, y0, y1] = state.bounds.split(",").map(Number);
  if (state.bounds) return [[x0, x1], [y0, y1]];
  return keys.picture === key("picture") ? results.picture.bounds : null;
}

/** Show another part of the plane; none for the landscape's own box. */
function look(box) {
  if (box === state.bounds) return;
  state.bounds = box;
  fill(meaning.form, state);
  changed();
}

function addStart(at) {
  const most = meaning.form.starts.most, digits = at.map((x) => Number(x.toPrecision(5)));
  state.starts = [...state.starts.split(";"), digits.join(",")].slice(-most).join(";");
  fill(meaning.form, state);
  changed();
}

/** Check what was typed before it takes the place of what is shown. */
async function typed(name, text) {
  const before = state[name];
  state[name] = text;
  const answer = await fetch(`/api/state?${query()}`).then((r) => r.json()).catch(() => ({ notes: ["the explorer does not answer"] }));
  fields[name].problem(answer.notes.join("\n"));
  if (answer.notes.length) { if (state[name] === text) state[name] = before; return; }
  changed();
}

async function begin() {
  meaning = await fetch(`/api/state${location.search}`).then((r) => r.json());
  state = meaning.values;
  for (const section of document.querySelectorAll("[data-job]")) tools(section);
  read(meaning.form, (name, value, kind) => {
    if (kind === "Text" || kind === "Box" || kind === "Points") return typed(name, value);
    state[name] = value;
    if (name === "landscape") { state.loss = state.bounds = ""; fill(meaning.form, state); }
    changed();
    if (name === "rho" && results.bifurcation) draw("bifurcation");
  });
  fill(meaning.form, state);
  pickable(charts.gd);
  pickable(charts.optimizer);
  steerable(charts.map, view, look);
  charts.map.svg.tabIndex = 0;
  $("pages").hidden = !meaning.logs.length;
  $("share").onclick = () => { write(); copy(location.href, $("share")); };
  $("copy").onclick = () => copy($("snippet").textContent, $("copy"));
  const trim = (from, to) => { state.starts = state.starts.split(";").slice(from, to).join(";"); fill(meaning.form, state); changed(); };
  $("undo").onclick = () => state.starts.includes(";") && trim(0, -1);
  $("single").onclick = () => trim(-1);
  const redraw = () => Object.keys(results).forEach((name) => name in draws && draw(name));
  new ResizeObserver(redraw).observe($("pictures"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  standing = meaning.notes;
  await follow();
  show();
  for (const job of ["bifurcation", "escape"]) if ([job, "all"].includes(state.show)) compute($(job));
  document.body.dataset.ready = "yes";
}

/** Give a section its progress bar and its buttons. */
function tools(section) {
  const work = document.createElement("span");
  work.className = "work";
  const bar = Object.assign(document.createElement("progress"), { hidden: true, max: 1 });
  bar.setAttribute("aria-label", "progress");
  const button = (kind, text, action) => Object.assign(document.createElement("button"), { type: "button", className: `small ${kind}`, textContent: text, onclick: action });
  const said = Object.assign(document.createElement("span"), { className: "said" });
  said.setAttribute("role", "status");
  const run = button("run", "Compute", () => compute(section)), cancel = button("cancel", "Cancel", () => running[section.dataset.job]?.controller.abort());
  run.hidden = !("manual" in section.dataset);
  cancel.hidden = true;
  work.append(said, bar, cancel, run);
  section.querySelector("h2").append(work);
}

async function copy(text, button) {
  const label = button.textContent;
  try { await navigator.clipboard.writeText(text); button.textContent = "Copied"; } catch { button.textContent = "Copy by hand"; }
  setTimeout(() => (button.textContent = label), 1500);
}

begin();
