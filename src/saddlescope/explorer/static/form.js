// The form, built from the server's list of fields: their kinds, bounds and choices are written down there only.

/** What each field can do: show a value, show a problem. */
export const fields = {};
const TICKS = 1000;

/** How a slider's place t and its value v belong together. */
function scale({ low, high, scale }) {
  if (scale === "log") return { to: (t) => low * (high / low) ** (t / TICKS), from: (v) => (TICKS * Math.log(v / low)) / Math.log(high / low) };
  const root = scale === "cubic" ? Math.cbrt : (v) => v, power = scale === "cubic" ? 3 : 1, first = root(low), width = root(high) - first;
  return { to: (t) => (first + (width * t) / TICKS) ** power, from: (v) => (TICKS * (root(v) - first)) / width };
}
const element = (name, attributes) => Object.assign(document.createElement(name), attributes);
const tidy = (x, whole) => String(whole ? Math.round(x) : Number(x.toPrecision(3)));

/** Build every field and tell `changed(name, text, kind)` what is set. */
export function read(form, changed) {
  for (const place of document.querySelectorAll("[data-field]")) {
    const name = place.dataset.field, field = form[name], id = `field-${name}`;
    place.className = "field";
    place.append(element("label", { htmlFor: id, textContent: field.label }));
    const problem = element("div", { className: "problem", id: `${id}-problem`, hidden: true });
    const set = (text) => changed(name, text, field.kind);
    let show, input;
    if (field.kind === "Choice") {
      input = element("select", { id });
      field.names.forEach((each, k) => input.append(new Option(field.titles[k] ?? each.replaceAll("_", " "), each)));
      input.onchange = () => set(input.value);
      show = (text) => (input.value = text);
      place.append(input);
    } else if (field.kind === "Number") {
      const { to, from } = scale(field), both = element("div", { className: "both" });
      const slider = element("input", { type: "range", min: 0, max: TICKS, step: 1, id: `${id}-slider` });
      slider.setAttribute("aria-label", field.label);
      input = element("input", { type: "number", id, min: field.low, max: field.high, step: field.whole ? 1 : "any" });
      slider.oninput = () => { const text = tidy(to(Number(slider.value)), field.whole); input.value = text; slider.setAttribute("aria-valuetext", text); set(text); };
      input.onchange = () => {
        const value = Number(input.value), good = input.value !== "" && value >= field.low && value <= field.high && (!field.whole || Number.isInteger(value));
        fields[name].problem(good ? "" : `from ${field.low} to ${field.high}${field.whole ? ", whole" : ""}`);
        if (good) { slider.value = from(value); set(String(value)); }
      };
      show = (text) => { input.value = text; slider.value = from(Number(text)); slider.setAttribute("aria-valuetext", text); };
      both.append(slider, input);
      place.append(both);
    } else {
      input = element("input", { type: "text", id, spellcheck: false });
      if (name === "loss") input.placeholder = "x**2 - y**2";
      if (name === "bounds") input.placeholder = "-4,4,-4,4";
      let timer;
      input.oninput = () => { clearTimeout(timer); timer = setTimeout(() => set(input.value.trim()), 300); };
      show = (text) => { if (document.activeElement !== input || input.value.trim() !== text) input.value = text; };
      place.append(input);
    }
    input.setAttribute("aria-describedby", problem.id);
    place.append(problem);
    fields[name] = {
      show,
      problem: (text) => { problem.textContent = text; problem.hidden = !text; input.setAttribute("aria-invalid", String(Boolean(text))); },
    };
  }
}

/** Show the values in the form. */
export function fill(form, values) {
  for (const [name, { show }] of Object.entries(fields)) show(values[name]);
}
