// One text: which stage answered, what every stage says, and where the time went.
import { $, element, labelText, ms, percent, plural } from "./dom.js";
import { call, cascade, chosen, chosenPoint, explained } from "./gateway.js";

const MOST_LABELS = 5;

export async function showOne(row) {
  const started = performance.now();
  const answer = await explained({ ...row, ...chosen() });
  const took = performance.now() - started;
  const told = answer.timeline?.stages ?? [];
  const count = Math.max((chosenPoint()?.thresholds.length ?? 0) + 1, answer.exit_stage + 1);
  const stages = await Promise.all([...Array(count).keys()].map((number) => {
    const found = told.find((each) => each.stage === number && each.probabilities);
    return found ? reached(found, answer) : asked(row, number, answer);
  }));
  const title = element("h2", {}, labelText(answer.label), " ", element("small", {},
    `stage ${answer.exit_stage} answered, ${percent(answer.confidence)} sure`
    + (answer.degraded ? ", below its threshold: degraded" : "")));
  $("one").replaceChildren(title, ...stages.map((stage) => stageBox(stage, stage.number === count - 1)),
    timeBox(answer.timeline, took), curlBox({ ...row, ...chosen() }));
  $("one").hidden = false;
}

function reached(stage, answer) {
  return {
    number: stage.stage, confidence: stage.confidence, threshold: stage.threshold,
    probabilities: stage.probabilities, answered: stage.exit, reached: true,
    label: stage.exit ? answer.label : likely(stage.probabilities),
  };
}

function likely(probabilities) {
  const all = Object.entries(probabilities);
  if (cascade.task === "multi_label") return all.filter(([, p]) => p > 0.5).map(([name]) => name);
  return all.reduce((best, each) => (each[1] > best[1] ? each : best))[0];
}

// A stage of which the answer does not tell is asked for itself.
async function asked(row, number, answer) {
  const found = (await call("/classify", { ...row, stage: number })).answers[0];
  // One threshold for each label is not shown.
  const threshold = chosenPoint()?.thresholds[number];
  return {
    ...found, number, answered: number === answer.exit_stage, reached: number <= answer.exit_stage,
    threshold: typeof threshold === "number" ? threshold : null,
  };
}

function stageBox(stage, last) {
  const state = stage.answered ? "answered" : stage.reached ? "deferred" : "not needed";
  const model = last ? "the large model" : stage.number === 0 ? "the small model" : "";
  const threshold = last ? null : stage.threshold;
  const fill = element("div");
  fill.style.width = percent(stage.confidence);
  const bar = element("div", {
    class: "bar", role: "meter", "aria-label": `confidence of stage ${stage.number}`,
    "aria-valuemin": 0, "aria-valuemax": 1, "aria-valuenow": stage.confidence.toFixed(4),
  }, fill);
  if (threshold !== null) {
    const mark = element("i", { title: `threshold ${threshold.toFixed(4)}` });
    mark.style.left = percent(Math.min(threshold, 1));
    bar.append(mark);
  }
  const above = stage.confidence > threshold ? "above" : "not above";
  const compared = last ? "; it answers what is left"
    : threshold === null ? "" : `, ${above} the threshold ${threshold.toFixed(4)}`;
  const ranked = Object.entries(stage.probabilities).sort((a, b) => b[1] - a[1]);
  const more = ranked.length - MOST_LABELS;
  return element("div", { class: `stage ${state.replace(" ", "-")}` },
    element("div", { class: "head" }, element("strong", {}, labelText(stage.label)),
      element("span", { class: "hint" }, [`stage ${stage.number}`, model].filter(Boolean).join(", ")),
      element("span", { class: "state" }, state)),
    bar,
    element("div", { class: "hint" }, `confidence ${stage.confidence.toFixed(4)}${compared}`),
    element("div", { class: "hint" }, ranked.slice(0, MOST_LABELS)
      .map(([name, p]) => `${name} ${percent(p)}`).join(" · ") + (more > 0 ? ` · ${more} more` : "")));
}

function timeBox(timeline, took) {
  const whole = `${ms(took)} to the gateway and back`;
  if (!timeline) return element("p", { class: "hint" }, whole);
  const parts = timeline.stages.flatMap((stage) => [
    stage.tokenised_ms && ["tokenising", ...stage.tokenised_ms],
    stage.queued_ms !== null && stage.called_ms !== null && ["waiting", stage.queued_ms, stage.called_ms],
    stage.called_ms !== null && stage.returned_ms !== null
      && [`stage ${stage.stage}`, stage.called_ms, stage.returned_ms],
  ].filter(Boolean));
  const end = Math.max(timeline.answered_ms, ...parts.map(([, , to]) => to), 1e-6);
  const track = element("div", { class: "track", role: "img", "aria-label": "where the time went" });
  const sums = new Map();
  for (const [name, from, to] of parts) {
    const part = element("div", { class: name.replace(" ", "-"), title: `${name}: ${ms(to - from)}` });
    part.style.left = percent(from / end, 2);
    part.style.width = percent((to - from) / end, 2);
    track.append(part);
    sums.set(name, (sums.get(name) ?? 0) + to - from);
  }
  const entries = [...sums].map(([name, time]) => element("li", { class: name.replace(" ", "-") },
    `${name} ${ms(time)}`));
  const batches = timeline.stages.filter((stage) => stage.batch_rows !== null)
    .map((stage) => `stage ${stage.stage} ran ${stage.batch_rows === 1 ? "alone in its call"
      : `with ${plural(stage.batch_rows - 1, "other row")} in its call`}`);
  return element("div", { class: "time" },
    element("h3", {}, "Time ", element("small", {}, `${ms(timeline.answered_ms)} in the cascade, ${whole}`)),
    track, element("ul", { class: "legend" }, ...entries),
    element("p", { class: "hint" }, batches.join("; ")));
}

function curlBox(body) {
  const json = JSON.stringify(body).replaceAll("'", "'\\''");
  const key = cascade.needs_key ? " -H 'X-API-Key: …'" : "";
  return element("details", {}, element("summary", {}, "The same call with curl"),
    element("pre", {}, `curl ${location.origin}/classify${key} -d '${json}'`));
}
