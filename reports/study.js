"use strict";

const numeric = name => rows.study.every(row => row[name] === null || typeof row[name] === "number");
const shortened = value => typeof value === "number" && !Number.isInteger(value) ? String(Number(value.toPrecision(4))) : value;
makeTable(data.columns.map(name => ({
  title: name, value: row => row[name], text: row => shortened(row[name]), number: numeric(name),
})))(rows.study);
drawAll();
