"use strict";
// The report's filters, the sweep that each chart shows, the fitted exponents and the table of cases.

const form = document.getElementById("filters");
const FILTERS = ["phase", "cell", "T", "B", "H", "dtype", "threads"];
const COARSE = new Set(["T", "B", "H"]);  // the largest errors are not stored per size
const ALL = "";

function option(select, value, text) {
  const element = document.createElement("option");
  element.value = value;
  element.textContent = text;
  select.append(element);
}

for (const name of FILTERS) {
  const values = [...new Set(cases.map(row => row[name]))], select = form.elements[name];
  if (values.every(value => typeof value === "number")) values.sort((a, b) => a - b);
  if (values.length > 1) option(select, ALL, "all");
  for (const value of values) option(select, value, value);
  select.parentElement.hidden = values.length < 2;
}
if (cases.some(row => row.phase === "step")) form.elements.phase.value = "step";
data.devices.forEach((name, number) => option(form.elements.device, number, name === "cpu" ? "CPU" : clip(name)));
form.elements.device.parentElement.hidden = data.devices.length < 2;

const device = () => Number(form.elements.device.value);
const deviceBackends = () => data.shown.filter(name => data.device_of[data.backends.indexOf(name)] === device());
// rows without a backend, such as roofs, pass on every device
const onDevice = row => [row.backend_order ?? row.a_order].every(place => place === undefined || data.device_of[place] === device());

// offers the backends of the picked device; picks the device's baseline when the device changes
function offerBaselines() {
  const select = form.elements.baseline, names = deviceBackends();
  if (names.length === select.options.length && names.every((name, i) => select.options[i].value === name)) return;
  select.textContent = "";
  for (const name of names) option(select, name, name);
  select.value = data.baselines[device()] ?? "";
  select.parentElement.hidden = names.length < 2;
}
offerBaselines();

// `phase`: the only phase of a chart, which overrides the picked one
const passes = (row, phase = null, coarse = false) => onDevice(row) && FILTERS.every(name => {
  if (coarse && COARSE.has(name)) return true;
  const wanted = name === "phase" && phase ? phase : form.elements[name].value;
  return wanted === ALL || String(row[name]) === wanted;
});

const scaling = expand(data.scaling);
const chosen = {};
rowsOf = (chart, name) => {
  let list = rows[chart.dataset].filter(row => passes(row, chart.phase, chart.dataset === "gates"));
  if (chart.sweep) {
    const field = `sweep_${chart.sweep}`;
    const number = pickSweep(chart, name, new Set(list.map(row => row[field]).filter(value => value !== null)));
    list = list.filter(row => row[field] === number);
    if (chart.fitted) showFits(name, chart.sweep, number, list);
    if (chart.overlay && device() !== data.roofed) list = [];
    if (chart.overlay) overlays[chart.overlay] = rows[chart.overlay].filter(row => row[field] === number);
  }
  if (name === "window_time") showWindows(list, form.elements.baseline.value);
  return chart.tiles ? compared(list) : list;
};
// names the filters that leave a chart empty, each with the values that have rows
emptyText = chart => {
  if (chart.overlay && device() !== data.roofed) return "Roofs are measured for the CPU only.";
  const there = rows[chart.dataset].filter(row => onDevice(row) && (!chart.phase || row.phase === chart.phase) && (!chart.sweep || row[`sweep_${chart.sweep}`] !== null));
  const parts = FILTERS.filter(name => !(name === "phase" && chart.phase)).flatMap(name => {
    const wanted = form.elements[name].value, values = [...new Set(there.map(row => row[name]))];
    return wanted === ALL || values.some(value => String(value) === wanted) ? [] : [`${name} = ${listed(values.map(value => clip(String(value))))}`];
  });
  return `Nothing was measured with these filters${parts.length ? `, but there are results for ${parts.join(", ")}` : ""}.`;
};
const overlays = {};
overlayOf = chart => chart.overlay ? {[chart.overlay]: overlays[chart.overlay]} : {};
paramValues = () => ({baseline: form.elements.baseline.value, picked: deviceBackends().map(name => data.backends.indexOf(name))});

