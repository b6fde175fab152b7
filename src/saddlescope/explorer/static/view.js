// The part of the plane that is looked at: the wheel and + and - zoom, dragging pans, 0 shows the whole box again.

const ZOOM = 1.25, FARTHEST = 1e6, NARROWEST = 1e-5, STILL = 400; // milliseconds since the page was scrolled

/** Return `x0,x1,y0,y1` as text with digits for the size of the box; null for what the server would refuse. */
function written(sides) {
  const parts = sides.map(([low, high]) => {
    const width = high - low, size = Math.max(1, Math.abs(low), Math.abs(high));
    if (!(width > NARROWEST * size) || size > FARTHEST) return null;
    const digits = Math.min(12, Math.max(0, 4 - Math.floor(Math.log10(width))));
    return [low, high].map((x) => String(Number(x.toFixed(digits)))).join();
  });
  return parts.includes(null) ? null : parts.join();
}

/** Return the sides zoomed by a factor about the point at shares (u, v) of them, which stays where it is. */
const zoomed = (sides, factor, shares) => sides.map(([low, high], k) => {
  const about = low + shares[k] * (high - low);
  return [about + (low - about) / factor, about + (high - about) / factor];
});

/** Return the sides moved by shares of their lengths. */
const moved = (sides, shares) => sides.map(([low, high], k) => [low, high].map((v) => v + shares[k] * (high - low)));

/** Let pointer, keys and buttons move the view: `view` returns its sides, null while they are not known, and `set` is
 * given them as text, none for all of it. What is drawn may lag behind. Returns a function that pans by shares. */
export function steerable(chart, view, set) {
  const svg = chart.svg, look = (sides) => { const text = written(sides); if (text) set(text); };
  const pan = (...shares) => { if (view()) look(moved(view(), shares)); };
  const zoom = (factor, shares = [0.5, 0.5]) => { if (view()) look(zoomed(view(), factor, shares)); };
  let scrolled = -Infinity, from = null;
  chart.dragged = -Infinity;
  const shares = (event) => {
    const at = chart.x && chart.at(event);
    return at && [chart.x, chart.y].map(([low, high], k) => (at[k] - low) / (high - low));
  };
  addEventListener("scroll", () => (scrolled = performance.now()), { passive: true });
  svg.addEventListener("wheel", (event) => {
    const about = shares(event);
    // Who scrolls the page and comes across a picture goes on scrolling the page.
    if (!about || performance.now() - scrolled < STILL) return;
    event.preventDefault();
    zoom(ZOOM ** (-event.deltaY / 100), about);
  }, { passive: false });
  svg.addEventListener("pointerdown", (event) => {
    if (event.pointerType !== "touch" && !event.button && shares(event)) from = { event, sides: view(), area: chart.area };
  });
  svg.addEventListener("pointermove", (event) => {
    if (!from?.sides) return;
    const right = event.clientX - from.event.clientX, down = event.clientY - from.event.clientY;
    if (!from.moved && Math.hypot(right, down) < 5) return;
    if (!from.moved) svg.setPointerCapture(event.pointerId);
    from.moved = true;
    look(moved(from.sides, [-right / from.area.width, down / from.area.height]));
  });
  for (const end of ["pointerup", "pointercancel"]) {
    svg.addEventListener(end, () => {
      if (from?.moved) chart.dragged = performance.now(); // what follows is no click
      from = null;
    });
  }
  const actions = { "+": () => zoom(ZOOM), "-": () => zoom(1 / ZOOM), 0: () => set("") };
  svg.addEventListener("keydown", (event) => {
    const action = actions[event.key === "=" ? "+" : event.key];
    if (!action || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    action();
  });
  const row = chart.figure.querySelector(".save");
  for (const [key, text, name] of [["0", "Reset view", "Reset view"], ["-", "−", "Zoom out"], ["+", "+", "Zoom in"]]) {
    const button = Object.assign(document.createElement("button"), { type: "button", className: "small", textContent: text, title: `${name} (${key})`, onclick: actions[key] });
    button.setAttribute("aria-label", `${name}: ${svg.getAttribute("aria-label")}`);
    row.prepend(button);
  }
  return pan;
}
