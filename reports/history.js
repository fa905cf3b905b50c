"use strict";
// The case that the chart shows, the filters and the table of timelines.

const form = document.getElementById("filters"), figure = document.querySelector("[data-chart=timeline]");
const label = figure.querySelector(".sweep"), select = label.querySelector("select");
label.firstChild.textContent = "Case ";
const passes = makeFilters(form, rows.timelines, () => { showTable(rows.timelines.filter(passes)); drawAll(); });
const place = row => `${row.label}, ${row.machine}`, machines = new Set(rows.timelines.map(row => row.machine)).size;
const layers = data.charts.timeline.spec.layer;
let picked = null;

// all backends of one case on one machine: the picked case, or else the first one that passes the filters
rowsOf = chart => {
  const list = rows.timelines.filter(passes), cases = new Map(list.map(row => [place(row), row]));
  if (!cases.has(picked)) picked = cases.keys().next().value ?? null;
  select.textContent = "";
  for (const [name, row] of cases) {
    const option = document.createElement("option");
    option.value = name;
    option.textContent = machines > 1 ? name : row.label;
    select.append(option);
  }
  select.value = picked;
  label.hidden = cases.size < 2;
  figure.querySelector(".fixed").textContent = picked === null ? "" : machines > 1 ? picked : cases.get(picked).label;
  const lines = new Set(list.filter(row => place(row) === picked).map(row => row.line));
  const shown = rows[chart.dataset].filter(row => lines.has(row.line));
  // the last layer draws the levels between steps; without levels Vega warns of an empty scale
  chart.spec.layer = shown.some(row => row.end !== null) ? layers : layers.slice(0, -1);
  return shown;
};
select.addEventListener("change", () => { picked = select.value; drawAll(); });

function showButton(row) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Show";
  button.setAttribute("aria-label", `Show ${place(row)} in the chart`);
  button.addEventListener("click", () => {
    picked = place(row);
    drawAll();
    figure.scrollIntoView();
  });
  return button;
}

const three = value => value === null ? "" : value.toFixed(3);
const showTable = makeTable([
  {title: "case", value: row => row.label},
  ...(machines > 1 ? [{title: "machine", value: row => row.machine}] : []),
  {title: "backend", value: row => row.backend},
  {title: "chart", button: showButton},
  {title: "runs", value: row => row.runs, number: true},
  {title: "failed", value: row => row.failed, number: true},
  {title: "newest, s", value: row => row.seconds, text: row => row.seconds.toPrecision(3), number: true},
  {title: "newest / first", value: row => row.whole, text: row => three(row.whole), number: true},
  {title: "found", value: row => row.finding},
  {title: "steps", value: row => row.steps},
]);
showTable(rows.timelines);
drawAll();