const compared = list => {
  const baseline = form.elements.baseline.value;
  return list.filter(row => row.a === baseline || row.b === baseline);
};

// offers the sweeps that have rows and keeps the picked one if it is among them
function pickSweep(chart, name, present) {
  const {sweep} = chart, figure = document.querySelector(`[data-chart="${name}"]`), label = figure.querySelector(".sweep");
  const select = label.querySelector("select"), {labels, common} = data.sweeps[sweep];
  const numbers = [...present].sort((a, b) => a - b);
  const number = numbers.includes(chosen[sweep]) ? chosen[sweep] : numbers[0];
  select.textContent = "";
  for (const each of numbers) option(select, each, labels[each]);
  select.value = number;
  label.hidden = numbers.length < 2;
  select.onchange = () => { chosen[sweep] = Number(select.value); drawAll(); };
  const one = numbers.length === 1 ? labels[number] : "";
  const baseline = chart.tiles ? `Baseline: ${form.elements.baseline.value}. ` : "";
  const fixed = [one, common].filter(Boolean).join(", ");
  figure.querySelector(".fixed").textContent = number === undefined ? "" : `${baseline}Held fixed: ${fixed}.`;
  return number;
}

const signed = value => value.toFixed(2).replace(/^-(0\.00)$/, "$1").replace("-", "−");

// time per step ~ size^exponent, one row per backend and one column per cell
function showFits(name, sweep, number, list) {
  const figure = document.querySelector(`[data-chart="${name}"]`), holder = figure.querySelector(".fits");
  holder.textContent = "";
  const found = scaling.filter(row => row.picture === sweep && row.sweep === number && row.exponent !== null);
  const cells = [...new Set(list.map(row => row.cell))], backends = deviceBackends().filter(b => found.some(row => row.backend === b));
  if (!backends.length) return;
  const table = document.createElement("table"), caption = table.createCaption(), head = table.createTHead().insertRow();
  caption.textContent = `Fitted exponent e of time per step ~ ${sweep}^e. The 95% interval needs three points with 6 rounds each.`;
  for (const text of ["backend", ...cells]) {
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
      line.insertCell().textContent = fit ? signed(fit.exponent) + (fit.low === null ? "" : ` [${signed(fit.low)}, ${signed(fit.high)}]`) : "";
    }
  }
  const scroll = document.createElement("div");
  scroll.className = "scroll";
  scroll.tabIndex = 0;
  scroll.setAttribute("role", "region");
  scroll.setAttribute("aria-label", `${figure.querySelector("h3").textContent}: fitted exponents`);
  scroll.append(table);
  holder.append(scroll);
}

const FIELDS = ["cell", "phase", "T", "B", "I", "H", "layers", "bidirectional", "nonlinearity", "bias", "output_size",
  "window", "stride", "dtype", "threads", "lengths"];
const ALWAYS = ["cell", "phase", "T", "B", "I", "H"];

const fields = FIELDS.filter(name => ALWAYS.includes(name) || new Set(cases.map(row => row[name])).size > 1);
const peakPart = row => row.gflops !== null && row.peak && device() === data.roofed ? row.gflops / row.peak : null;
const showTable = makeTable([
  ...fields.map(name => ({title: name, value: row => row[name], number: typeof cases[0]?.[name] === "number"})),
  {title: "backend", value: row => row.backend},
  ...(data.devices.length > 1 ? [{title: "device", value: row => data.devices[data.device_of[row.backend_order]]}] : []),
  {title: "result", value: row => row.result},
  {title: "per call", value: row => row.seconds, text: row => duration(row.seconds), number: true},
  ...(rows.times.some(row => row.device_seconds) ? [{title: "device time", value: row => row.device_seconds, text: row => duration(row.device_seconds), number: true}] : []),
  {title: "per step", value: row => row.step, text: row => duration(row.step), number: true},
  {title: "GFLOP/s", value: row => row.gflops, text: row => short(row.gflops), number: true},
  ...(cases.some(row => row.peak) ? [{title: "of peak", value: row => peakPart(row),
    text: row => percent(peakPart(row)), number: true}] : []),
  {title: "memory, MB", value: row => row.peak_bytes, text: row => row.peak_bytes === null ? "" : short(row.peak_bytes / 1e6), number: true},
  {title: "speed", value: row => row.speed, text: row => row.speed === null ? "" : `${short(row.speed)}×`, number: true},
  {title: `${held(Math.min(...cases.filter(row => row.status === "measured").map(row => row.rounds)))} interval`, value: row => row.speedLow, text: row => row.speed === null ? "" : `${short(row.speedLow)} to ${short(row.speedHigh)}`, number: true},
  {title: "samples, Python", button: openButton},
]);

