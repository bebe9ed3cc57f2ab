// The page of a gateway.
import { showOne } from "./answer.js";
import { showMany } from "./batch.js";
import { $ } from "./dom.js";
import { cascade, learn } from "./gateway.js";
import { showPoints } from "./points.js";

async function prepare() {
  await learn();
  $("model").textContent = cascade.model;
  const own = cascade.operating_points.find((point) => point.default)?.name;
  $("point").replaceChildren(new Option(own && own !== "default" ? `default (${own})` : "default", ""),
    ...cascade.operating_points.map((point) => new Option(point.name, point.name)));
  $("pair-field").hidden = !cascade.pair;
  showPoints();
  if (!cascade.ready) throw new Error(cascade.problem ?? "The cascade cannot answer now.");
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

async function classify() {
  $("one").hidden = $("many").hidden = true;
  const lines = $("text").value.split("\n").map((line) => line.trim()).filter(Boolean);
  if (!lines.length) {
    $("text").focus();
    throw new Error("There is no text: type one first.");
  }
  if (!cascade.ready) await prepare();
  if (cascade.pair) return showOne({ text: lines.join(" "), text_pair: $("pair").value });
  if (lines.length === 1) return showOne({ text: lines[0] });
  return showMany(lines, (text) => attempt(async () => {
    await showOne({ text });
    $("one").scrollIntoView({ block: "nearest" });
  }));
}

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  attempt(classify);
});
$("form").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("form").requestSubmit();
});
attempt(prepare);
