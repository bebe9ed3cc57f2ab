// The page of a gateway. It calls nothing but the gateway itself.
const $ = (id) => document.getElementById(id);
const percent = (share) => `${(100 * share).toFixed(1)}%`;
let info = { labels: [], operating_points: [] };

const element = (name, text = "", className = "") => {
  const made = document.createElement(name);
  made.textContent = text;
  if (className) made.className = className;
  return made;
};

async function call(path, body) {
  const headers = { "Content-Type": "application/json" };
  if ($("key").value) headers.Authorization = `Bearer ${$("key").value}`;
  let response;
  try {
    response = await fetch(path, body && { method: "POST", headers, body: JSON.stringify(body) } || { headers });
  } catch {
    throw new Error("The gateway does not answer. Does it run?");
  }
  const answer = await response.json();
  if (response.status === 401) $("key").hidden = $("key-label").hidden = false;
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

const point = () => info.operating_points.find((p) => p.name === $("point").value)
  || info.operating_points.find((p) => p.default);
// The threshold of a stage; one for each label is not shown.
const thresholdOf = (stage) => {
  const found = point()?.thresholds[stage];
  return typeof found === "number" ? found : null;
};
const chosen = () => ($("point").value ? { operating_point: $("point").value } : {});

function stageBox(number, answer, answered, last) {
  const box = element("div", "", `stage${answered ? " answered" : ""}`);
  const threshold = last ? null : thresholdOf(number);
  box.append(element("strong", `Stage ${number}: ${[answer.label].flat().join(", ")}`));
  box.append(element("span", answered ? " (answered)" : "", "hint"));
  const bar = element("div", "", "bar");
  const fill = element("div");
  fill.style.width = percent(answer.confidence);
  bar.append(fill);
  if (threshold !== null) {
    const mark = element("i");
    mark.style.left = percent(Math.min(threshold, 1));
    bar.append(mark);
  }
  box.append(bar);
  const compared = threshold === null ? "" : `, threshold ${threshold.toFixed(4)}`;
  box.append(element("span", `confidence ${answer.confidence.toFixed(4)}${compared}`, "hint"));
  const all = Object.entries(answer.probabilities).map(([name, p]) => `${name} ${percent(p)}`);
  box.append(element("div", all.join(" · "), "hint"));
  return box;
}

async function showOne(text, pair) {
  const row = pair === null ? { text } : { text, text_pair: pair };
  const started = performance.now();
  const answer = (await call("/classify", { ...row, ...chosen() })).answers[0];
  const took = performance.now() - started;
  $("label").textContent = [answer.label].flat().join(", ") || "no label";
  $("exit").textContent = `answered by stage ${answer.exit_stage}${answer.degraded ? ", degraded" : ""}`;
  $("time").textContent = `${took.toFixed(1)} ms to the gateway and back`;
  const stages = (point()?.thresholds.length ?? answer.exit_stage) + 1;
  const asked = await Promise.all([...Array(stages).keys()].map((stage) =>
    call("/classify", { ...row, stage }).then((found) => found.answers[0])));
  $("stages").replaceChildren(...asked.map((found, stage) =>
    stageBox(stage, found, stage === answer.exit_stage, stage === stages - 1)));
  $("one").hidden = false;
}

async function showMany(texts) {
  const { answers } = await call("/classify", { text: texts, ...chosen() });
  const rows = texts.map((text, i) => ({ text, ...answers[i] }));
  // The hard ones first: deferred, and of these the least sure.
  rows.sort((a, b) => b.exit_stage - a.exit_stage || a.confidence - b.confidence);
  const exits = rows.reduce((all, r) => ({ ...all, [r.exit_stage]: (all[r.exit_stage] ?? 0) + 1 }), {});
  $("summary").textContent = `${rows.length} rows: ` + Object.entries(exits)
    .map(([stage, n]) => `${n} at stage ${stage} (${percent(n / rows.length)})`).join(", ");
  $("rows").replaceChildren(...rows.map((r) => {
    const line = element("tr");
    line.append(element("td", String(r.exit_stage)), element("td", [r.label].flat().join(", ")),
      element("td", r.confidence.toFixed(4), "number"), element("td", r.text));
    return line;
  }));
  $("many").hidden = false;
}

function showPoints() {
  const points = info.operating_points;
  $("points").hidden = points.length === 0;
  $("promises").replaceChildren(...points.map((p) => {
    const line = element("tr");
    line.append(element("td", p.name + (p.default ? " (default)" : "")),
      element("td", p.deferral === null ? "" : percent(p.deferral), "number"),
      element("td", p.speedup === null ? "" : `${p.speedup.toFixed(2)}×`, "number"),
      element("td", p.goal ?? ""));
    return line;
  }));
  const known = points.filter((p) => p.deferral !== null && p.speedup !== null);
  if (known.length) $("curve").replaceChildren(curve(known));
}

// Deferred rows against how many times faster the cascade is than the large member alone.
function curve(points) {
  const NS = "http://www.w3.org/2000/svg", W = 420, H = 170, LEFT = 48, BOTTOM = 34;
  const most = Math.max(1, ...points.map((p) => p.speedup)) * 1.1;
  const x = (deferral) => LEFT + deferral * (W - LEFT - 90);
  const y = (speedup) => H - BOTTOM - (speedup / most) * (H - BOTTOM - 12);
  const make = (name, attributes, text) => {
    const made = document.createElementNS(NS, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text) made.textContent = text;
    return made;
  };
  const svg = make("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": "speed-up against deferral" });
  const line = { stroke: "currentColor", "stroke-opacity": .4 };
  svg.append(make("line", { x1: x(0), x2: x(1), y1: y(0), y2: y(0), ...line }),
    make("line", { x1: x(0), x2: x(0), y1: y(0), y2: y(most), ...line }),
    make("line", { x1: x(0), x2: x(1), y1: y(1), y2: y(1), "stroke-dasharray": 4, ...line }),
    make("text", { x: x(1) + 4, y: y(1) + 4 }, "large alone"),
    make("text", { x: x(0), y: H - 8 }, "0%"), make("text", { x: x(1) - 24, y: H - 8 }, "100%"),
    make("text", { x: x(.5) - 40, y: H - 8 }, "rows deferred"), make("text", { x: 4, y: y(most) + 10 }, "faster"));
  for (const p of points) {
    svg.append(make("circle", { cx: x(p.deferral), cy: y(p.speedup), r: 5, fill: "var(--accent)" }),
      make("text", { x: x(p.deferral) + 8, y: y(p.speedup) + 4 }, `${p.name} ${p.speedup.toFixed(2)}×`));
  }
  return svg;
}

async function learn() {
  info = await call("/info");
  $("model").textContent = info.model;
  $("point").replaceChildren(new Option("(its own)", ""),
    ...info.operating_points.map((p) => new Option(p.name, p.name)));
  $("pair-field").hidden = !info.pair;
  showPoints();
}

async function attempt(work) {
  $("error").hidden = true;
  $("send").disabled = true;
  try {
    await work();
  } catch (failure) {
    $("error").textContent = failure.message;
    $("error").hidden = false;
  } finally {
    $("send").disabled = false;
  }
}

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  $("one").hidden = $("many").hidden = true;
  const lines = $("text").value.split("\n").map((t) => t.trim()).filter(Boolean);
  const pair = info.pair ? $("pair").value : null;
  attempt(async () => {
    if (!info.model) await learn();
    await (lines.length > 1 && pair === null ? showMany(lines) : showOne(lines.join(" "), pair));
  });
});
$("form").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("form").requestSubmit();
});
attempt(learn);
