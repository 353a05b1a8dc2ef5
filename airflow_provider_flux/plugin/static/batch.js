// How far a batch is: live while it runs, final afterwards.

import { h, useNow } from "./dom.js";
import { count, dollars, percent, seconds, spend, sum } from "./format.js";

/** How many rows have ended, whatever became of them. What a batch calls done has succeeded. */
export const rowsEnded = ({ done, kept, failed, unknown }) => sum([done, kept, failed, unknown]);

export function BatchPanel({ batch }) {
  const { total, done, failed, unknown, kept, in_flight, ended } = batch;
  const settled = rowsEnded(batch);
  const parts = [
    ["succeeded", sum([done, kept])],
    ["failed", failed],
    ["unknown", unknown],
    ["running", in_flight],
  ].filter(([, number]) => number > 0);
  const words = `${count(settled)} of ${count(total)} rows done`;
  return h(
    "div",
    { className: "flux-batch" },
    h(
      "div",
      { className: "flux-batch-head" },
      h("h3", null, batch.map_index >= 0 ? `${batch.task_id} [${batch.map_index}]` : batch.task_id),
      h("span", { className: "flux-strong" }, words),
      h("span", { className: "flux-muted" }, percent(settled, total)),
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
        "aria-valuenow": settled,
      },
      parts.map(([status, number]) =>
        h("span", { key: status, className: `flux-is-${status}`, style: { width: `${(100 * number) / total}%` } }),
      ),
    ),
    h(
      "dl",
      { className: "flux-figures" },
      figure("Succeeded", count(done)),
      figure("Failed", failed ? count(failed) : ""),
      figure("Unknown", unknown ? count(unknown) : ""),
      figure("Kept from before", kept ? count(kept) : ""),
      figure("In flight", ended || !in_flight ? "" : count(in_flight)),
      figure("Pictures a minute", batch.rate_per_minute ? count(Math.round(batch.rate_per_minute)) : ""),
      figure("Time left", ended ? "" : seconds(batch.seconds_left)),
      figure("Time taken", ended ? seconds((Date.parse(batch.updated_at) - Date.parse(batch.started_at)) / 1000) : ""),
      // A price that is not known adds nothing, so that 0 may be anything.
      figure("Spent", batch.spent_usd ? spend([batch]) : ""),
      figure("Spent, as the accounts say", Number.isFinite(batch.measured_usd) ? dollars(batch.measured_usd) : ""),
      figure("Left out for now", ended ? "" : batch.left_out.join(", ")),
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
