// How far a batch is: live while it runs, final afterwards.

import { h, useNow } from "./dom.js";
import { count, dollars, percent, seconds } from "./format.js";

export function BatchPanel({ batch }) {
  const { total, done, failed, unknown, kept, in_flight, ended } = batch;
  const good = Math.max(0, (done ?? 0) - (failed ?? 0) - (unknown ?? 0));
  const parts = [
    ["succeeded", good, "succeeded"],
    ["failed", failed, "failed"],
    ["unknown", unknown, "unknown"],
    ["running", in_flight, "in flight"],
  ].filter(([, number]) => number > 0);
  const words = `${count(done)} of ${count(total)} rows done`;
  return h(
    "div",
    { className: "flux-batch" },
    h(
      "div",
      { className: "flux-batch-head" },
      h("h3", null, batch.map_index >= 0 ? `${batch.task_id} [${batch.map_index}]` : batch.task_id),
      h("span", { className: "flux-strong" }, words),
      h("span", { className: "flux-muted" }, percent(done, total)),
      h("span", { className: "flux-gap" }),
      ended ? null : h(Freshness, { batch }),
    ),
    h(
      "div",
      {
        className: "flux-bar",
        role: "progressbar",
        "aria-label": words,
        "aria-valuemin": 0,
        "aria-valuemax": total,
        "aria-valuenow": done,
      },
      parts.map(([status, number]) =>
        h("span", { key: status, className: `flux-is-${status}`, style: { width: `${(100 * number) / total}%` } }),
      ),
    ),
    h(
      "dl",
      { className: "flux-figures" },
      figure("Succeeded", count(good)),
      figure("Failed", failed ? count(failed) : ""),
      figure("Unknown", unknown ? count(unknown) : ""),
      figure("Kept from before", kept ? count(kept) : ""),
      figure("In flight", ended || !in_flight ? "" : count(in_flight)),
      figure("Pictures a minute", batch.rate_per_minute ? count(Math.round(batch.rate_per_minute)) : ""),
      figure("Time left", ended ? "" : seconds(batch.seconds_left)),
      figure("Time taken", ended ? seconds((Date.parse(batch.updated_at) - Date.parse(batch.started_at)) / 1000) : ""),
      figure("Spent", dollars(batch.spent_usd)),
    ),
  );
}

function figure(name, value) {
  return value ? h("div", { key: name }, h("dt", null, name), h("dd", null, value)) : null;
}

function Freshness({ batch }) {
  const now = useNow(true);
  const age = Math.max(0, Math.floor((now - Date.parse(batch.updated_at)) / 1000));
  return Number.isNaN(age) ? null : h("span", { className: "flux-muted" }, `figures from ${seconds(age)} ago`);
}
