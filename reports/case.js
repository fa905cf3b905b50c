"use strict";
// The dialog of one case and backend: its numbers, its samples, and the Python code that runs it.

const dialog = document.getElementById("case"), code = dialog.querySelector("code"), copyStatus = dialog.querySelector("[role=status]");

function duration(seconds) {
  if (seconds === null) return "";
  const [unit, size] = seconds >= 1 ? ["s", 1] : seconds >= 1e-3 ? ["ms", 1e-3] : ["µs", 1e-6];
  return `${(seconds / size).toPrecision(3)} ${unit}`;
}

const short = value => value === null || value === undefined ? "" : value >= 1000 ? value.toFixed(0) : value.toPrecision(3);
const percent = value => value === null ? "" : `${value >= 0.0995 ? (100 * value).toFixed(0) : (100 * value).toPrecision(2)}%`;

// coverage of the median's interval for a number of rounds: the sign test reaches 95% from 6 rounds on
const held = rounds => `${rounds >= 6 ? 95 : Math.floor(100 * (1 - 2 ** (1 - Math.max(rounds, 1))))}%`;

function python(row) {
  const literal = value => value === null ? "None" : String(value);
  const values = {backend: data.sources[row.backend], spec: row.spec, seed: data.seed};
  for (const name of ["T", "B", "I", "window", "stride", "threads"]) values[name] = literal(row[name]);
  return data.templates[row.phase].replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

function outcome(row) {
  if (row.status !== "measured") return `No result: ${row.status}. ${data.reasons[row.number] ?? ""}`;
  const time = `${duration(row.seconds)} per call, ${held(row.rounds)} interval ${duration(row.low)} to ${duration(row.high)}, ${row.rounds} round${row.rounds === 1 ? "" : "s"}.`;
  if (row.speed === null) return time;
  const verdict = {same: "the same", unclear: "unclear which is faster"}[row.result] ?? row.result;
  return `${time} ${short(row.speed)} times as fast as ${row.baseline} (${short(row.speedLow)} to ${short(row.speedHigh)}): ${verdict}.`;
}

const svg = (name, attributes, parent) => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  parent?.append(element);
  return element;
};

// one column of dots per round, and a line at the median over rounds
function samplesChart(row, rounds) {
  const width = clamp(window.innerWidth - 70, 240, 460), height = 130, left = 62, bottom = 22, all = rounds.flat(), seconds = value => row.seconds * (1 + value / 1e4);
  const low = Math.min(...all, 0), high = Math.max(...all, 0), spread = high - low || 1;
  const x = i => left + (width - left - 10) * (i + 0.5) / rounds.length, y = value => 10 + (height - bottom - 16) * (1 - (value - low) / spread);
  const picture = svg("svg", {viewBox: `0 0 ${width} ${height}`, role: "img"});
  picture.setAttribute("aria-label", `${all.length} samples of ${rounds.length} rounds, from ${duration(seconds(low))} to ${duration(seconds(high))}`);
  svg("line", {x1: left, x2: width - 6, y1: y(0), y2: y(0), class: "median"}, picture);
  const levels = [[low, "end"], [high, "end"]];
  for (const [value, anchor] of levels) svg("text", {x: left - 6, y: y(value) + 4, "text-anchor": anchor}, picture).textContent = duration(seconds(value));
  svg("text", {x: (left + width) / 2, y: height - 4, "text-anchor": "middle"}, picture).textContent = `round 1 to ${rounds.length}`;
  rounds.forEach((samples, i) => { for (const value of samples) svg("circle", {cx: x(i), cy: y(value), r: 2.6}, picture); });
  return picture;
}

function facts(row) {
  const found = [];
  if (row.status === "measured") {
    if (row.device_seconds) found.push(["device time", `${duration(row.device_seconds)} per call, calls submitted back to back`]);
    found.push(["per time step", duration(row.step)], ["time steps per second", short(row.T * row.B / row.seconds)]);
    if (row.gflops !== null) found.push(["GFLOP/s", short(row.gflops) + (peakPart(row) ? ` (${percent(peakPart(row))} of the multiply-add peak)` : "")]);
  }
  if (row.peak_bytes !== null) found.push(["peak memory", `${short(row.peak_bytes / 1e6)} MB above the loaded network`]);
  if (row.relative_error !== null) found.push(["gradient error", `${percent(row.relative_error)} of the full gradient, due to the window`]);
  if (row.noisy) found.push(["noisy", "the machine disturbed more than 20% of this case's rounds; they were measured again"]);
  return found;
}

function showCase(row) {
  dialog.querySelector("h3").textContent = `${row.label}, ${row.backend}`;
  dialog.querySelector(".outcome").textContent = outcome(row);
  const list = dialog.querySelector("dl"), samples = dialog.querySelector(".samples"), rounds = data.samples.rows[row.number];
  list.textContent = "";
  for (const [name, value] of facts(row)) {
    list.append(Object.assign(document.createElement("dt"), {textContent: name}), Object.assign(document.createElement("dd"), {textContent: value}));
  }
  samples.textContent = "";
  samples.hidden = !rounds;
  if (rounds) {
    const caption = document.createElement("figcaption");
    caption.textContent = data.samples.whole ? "Every sample, by round. The line is the median over rounds."
      : "Median of each round; this run has too many samples for a page. The line is the median over rounds.";
    samples.append(samplesChart(row, rounds), caption);
  }
  code.textContent = python(row);
  copyStatus.textContent = "";
  if (!dialog.open) dialog.showModal();
}

document.getElementById("copy").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(code.textContent);
    copyStatus.textContent = "Copied.";
  } catch (error) {
    window.getSelection().selectAllChildren(code);
    copyStatus.textContent = "The browser does not allow access to the clipboard. The code is selected: copy it with the keyboard.";
  }
});
