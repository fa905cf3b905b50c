"use strict";
// Filters for the chart of ratios and the table of comparisons.

const MAX_LINES = 40;

const form = document.getElementById("filters");
const passes = makeFilters(form, rows.ratios, () => { showTable(rows.ratios.filter(passes)); drawAll(); });

rowsOf = chart => {
  const list = rows[chart.dataset].filter(passes), lines = [...new Set(list.map(row => row.line))].sort((a, b) => a - b);
  const shown = new Set(lines.slice(0, MAX_LINES));
  document.querySelector("[data-chart=ratios] .fixed").textContent = lines.length > MAX_LINES
    ? `The first ${MAX_LINES} of ${lines.length}; the table has them all.` : "";
  return list.filter(row => shown.has(row.line));
};

const three = value => value === null ? "" : value.toFixed(3);
const showTable = makeTable([
  {title: "case", value: row => row.label},
  {title: "backend", value: row => row.backend},
  {title: "run", value: row => row.run},
  {title: "time / A's", value: row => row.ratio, text: row => three(row.ratio), number: true},
  {title: "interval", value: row => row.low, text: row => `${three(row.low)} to ${three(row.high)}`, number: true},
  {title: "verdict", value: row => row.verdict},
  {title: "rounds", value: row => row.rounds},
]);
showTable(rows.ratios);
drawAll();
