"use strict";

const numbers = ["value", "low", "high", "ratio"];
const shown = ["benchmark", "params", "state", "value", "unit", "low", "high", "ratio", "change", "commit", "date", "machine", "environment"];
makeTable(shown.map(name => ({
  title: name, value: row => row[name], number: numbers.includes(name),
})))(rows.asv);
drawAll();