// the result of a pair for the backend that is not the baseline
function againstBaseline(pair, baseline) {
  if (!pair || pair.speedup === null) return {speed: null, speedLow: null, speedHigh: null, verdict: null};
  if (pair.b === baseline) return {speed: pair.speedup, speedLow: pair.low, speedHigh: pair.high, verdict: pair.verdict};
  const verdict = {faster: "slower", slower: "faster"}[pair.verdict] ?? pair.verdict;
  return {speed: 1 / pair.speedup, speedLow: 1 / pair.high, speedHigh: 1 / pair.low, verdict};
}

function tableRows() {
  const baseline = form.elements.baseline.value;
  const pairs = new Map(compared(rows.pairs).map(pair => [`${pair.case} ${pair.a === baseline ? pair.b_order : pair.a_order}`, pair]));
  return rows.times.map((row, number) => {
    const against = againstBaseline(pairs.get(`${row.case} ${row.backend_order}`), baseline);
    const result = row.status !== "measured" ? row.status : row.backend === baseline ? "baseline" : against.verdict;
    const found = {...row, ...against, result, baseline, number, step: row.seconds === null ? null : row.seconds / row.T};
    rowOf.set(`${row.case} ${row.backend}`, found);
    return found;
  });
}

const rowOf = new Map();  // the table's row by case and backend

function openRow(datum) {
  const backend = datum.backend ?? form.elements.baseline.value;
  showCase(rowOf.get(`${datum.case} ${backend}`));
}

function describe(datum) {
  const row = rowOf.get(`${datum.case} ${datum.backend ?? form.elements.baseline.value}`);
  const error = datum.tensor === undefined ? "" : `, ${datum.tensor}, error over tolerance ${short(datum.ratio) || "no number"}`;
  return `${row.label}, ${row.backend}${error}, ${row.status === "measured" ? `${duration(row.seconds)} per call, ${row.result ?? "not compared"}` : row.status}`;
}

function openButton(row) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Open";
  button.setAttribute("aria-label", `Open ${row.label} with ${row.backend}`);
  button.addEventListener("click", () => showCase(row));
  return button;
}

afterDraw = (name, result, figure, holder) => {
  if (data.charts[name].dataset !== "startup") makePoints(figure, holder, result.view, openRow);
};

// the filters as text: "step, lstm, H = 64"
function filterText() {
  const where = data.devices.length > 1 ? [data.devices[device()] === "cpu" ? "on the CPU" : `on ${clip(data.devices[device()])}`] : [];
  const picked = FILTERS.filter(name => form.elements[name].value !== ALL && form.elements[name].options.length > 1)
    .map(name => COARSE.has(name) ? `${name} = ${form.elements[name].value}` : name === "threads" ? counted(Number(form.elements[name].value), "thread") : form.elements[name].value);
  return [...(picked.length ? picked : ["All cases"]), ...where].join(", ");
}

function showAll() {
  offerBaselines();
  const list = tableRows();
  showTable(list.filter(row => passes(row)));
  showLeaders(filterText(), list.filter(row => passes(row)), form.elements.baseline.value);
  drawAll();
}

form.addEventListener("change", showAll);
onReset(form, showAll);
form.addEventListener("submit", event => event.preventDefault());
showAll();
