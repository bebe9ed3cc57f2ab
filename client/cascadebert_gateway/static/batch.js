// A list of texts: a table, the hard ones first.
import { $, element, labelText, percent, plural } from "./dom.js";
import { call, chosen } from "./gateway.js";

export async function showMany(texts, open) {
  const { answers } = await call("/classify", { text: texts, ...chosen() });
  const rows = texts.map((text, i) => ({ text, ...answers[i] }));
  // Deferred rows before others, and of these the least sure.
  rows.sort((a, b) => b.exit_stage - a.exit_stage || a.confidence - b.confidence);
  const exits = new Map();
  for (const { exit_stage: stage } of rows) exits.set(stage, (exits.get(stage) ?? 0) + 1);
  const stages = [...exits].sort(([a], [b]) => a - b);
  const track = element("div", { class: "exits", role: "img", "aria-label": "rows by stage" },
    ...stages.map(([stage, count]) => {
      const part = element("div", { class: `exit-${stage}`, title: `stage ${stage}: ${count}` });
      part.style.width = percent(count / rows.length, 2);
      return part;
    }));
  const told = stages.map(([stage, count]) =>
    element("li", { class: `exit-${stage}` }, `${count} at stage ${stage} (${percent(count / rows.length)})`));
  const lines = rows.map((row) => {
    const button = element("button", { type: "button", class: "link" }, row.text);
    button.addEventListener("click", () => open(row.text));
    return element("tr", { class: `exit-${row.exit_stage}` },
      element("td", { class: "number" }, String(row.exit_stage)),
      element("td", {}, labelText(row.label)),
      element("td", { class: "number" }, row.confidence.toFixed(4)),
      element("td", {}, button));
  });
  $("many").replaceChildren(
    element("h2", {}, plural(rows.length, "row"), " ", element("small", {}, "hard ones first")),
    track, element("ul", { class: "legend" }, ...told),
    element("div", { class: "scroll" }, element("table", {},
      element("thead", {}, element("tr", {}, ...["stage", "label", "confidence", "text"].map((name) =>
        element("th", name === "confidence" || name === "stage" ? { class: "number" } : {}, name)))),
      element("tbody", { id: "rows" }, ...lines))));
  $("many").hidden = false;
}
