// The second page: a training monitor's log, followed while it grows.

import { Chart, short } from "./chart.js";
import { table } from "./panes.js";

const EVERY = 2000; // milliseconds between looks at the log
const $ = (id) => document.getElementById(id);
const chart = (id, title, ylabel) => new Chart($(id), { title, xlabel: "step", ylabel, ratio: 0.5, legendRows: 1, name: id });
const charts = {
  loss: chart("loss", "Training loss", "loss"), trap: chart("trap", "Trap number", "τ"),
  curvature: chart("curvature", "Smallest curvature", "curvature"), norms: chart("norms", "Gradient norms", "norm"),
};
let shown = "", last = null;

function range(values, ...others) {
  const known = [...values, ...others].filter((v) => v !== null && Number.isFinite(v));
  const low = Math.min(...known), high = Math.max(...known), margin = 0.06 * (high - low) || 0.5;
  return known.length ? [low - margin, high + margin] : [0, 1];
}

/** Draw measurements with two standard errors, those of each verdict in its colour. */
function measured(chart, end, checks, name, lines, colours) {
  const known = checks.filter((c) => c[name] !== null);
  const errors = known.map((c) => 2 * (c[`${name}_error`] ?? 0));
  chart.frame([0, end], range(known.flatMap((c, k) => [c[name] - errors[k], c[name] + errors[k]]), ...lines));
  for (const level of lines) chart.line([0, end], [level, level], { stroke: "var(--quiet)", "stroke-dasharray": "5 4" });
  for (const [finding, colour] of Object.entries(colours)) {
    const here = known.map((c, k) => [c, errors[k]]).filter(([c]) => c.finding === finding);
    if (!here.length) continue;
    chart.segments(here.map(([c, e]) => [c.step, c[name] - e, c.step, c[name] + e]), { stroke: colour, "stroke-width": 1.5 });
    chart.dots(here.map(([c]) => c.step), here.map(([c]) => c[name]), 3, { stroke: colour, [`data-${name.replace("_", "-")}`]: here.length });
    chart.legend(finding, { stroke: colour });
  }
}

function draw(log) {
  const { signals, checks, verdicts, errors } = log, steps = signals.step, end = Math.max(1, ...steps.slice(-1), ...checks.slice(-1).map((c) => c.step));
  const colours = { trapped: "var(--sam)", slowed: "var(--yellow)", free: "var(--green)", undetermined: "var(--quiet)" };
  charts.loss.frame([0, end], range(signals.loss));
  verdicts.forEach((v, k) => {
    const until = verdicts[k + 1]?.step ?? end, [low, high] = charts.loss.y;
    charts.loss.bar(v.step, until, low, high, { fill: colours[v.verdict], opacity: 0.16, "data-verdict": v.verdict });
  });
  for (const verdict of new Set(verdicts.map((v) => v.verdict))) charts.loss.legend(verdict, { stroke: colours[verdict] });
  charts.loss.line(steps, signals.loss.map((v) => v ?? NaN), { stroke: "var(--ink)", "stroke-width": 1.4, "data-loss": steps.length });
  measured(charts.trap, end, checks, "trap_number", [0, 1], colours);
  measured(charts.curvature, end, checks, "curvature", [0], colours);
  charts.norms.frame([0, end], range([...signals.gradient_norm, ...signals.perturbed_gradient_norm], 0));
  for (const [name, label, stroke] of [["gradient_norm", "at w", "var(--gd)"], ["perturbed_gradient_norm", "at w_p", "var(--sam)"]]) {
    charts.norms.line(steps, signals[name].map((v) => v ?? NaN), { stroke, "stroke-width": 1.4 });
    charts.norms.legend(label, { stroke });
  }
  $("verdict").textContent = `${log.verdict} at step ${end}`;
  $("verdict").className = `verdict ${log.verdict}`;
  $("advice").textContent = log.advice;
  $("account").textContent = log.account + (log.every > 1 ? ` Signals are means over ${log.every} steps.` : "");
  const events = [...verdicts.map((v) => [v.step, v.verdict, v.because]), ...errors.map((e) => [e.step, "a check failed", e.error])];
  $("verdicts").replaceChildren(table(["step", "verdict", "because"], events.sort((a, b) => b[0] - a[0]).slice(0, 50).map(([step, verdict, why]) => {
    const text = Object.assign(document.createElement("span"), { textContent: why });
    return [String(step), verdict, text];
  })));
}

async function follow() {
  try {
    const response = await fetch(`/api/training?log=${$("log").selectedIndex}&seen=${encodeURIComponent(shown)}`);
    const answer = await response.json();
    $("notes").textContent = answer.error ?? "";
    $("notes").hidden = !answer.error;
    if (answer.log) { [shown, last] = [answer.version, answer.log]; draw(last); document.body.dataset.ready = answer.version; }
  } catch {
    $("notes").textContent = "the explorer does not answer";
    $("notes").hidden = false;
  }
  setTimeout(follow, EVERY);
}

const { logs } = await fetch("/api/state").then((r) => r.json());
logs.forEach((name) => $("log").append(new Option(name, name)));
$("log").onchange = () => (shown = "");
new ResizeObserver(() => last && draw(last)).observe(document.querySelector("main"));
follow();
