"use strict";
// The filters of a page: selects filled from rows.  A select with a single value is hidden.

// resets to the values at the time of this call; a browser resets a select filled by script to its first option
function onReset(form, changed) {
  const first = [...form.elements].filter(element => element.name).map(select => [select, select.value]);
  form.addEventListener("reset", event => {
    event.preventDefault();
    for (const [select, value] of first) select.value = value;
    changed();
  });
}

function makeFilters(form, list, changed) {
  const names = [...form.elements].map(element => element.name).filter(Boolean);
  for (const name of names) {
    const select = form.elements[name], values = [...new Set(list.map(row => row[name]))].sort((a, b) =>
      typeof a === "number" ? a - b : String(a).localeCompare(String(b)));
    for (const [value, text] of [["", "all"], ...values.map(value => [value, value])]) {
      const option = document.createElement("option");
      option.value = value;
      option.textContent = text;
      select.append(option);
    }
    select.parentElement.hidden = values.length < 2;
  }
  form.addEventListener("change", changed);
  form.addEventListener("submit", event => event.preventDefault());
  onReset(form, changed);
  return row => names.every(name => form.elements[name].value === "" || String(row[name]) === form.elements[name].value);
}
