// Calls to the gateway: the only host that the page speaks to.
import { $ } from "./dom.js";

// What /info says of the cascade; empty until it has answered.
export const cascade = { labels: [], operating_points: [] };

// Whether the cascade tells how its answers came about; earlier publications do not.
let explains = true;

export async function call(path, body) {
  const headers = { "Content-Type": "application/json" };
  if ($("key").value) headers.Authorization = `Bearer ${$("key").value}`;
  let response;
  try {
    response = await fetch(path, body ? { method: "POST", headers, body: JSON.stringify(body) } : { headers });
  } catch {
    throw new Error("The gateway does not answer. Does it still run?");
  }
  const answer = await response.json();
  if (response.status === 401) $("key-field").hidden = false;
  if (!response.ok) throw Object.assign(new Error(answer.error), { status: response.status });
  return answer;
}

export async function learn() {
  Object.assign(cascade, await call("/info"));
}

export async function explained(row) {
  if (explains) {
    try {
      return (await call("/classify", { ...row, explain: true })).answers[0];
    } catch (failure) {
      if (failure.status !== 422) throw failure;
    }
  }
  const answer = (await call("/classify", row)).answers[0];
  explains = false; // the call failed only because of `explain`
  return answer;
}

const chosenName = () => $("point").value;
export const chosen = () => (chosenName() ? { operating_point: chosenName() } : {});
export const chosenPoint = () => cascade.operating_points.find((p) => p.name === chosenName())
  || cascade.operating_points.find((p) => p.default);
