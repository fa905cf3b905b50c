"use strict";
// Summaries of the filtered cases: who is fastest, and the cost and benefit of each truncation window.

function fill(table, heads, lines, caption) {
  table.textContent = "";
  if (caption) table.createCaption().textContent = caption;
  const head = table.createTHead().insertRow(), body = table.createTBody();
  for (const text of heads) head.append(Object.assign(document.createElement("th"), {scope: "col", textContent: text}));
  for (const [first, ...others] of lines) {
    const line = body.insertRow();
    line.append(Object.assign(document.createElement("th"), {scope: "row", textContent: first}));
    for (const text of others) {
      const cell = line.insertCell();
      cell.textContent = text;
      if (/^([\d.]|none$)/.test(text)) cell.className = "n";
    }
  }
}

const listed = names => names.length > 1 ? `${names.slice(0, -1).join(", ")} and ${names.at(-1)}` : names.join("");
const MAX_NAME_LENGTH = 60;
const clip = name => name.length > MAX_NAME_LENGTH ? `${name.slice(0, MAX_NAME_LENGTH)}…` : name;
const counted = (number, word) => `${number} ${word}${number === 1 ? "" : "s"}`;
const median = values => {
  const sorted = values.toSorted((a, b) => a - b), half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half] : Math.sqrt(sorted[half - 1] * sorted[half]);
};

// "torch_nn is fastest in 3, numba_cpu in 1; 2 are tied between ..."
function leaders(list) {
  const outcome = `outcome_${device()}`, timed = list.filter(row => row[outcome]), clear = timed.filter(row => row[outcome] === "clear"), parts = [];
  if (!timed.length) return "no backend completed a case.";
  const names = row => row[`leaders_${device()}`].split(" ").map(place => clip(data.backends[place]));
  const wins = Map.groupBy(clear, row => names(row)[0]), order = [...wins].sort((a, b) => b[1].length - a[1].length);
  if (timed.length === 1 && clear.length === 1) return `${names(clear[0])[0]} is fastest.`;
  order.forEach(([name, won], i) => parts.push(i ? `${name} in ${won.length}` : `${name} is fastest in ${won.length === timed.length ? "all" : `${won.length} of`} ${counted(timed.length, "case")}`));
  const sentence = [parts.join(", ") || `no backend is clearly fastest in ${counted(timed.length, "case")}`];
  const [ties, unclear, alone] = ["same", "unclear", "alone"].map(state => timed.filter(row => row[outcome] === state));
  if (ties.length) sentence.push(`${ties.length} tied between ${listed([...new Set(ties.flatMap(names))])}`);
  if (unclear.length) sentence.push(`${unclear.length} unclear`);
  if (alone.length) sentence.push(`in ${alone.length} only one backend completed (${listed([...new Set(alone.flatMap(names))])})`);
  return `${sentence.join("; ")}.`;
}

// `picked`: the filters as text; `list`: the rows of the table of cases
function showLeaders(picked, list, baseline) {
  const shown = cases.filter(row => passes(row));
  const single = shown.length === 1, lines = [];
  document.querySelector("#selection p").textContent = `${picked}${single ? ` (one case: ${clip(shown[0].label)})` : ""}: ${leaders(shown)}`;
  for (const name of deviceBackends()) {
    const own = list.filter(row => row.backend === name && row.status === "measured"), compared = own.filter(row => row.speed !== null);
    const speeds = name === baseline ? [1] : compared.map(row => row.speed), spread = speeds.length ? [Math.min(...speeds), Math.max(...speeds)] : [];
    const first = compared[0], range = name === baseline || !speeds.length ? "" : single ? `${short(first.speedLow)} to ${short(first.speedHigh)}` : `${short(spread[0])} to ${short(spread[1])}`;
    const results = ["faster", "same", "unclear", "slower"].map(result => [result, compared.filter(row => row.result === result).length]).filter(([, number]) => number);
    const time = single ? [own.length ? duration(own[0].seconds) : ""] : [];
    const result = name === baseline ? "baseline" : results.map(([result, number]) => single ? result : `${result} ${number}`).join(", ") || "no result";
    lines.push({rank: speeds.length ? median(speeds) : -1,
      line: [name, result, speeds.length ? `${short(median(speeds))}×` : "", range, ...time, `${own.length} of ${shown.length}`]});
  }
  lines.sort((a, b) => b.rank - a.rank);
  const heads = ["backend", "result", `speed relative to ${baseline}`, single ? `${held(Math.min(...list.filter(row => row.status === "measured").map(row => row.rounds)))} interval` : "range", ...(single ? ["per call"] : []), "completed"];
  fill(document.querySelector("#selection table"), heads, lines.map(entry => entry.line));
}

// `list`: the rows of the shown sweep over windows
function showWindows(list, baseline) {
  const holder = document.getElementById("windows");
  const own = list.filter(row => row.backend === baseline).sort((a, b) => a.cell_order - b.cell_order || a.window - b.window);
  holder.hidden = !own.length;
  const full = Map.groupBy(own.filter(row => row.window >= row.T), row => row.cell);
  const lines = own.map(row => {
    const whole = full.get(row.cell)?.[0];
    const of = field => row[field] && whole?.[field] ? percent(row[field] / whole[field]) : "";
    return [row.cell, row.window >= row.T ? `${row.window} (full BPTT)` : row.window, row.relative_error === null ? "" : row.relative_error ? percent(row.relative_error) : "none",
      row.status === "measured" ? duration(row.seconds) : row.status, row.status === "measured" ? of("seconds") : "",
      row.peak_bytes === null ? "" : `${short(row.peak_bytes / 1e6)} MB`, of("peak_bytes")];
  });
  const heads = ["cell", "window", "gradient error", "time", "of full BPTT", "peak memory", "of full BPTT"];
  fill(holder.querySelector("table"), heads, lines, `Cost and benefit of each window, with ${baseline} (the baseline)`);
}
