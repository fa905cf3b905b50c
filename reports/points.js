"use strict";
// Points of charts: a click, or the arrow keys and Enter, opens the case of a point.

const HINT = "Arrow keys move between points, Enter opens the case.";

// the marks of a drawn chart that belong to a case, from left to right, each with its position and size in the chart
function pointsOf(view) {
  const found = new Map(), padding = view.padding(), [left, top] = view.origin();
  (function walk(item, x, y) {
    if (item.marktype === "group") for (const group of item.items) for (const mark of group.items) walk(mark, x + (group.x ?? 0), y + (group.y ?? 0));
    else if (["symbol", "rect", "text"].includes(item.marktype)) for (const each of item.items) {
      const datum = each.datum, key = `${datum?.case} ${datum?.backend} ${datum?.tensor}`;
      if (datum?.case === undefined || found.has(key)) continue;
      const {x1, y1, x2, y2} = each.bounds;
      found.set(key, {datum, x: (x1 + x2) / 2 + x + left + padding.left, y: (y1 + y2) / 2 + y + top + padding.top, width: x2 - x1, height: y2 - y1});
    }
  })(view.scenegraph().root, 0, 0);
  return [...found.values()].sort((a, b) => a.x - b.x || a.y - b.y);
}

function makePoints(figure, holder, view, open) {
  const status = figure.querySelector(".picked"), ring = document.createElement("div");
  let points = null, place = -1;
  status.textContent = HINT;
  holder.setAttribute("role", "application");
  holder.setAttribute("aria-roledescription", "chart");
  ring.className = "ring";
  ring.hidden = true;
  holder.append(ring);
  view.addEventListener("click", (event, item) => {
    if (item?.datum?.case !== undefined && item.mark.marktype !== "line") open(item.datum);
  });

  function go(to) {
    points ??= pointsOf(view);
    if (!points.length) return;
    place = clamp(to, 0, points.length - 1);
    const {datum, x, y, width, height} = points[place], size = [Math.max(width, 12) + 6, Math.max(height, 12) + 6];
    const origin = holder.querySelector(".marks").getBoundingClientRect(), box = holder.getBoundingClientRect();
    ring.hidden = false;
    ring.style.width = `${size[0]}px`;
    ring.style.height = `${size[1]}px`;
    ring.style.left = `${origin.left - box.left + holder.scrollLeft + x - size[0] / 2}px`;
    ring.style.top = `${origin.top - box.top + holder.scrollTop + y - size[1] / 2}px`;
    ring.scrollIntoView({block: "nearest", inline: "nearest"});
    status.textContent = `${place + 1} of ${points.length}: ${describe(datum)}. Press Enter to open.`;
  }

  holder.onkeydown = event => {
    const step = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1}[event.key];
    if (event.target !== holder) return;
    if (step) go(place + step);
    else if (event.key === "Home") go(0);
    else if (event.key === "End") go(Infinity);
    else if (event.key === "Enter" && place >= 0) open(points[place].datum);
    else return;
    event.preventDefault();
  };
  holder.onblur = () => { ring.hidden = true; };
}
