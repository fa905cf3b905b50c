"use strict";
// The report's filters, the sweep that each chart shows, the fitted exponents and the table of cases.

const form = document.getElementById("filters");
const FILTERS = ["phase", "cell", "dtype", "threads"];
const ALL = "";

function option(select, value, text) {
  const element = document.createElement("option");
  element.value = value;
  element.textContent = text;
  select.append(element);
}

for (const name of FILTERS) {
  const values = [...new Set(cases.map(row => row[name]))], select = form.elements[name];
  if (values.length > 1) option(select, ALL, "all");
  for (const value of values) option(select, value, value);
  select.parentElement.hidden = values.length < 2;
}
if (cases.some(row => row.phase === "step")) form.elements.phase.value = "step";
for (const name of data.shown) option(form.elements.baseline, name, name);
form.elements.baseline.value = data.baseline ?? "";
form.elements.baseline.parentElement.hidden = data.shown.length < 2;

// `phase`: the only phase that a chart is about, in place of the one that is picked
const passes = (row, phase = null) => FILTERS.every(name => {
  const wanted = name === "phase" && phase ? phase : form.elements[name].value;
  return wanted === ALL || String(row[name]) === wanted;
});

const scaling = expand(data.scaling);
const chosen = {};
rowsOf = (chart, name) => {
  let list = rows[chart.dataset].filter(row => passes(row, chart.phase));
  if (chart.sweep) {
    const field = `sweep_${chart.sweep}`;
    const number = pickSweep(name, chart.sweep, new Set(list.map(row => row[field]).filter(value => value !== null)));
    list = list.filter(row => row[field] === number);
    fits(name, chart.sweep, number, list);
  }
  return name.startsWith("map_") ? compared(list) : list;
};
signalsOf = () => ({baseline: form.elements.baseline.value});

const compared = list => {
  const baseline = form.elements.baseline.value;
  return list.filter(row => row.a === baseline || row.b === baseline);
};

// offers the sweeps that have rows, keeps the picked one if it is among them
function pickSweep(name, sweep, present) {
  const figure = document.querySelector(`[data-chart="${name}"]`), label = figure.querySelector(".sweep");
  const select = label.querySelector("select"), {labels, common} = data.sweeps[sweep];
  const numbers = [...present].sort((a, b) => a - b);
  const number = numbers.includes(chosen[sweep]) ? chosen[sweep] : numbers[0];
  select.textContent = "";
  for (const each of numbers) option(select, each, labels[each]);
  select.value = number;
  label.hidden = numbers.length < 2;
  select.onchange = () => { chosen[sweep] = Number(select.value); drawAll(); };
  const one = numbers.length === 1 ? labels[number] : "";
  const against = name.startsWith("map_") ? `Baseline: ${form.elements.baseline.value}. ` : "";
  const fixed = [one, common].filter(Boolean).join(", ");
  figure.querySelector(".fixed").textContent = number === undefined ? "" : `${against}Held fixed: ${fixed}.`;
  return number;
}

const signed = value => value.toFixed(2).replace(/^-(0\.00)$/, "$1").replace("-", "−");

// time per step ~ size^exponent, one row per backend and one column per cell
function fits(name, sweep, number, list) {
  const holder = document.querySelector(`[data-chart="${name}"] .fits`);
  holder.textContent = "";
  if (!["length", "hidden", "window_time"].includes(name)) return;
  const found = scaling.filter(row => row.picture === sweep && row.sweep === number && row.exponent !== null);
  const cells = [...new Set(list.map(row => row.cell))], backends = data.shown.filter(b => found.some(row => row.backend === b));
  if (!backends.length) return;
  const table = document.createElement("table"), caption = table.createCaption(), head = table.createTHead().insertRow();
  caption.textContent = `Fitted exponent e of time per step ~ ${sweep}^e, with its 95% interval`;
  for (const text of ["", ...cells]) {
    const cell = document.createElement("th");
    cell.scope = "col";
    cell.textContent = text;
    head.append(cell);
  }
  const body = table.createTBody();
  for (const backend of backends) {
    const line = body.insertRow(), first = document.createElement("th");
    first.scope = "row";
    first.textContent = backend;
    line.append(first);
    for (const cell of cells) {
      const fit = found.find(row => row.backend === backend && row.cell === cell);
      line.insertCell().textContent = fit ? `${signed(fit.exponent)} [${signed(fit.low)}, ${signed(fit.high)}]` : "";
    }
  }
  const scroll = document.createElement("div");
  scroll.className = "scroll";
  scroll.append(table);
  holder.append(scroll);
}

