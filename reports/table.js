"use strict";
// A table that sorts by its headings and filters by search terms.  `columns`: {title, value, text?, number?, button?}.

const FIRST_ROWS = 200;

function makeTable(columns) {
  const table = document.getElementById("table"), find = document.getElementById("find");
  const count = document.getElementById("count"), more = document.getElementById("more");
  let list = [], sorted = {column: null, down: false}, all = false;

  const head = table.tHead.insertRow();
  for (const column of columns) {
    const cell = document.createElement("th");
    cell.scope = "col";
    if (column.button) {
      cell.textContent = column.title;
      cell.className = "action";
    } else {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = column.title;
      button.addEventListener("click", () => {
        sorted = {column, down: sorted.column === column ? !sorted.down : false};
        for (const other of head.cells) other.removeAttribute("aria-sort");
        cell.setAttribute("aria-sort", sorted.down ? "descending" : "ascending");
        show();
      });
      cell.append(button);
    }
    head.append(cell);
  }

  // blank values sort last in both directions
  function order(a, b) {
    const x = sorted.column.value(a), y = sorted.column.value(b);
    const blankX = x === null || x === undefined, blankY = y === null || y === undefined;
    if (blankX || blankY) return blankX - blankY;
    const result = sorted.column.number ? x - y : String(x).localeCompare(String(y));
    return sorted.down ? -result : result;
  }

  function show() {
    const terms = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    let found = list.filter(row => terms.every(term => row.searched.includes(term)));
    if (sorted.column) found = found.toSorted(order);
    const visible = all ? found : found.slice(0, FIRST_ROWS);
    const body = document.createElement("tbody");
    for (const row of visible) {
      const line = body.insertRow();
      for (const column of columns) {
        const cell = line.insertCell();
        if (column.button) {
          cell.append(column.button(row));
          cell.className = "action";
        } else {
          const text = column.text ? column.text(row) : column.value(row);
          cell.textContent = text ?? "";
          if (cell.textContent.length > 30) cell.title = cell.textContent;
        }
        if (column.number) cell.className = "n";
      }
    }
    table.tBodies[0].replaceWith(body);
    count.textContent = `${visible.length} of ${found.length} rows`;
    more.hidden = visible.length === found.length;
  }

  find.addEventListener("input", show);
  more.addEventListener("click", () => { all = true; show(); });
  return next => {
    list = next.map(row => ({...row, searched: columns.filter(c => !c.button).map(c => c.text ? c.text(row) : c.value(row))
      .concat(row.label ?? "").join(" ").toLowerCase()}));
    show();
  };
}
