"use strict";
// Shared by all pages: rows, theme and charts.  A page overrides the hooks below as needed, then calls `drawAll`.

const data = JSON.parse(document.getElementById("data").textContent);
const MANY_MARKS = 5000;
const views = new Map();
let rowsOf = chart => rows[chart.dataset];
let paramValues = () => ({});
let overlayOf = () => ({});
let afterDraw = () => {};
let emptyText = () => "Nothing was measured with these filters.";

// the inverse of page.columns
function expand(set) {
  const names = Object.entries(set.columns).map(([name, column]) =>
    [name, Array.isArray(column) ? column : column.index.map(i => column.names[i])]);
  return Array.from({length: set.length}, (_, i) => {
    const row = {...set.same};
    for (const [name, column] of names) row[name] = column[i];
    return row;
  });
}

const cases = data.cases ? expand(data.cases) : [];
const rows = Object.fromEntries(Object.entries(data.rows).map(([name, set]) => [name, expand(set).map(join)]));

// a row with the fields of its case and the indices of its backends
function join(row) {
  const joined = {...cases[row.case], ...row};
  for (const name of ["backend", "a", "b"]) if (name in row) joined[`${name}_order`] = data.backends.indexOf(row[name]);
  return joined;
}

const themeButton = document.getElementById("theme");
const prefersDark = window.matchMedia("(prefers-color-scheme: dark)"), onPaper = window.matchMedia("print");
const currentTheme = () => document.documentElement.dataset.theme;
let chosenTheme = prefersDark.matches ? "dark" : "light";

// the chosen theme on a screen, always light on paper
function setTheme(printing = onPaper.matches) {
  document.documentElement.dataset.theme = printing ? "light" : chosenTheme;
  themeButton.textContent = chosenTheme === "dark" ? "Light" : "Dark";
  themeButton.setAttribute("aria-label", `Switch to the ${chosenTheme === "dark" ? "light" : "dark"} theme`);
}

function changeTheme(printing) {
  const before = currentTheme();
  setTheme(printing);
  if (currentTheme() !== before) drawAll();
}
setTheme();
prefersDark.addEventListener("change", event => { chosenTheme = event.matches ? "dark" : "light"; changeTheme(); });
themeButton.addEventListener("click", () => { chosenTheme = chosenTheme === "dark" ? "light" : "dark"; changeTheme(); });
onPaper.addEventListener("change", event => changeTheme(event.matches));
window.addEventListener("beforeprint", () => {
  for (const element of document.querySelectorAll("details:not(.vega-embed *)")) element.open = true;
  changeTheme(true);  // drawing awaits only promises, and all of them resolve before the browser lays out the print
});
window.addEventListener("afterprint", () => changeTheme(false));

const distinct = (list, field) => new Set(list.map(row => row[field])).size;
const clamp = (value, low, high) => Math.max(low, Math.min(high, value));

// panels as wide as the page allows
function sized(chart, width, list) {
  const spec = structuredClone(chart.spec);
  if (chart.tiles) {
    const tiles = distinct(list, "cell_order") * distinct(list, chart.tiles);
    const tile = clamp(Math.floor((width - 190) / Math.max(tiles, 1)), 22, 58);
    spec.spec.width = {step: tile};
    spec.spec.height = {step: Math.max(18, Math.round(tile * 0.66))};
    spec.params.find(param => param.name === "tile").value = tile;
  } else if (spec.facet) {
    const panels = Math.max(1, distinct(list, spec.facet.field));
    spec.columns = clamp(Math.floor(width / 330), 1, panels);
    spec.spec.width = clamp((width - 70) / spec.columns - 25, 190, 420);
  } else {
    spec.width = clamp(width - (chart.overlay ? 90 : 190), 180, 760);
  }
  return spec;
}

async function draw(name) {
  const figure = document.querySelector(`[data-chart="${name}"]`), holder = figure.querySelector(".chart");
  const chart = data.charts[name], list = rowsOf(chart, name);
  const empty = figure.querySelector(".empty");
  empty.hidden = list.length > 0;
  empty.querySelector("span").textContent = list.length ? "" : emptyText(chart);
  holder.hidden = list.length === 0;
  views.get(name)?.finalize();
  views.delete(name);
  holder.textContent = "";
  if (!list.length) return;
  const theme = currentTheme(), spec = sized(chart, figure.clientWidth, list);
  const params = {...data.ink[theme], ...paramValues()};
  for (const param of spec.params ?? []) if (param.name in params) param.value = params[param.name];
  spec.datasets = {[chart.dataset]: list, ...overlayOf(chart)};
  const config = structuredClone(data.themes[theme]);
  const labelWidth = spec.facet || chart.overlay ? 0 : 130;  // a legend begins where the axis does
  config.legend.columns = clamp(Math.floor((figure.clientWidth - labelWidth) / 170), 1, 6);
  const result = await vegaEmbed(holder, spec, {
    ast: true, actions: {export: true, source: false, compiled: false, editor: false}, config,
    renderer: list.length > MANY_MARKS ? "canvas" : "svg", tooltip: {theme},
  });
  views.set(name, result);
  holder.querySelector(".marks").setAttribute("aria-hidden", "true");  // the figure has a name, its points a keyboard interface
  holder.querySelector("summary").setAttribute("aria-label", "Save this chart");
  afterDraw(name, result, figure, holder);
}

// draws one chart after the other; a later call stops an earlier one
let turn = 0;
async function drawAll() {
  const mine = ++turn;
  document.body.dataset.drawn = "";
  for (const name of Object.keys(data.charts)) {
    if (mine !== turn) return;
    await draw(name);
  }
  document.body.dataset.drawn = String(mine);
}

let lastWidth = window.innerWidth, resizing;
window.addEventListener("resize", () => {
  if (window.innerWidth === lastWidth) return;
  lastWidth = window.innerWidth;
  clearTimeout(resizing);
  resizing = setTimeout(drawAll, 200);
});