const FIELDS = ["cell", "phase", "T", "B", "I", "H", "layers", "bidirectional", "nonlinearity", "bias", "output_size",
  "window", "stride", "dtype", "threads"];
const ALWAYS = ["cell", "phase", "T", "B", "I", "H"];

function duration(seconds) {
  if (seconds === null) return "";
  const [unit, size] = seconds >= 1 ? ["s", 1] : seconds >= 1e-3 ? ["ms", 1e-3] : ["µs", 1e-6];
  return `${(seconds / size).toPrecision(3)} ${unit}`;
}

const short = value => value === null || value === undefined ? "" : value >= 1000 ? value.toFixed(0) : value.toPrecision(3);
const fields = FIELDS.filter(name => ALWAYS.includes(name) || new Set(cases.map(row => row[name])).size > 1);
const showTable = makeTable([
  ...fields.map(name => ({title: name, value: row => row[name], number: typeof cases[0]?.[name] === "number"})),
  {title: "backend", value: row => row.backend},
  {title: "result", value: row => row.result},
  {title: "per call", value: row => row.seconds, text: row => duration(row.seconds), number: true},
  {title: "per step", value: row => row.step, text: row => duration(row.step), number: true},
  {title: "GFLOP/s", value: row => row.gflops, text: row => short(row.gflops), number: true},
  {title: "memory, MB", value: row => row.peak_bytes, text: row => row.peak_bytes === null ? "" : short(row.peak_bytes / 1e6), number: true},
  {title: "speed", value: row => row.speed, text: row => row.speed === null ? "" : `${short(row.speed)}×`, number: true},
  {title: "95% interval", value: row => row.speedLow, text: row => row.speed === null ? "" : `${short(row.speedLow)} to ${short(row.speedHigh)}`, number: true},
  {title: "source", button: sourceButton},
]);

// what a pair says about the backend that is not the baseline
function turned(pair, baseline) {
  if (!pair || pair.speedup === null) return {speed: null, speedLow: null, speedHigh: null, verdict: null};
  if (pair.b === baseline) return {speed: pair.speedup, speedLow: pair.low, speedHigh: pair.high, verdict: pair.verdict};
  const verdict = {faster: "slower", slower: "faster"}[pair.verdict] ?? pair.verdict;
  return {speed: 1 / pair.speedup, speedLow: 1 / pair.high, speedHigh: 1 / pair.low, verdict};
}

function tableRows() {
  const baseline = form.elements.baseline.value;
  const pairs = new Map(compared(rows.pairs).map(pair => [`${pair.case} ${pair.a === baseline ? pair.b_order : pair.a_order}`, pair]));
  return rows.times.filter(row => passes(row)).map(row => {
    const against = turned(pairs.get(`${row.case} ${row.backend_order}`), baseline);
    const result = row.status !== "measured" ? row.status : row.backend === baseline ? "baseline" : against.verdict;
    return {...row, ...against, result, step: row.seconds === null ? null : row.seconds / row.T};
  });
}

function python(row) {
  const literal = value => value === null ? "None" : String(value);
  const values = {backend: data.sources[row.backend], spec: row.spec, seed: data.seed};
  for (const name of ["T", "B", "I", "window", "stride", "threads"]) values[name] = literal(row[name]);
  return data.templates[row.phase].replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

const dialog = document.getElementById("source"), code = dialog.querySelector("code"), said = dialog.querySelector("[role=status]");

function sourceButton(row) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Python";
  button.setAttribute("aria-label", `Python for ${row.label} with ${row.backend}`);
  button.addEventListener("click", () => {
    code.textContent = python(row);
    said.textContent = "";
    dialog.showModal();
  });
  return button;
}

document.getElementById("copy").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(code.textContent);
    said.textContent = "Copied.";
  } catch (error) {
    window.getSelection().selectAllChildren(code);
    said.textContent = "The browser keeps the clipboard closed here; the text is selected: copy it with the keyboard.";
  }
});

form.addEventListener("change", () => { showTable(tableRows()); drawAll(); });
form.addEventListener("submit", event => event.preventDefault());
showTable(tableRows());
drawAll();
