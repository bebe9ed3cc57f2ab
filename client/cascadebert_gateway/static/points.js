// The operating points: what they promise, and where they are on the curve of the certificate.
import { $, element, percent, svg } from "./dom.js";
import { cascade } from "./gateway.js";

export function showPoints() {
  const points = cascade.operating_points;
  $("points").hidden = points.length === 0;
  const items = points.map((point) => element("li", {},
    element("strong", {}, point.name), point.default ? element("span", { class: "state" }, "default") : "",
    element("div", {}, point.goal ?? "its goal is not known"),
    element("div", { class: "hint" }, facts(point))));
  $("points").replaceChildren(element("h2", {}, "Operating points"),
    ...[cascade.cost_curve && figure(cascade.cost_curve)].filter(Boolean),
    element("ul", { class: "promises" }, ...items));
}

const facts = (point) => [
  point.deferral !== null && `${percent(point.deferral)} of the held-out rows deferred`,
  point.speedup !== null && `${point.speedup.toFixed(2)} times as fast as the large model alone`,
].filter(Boolean).join(", ");

function figure({ quality, rows, curve, last, points }) {
  const W = 560, H = 270, LEFT = 66, RIGHT = 96, TOP = 14, BOTTOM = 46;
  const marks = Object.entries(points);
  const all = [...curve, last, ...marks.map(([, pair]) => pair)];
  const most = Math.max(...all.map(([cost]) => cost));
  const [low, high] = rounded(all.map(([, q]) => q));
  const x = (cost) => LEFT + (cost / most) * (W - LEFT - RIGHT);
  const y = (q) => H - BOTTOM - ((q - low) / (high - low)) * (H - BOTTOM - TOP);
  const text = (at, up, words, more = {}) => svg("text", { x: at, y: up, ...more }, words);
  const drawn = svg("svg", { viewBox: `0 0 ${W} ${H}`, role: "img",
    "aria-label": `${quality} against cost; the list below has the operating points` });
  for (const q of [low, (low + high) / 2, high]) {
    drawn.append(svg("line", { class: "grid", x1: x(0), x2: x(most), y1: y(q), y2: y(q) }),
      text(LEFT - 8, y(q) + 4, percent(q), { "text-anchor": "end" }));
  }
  for (let cost = 0; cost <= most; cost += most > 2 ? 1 : 0.25) {
    drawn.append(text(x(cost), H - BOTTOM + 18, percent(cost, 0), { "text-anchor": "middle" }));
  }
  const name = quality === "accuracy" ? "accuracy" : "agreement with the large model";
  drawn.append(text(x(most / 2), H - 6, "cost of a row, the large model alone is 100%",
    { "text-anchor": "middle" }));
  drawn.append(svg("polyline", { class: "curve", points: curve.map(([c, q]) => `${x(c)},${y(q)}`).join(" ") }));
  drawn.append(svg("circle", { class: "last", cx: x(last[0]), cy: y(last[1]), r: 5 }));
  for (const [, [cost, q]] of marks) drawn.append(svg("circle", { class: "point", cx: x(cost), cy: y(q), r: 6 }));
  const placed = []; // a name that would cover another one moves down
  for (const [label, [cost, q]] of [...marks, ["large alone", last]].sort((a, b) => b[1][1] - a[1][1])) {
    let at = y(q) + 20;
    while (placed.some(([left, up]) => Math.abs(left - x(cost)) < 100 && Math.abs(up - at) < 15)) at += 15;
    placed.push([x(cost), at]);
    drawn.append(text(x(cost) + 6, at, label, { class: "name" }));
  }
  return element("figure", {}, drawn, element("figcaption", { class: "hint" },
    `${name} over all thresholds, on ${rows} held-out rows`));
}

// Limits of an axis, in whole percent, with a little room.
function rounded(values) {
  const low = Math.floor(100 * Math.min(...values) - 0.5), high = Math.ceil(100 * Math.max(...values) + 0.5);
  return [Math.max(0, low) / 100, Math.min(100, high) / 100];
}
