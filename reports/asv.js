"use strict";

const shown = ["benchmark", "params", "value", "low", "high", "commit", "date", "machine", "environment"];
makeTable(shown.map(name => ({
  title: name, value: row => row[name], number: ["value", "low", "high"].includes(name),
})))(rows.asv);
drawAll();
