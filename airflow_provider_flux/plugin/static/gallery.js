// The tab of a run or of a task instance: progress of its batches, and a grid of pictures.

import { useGallery, useRows } from "./api.js";
import { BatchPanel, rowsEnded } from "./batch.js";
import { Details } from "./details.js";
import { h, Notice, Sentinel, useEffect, useState } from "./dom.js";
import { clock, count, percentile, seconds, shortModel, spend, sum } from "./format.js";
import { group, GROUP_NAMES, hasEnded, hasSucceeded, located, runTime, tally } from "./predictions.js";
import { Tile } from "./tile.js";

const FIRST_TILES = 48;

export function Gallery({ scope }) {
  const gallery = useGallery(scope);
  const { predictions, batches, state, loading, error } = gallery;
  const isEmpty = !predictions.length && !batches.length;
  if (isEmpty && error) return h(Problem, { error });
  if (isEmpty && loading) return h(Loading);
  if (isEmpty) return h(Empty, { scope, state });
  return h(
    "div",
    { className: "flux-gallery" },
    h(Headline, { gallery }),
    batches.map((batch) => h(Batch, { key: `${batch.task_id} ${batch.map_index}`, batch })),
    predictions.length ? h(Predictions, { predictions, runEnded: state?.ended }) : null,
  );
}

function Loading() {
  const tiles = Array.from({ length: 8 }, (_, position) =>
    h("div", { key: position, className: "flux-tile flux-is-empty" }, h("div", { className: "flux-face" })),
  );
  return h("div", { className: "flux-grid", role: "status", "aria-label": "Loading predictions" }, tiles);
}

export function Problem({ error }) {
  if (error.status === 401)
    return h(Notice, { icon: "alert", title: "You are logged out" }, "Reload the page to log in.");
  if (error.status === 403) {
    return h(
      Notice,
      { icon: "alert", title: "Not for you to see" },
      "You may not read the XComs of this DAG, which the pictures are known by.",
    );
  }
  return h(
    Notice,
    { icon: "alert", title: "Airflow does not answer" },
    `${error.message} This view tries again by itself.`,
  );
}

function Empty({ scope, state }) {
  const operator = state?.operator;
  if (scope.task_id && operator && !operator.toLowerCase().includes("flux")) {
    return h(
      Notice,
      { title: "No predictions here" },
      `This task is a ${operator}. Predictions of FluxPredictionOperator, FluxPredictionSensor, FluxBatchOperator and @task.flux are shown here.`,
    );
  }
  const what = scope.task_id ? "task" : "run";
  if (!state?.ended) {
    const how = state?.state ? `is ${state.state.replaceAll("_", " ")}` : "has not started";
    return h(
      Notice,
      { icon: "clock", title: "No predictions yet" },
      `This ${what} ${how}. Pictures appear here as they are asked for.`,
    );
  }
  return h(
    Notice,
    { title: "No predictions" },
    `This ${what} ended (${state.state}) without asking for a picture, or its XComs, which the pictures are known by, were deleted.`,
  );
}

function Headline({ gallery }) {
  const { predictions, batches, state, total: listed, loading, error, updatedAt } = gallery;
  if (loading) {
    const words = `Reading: ${count(predictions.length)} of ${count(listed)}`;
    return h(
      "div",
      { className: "flux-headline" },
      h("span", { className: "flux-live flux-is-live", role: "status" }, words),
    );
  }
  const done = predictions.filter(hasEnded).length + sum(batches.map(rowsEnded));
  const total = predictions.length + sum(batches.map((batch) => batch.total));
  const spent = spend([...predictions, ...batches]);
  const typical = percentile(predictions.filter(hasSucceeded).map(runTime).filter(Number.isFinite), 0.5);
  const facts = [
    `${count(done)} of ${count(total)} done`,
    spent && spent !== "$0" ? `${spent} spent` : "",
    Number.isFinite(typical) ? `${seconds(typical)} typical run time` : "",
  ];
  const liveness = error ? "Airflow does not answer; trying again" : state?.ended ? "Ended" : "Updates by itself";
  return h(
    "div",
    { className: "flux-headline" },
    h("span", { className: "flux-strong", role: "status" }, facts.filter(Boolean).join(" · ")),
    h("span", { className: "flux-gap" }),
    h("span", { className: `flux-live ${state?.ended || error ? "" : "flux-is-live"}` }, liveness),
    updatedAt ? h("span", { className: "flux-muted" }, `seen at ${clock(updatedAt)}`) : null,
  );
}

function Predictions({ predictions, runEnded }) {
  const [filter, setFilter] = useState({});
  const [shown, setShown] = useState(FIRST_TILES);
  const wanted = predictions.filter(
    (one) => (!filter.status || group(one) === filter.status) && (!filter.model || one.model === filter.model),
  );
  const narrow = (next) => {
    setFilter(next);
    setShown(FIRST_TILES);
  };
  return h(
    "section",
    { "aria-label": "Predictions" },
    predictions.length > 1
      ? h(Filters, {
          filter,
          setFilter: narrow,
          statuses: tally(predictions, group),
          models: [...new Set(predictions.map((one) => one.model).filter(Boolean))],
        })
      : null,
    h(Grid, { items: wanted.slice(0, shown), runEnded }),
    shown < wanted.length ? h(Sentinel, { key: shown, onNear: () => setShown(shown + FIRST_TILES) }) : null,
  );
}

function Batch({ batch }) {
  const [filter, setFilter] = useState({});
  const [rows, more] = useRows(batch, filter);
  const items = located(batch, batch.ended && !rows.error ? rows.items : batch.recent);
  return h(
    "section",
    { "aria-label": `Batch ${batch.task_id}` },
    h(BatchPanel, { batch }),
    rows.error
      ? h("p", { className: "flux-muted" }, `The rows of this batch cannot be shown: ${rows.error.message}`)
      : null,
    batch.ended && rows.statuses
      ? h(Filters, { filter, setFilter, statuses: rows.statuses, models: rows.models })
      : null,
    batch.ended
      ? null
      : h("p", { className: "flux-note" }, "The newest rows; all of them are shown when the batch has ended."),
    h(Grid, { items, runEnded: batch.ended }),
    batch.ended && rows.next < rows.total ? h(Sentinel, { key: rows.next, onNear: () => more() }) : null,
  );
}

function Filters({ filter, setFilter, statuses, models }) {
  const total = sum(Object.values(statuses));
  const chip = (status, name, number) =>
    h(
      "button",
      {
        key: name,
        type: "button",
        className: `flux-chip ${status ? `flux-is-${status}` : ""}`,
        "aria-pressed": filter.status === status,
        onClick: () => setFilter({ ...filter, status }),
      },
      name,
      h("span", { className: "flux-number" }, count(number)),
    );
  return h(
    "div",
    { className: "flux-filters", role: "group", "aria-label": "Filters" },
    chip(undefined, "All", total),
    Object.keys(GROUP_NAMES)
      .filter((status) => statuses[status])
      .map((status) => chip(status, GROUP_NAMES[status], statuses[status])),
    h("span", { className: "flux-gap" }),
    models.length > 1 ? h(ModelChoice, { filter, setFilter, models }) : null,
  );
}

function ModelChoice({ filter, setFilter, models }) {
  return h(
    "select",
    {
      className: "flux-select",
      "aria-label": "Model",
      value: filter.model ?? "",
      onChange: (event) => setFilter({ ...filter, model: event.target.value || undefined }),
    },
    h("option", { value: "" }, "All models"),
    models.map((model) => h("option", { key: model, value: model }, shortModel(model))),
  );
}

function Grid({ items, runEnded }) {
  const [position, setPosition] = useState(null);
  useEffect(() => {
    if (position !== null && position >= items.length) setPosition(null);
  }, [position, items.length]);
  const step = (by) => setPosition((at) => Math.min(items.length - 1, Math.max(0, at + by)));
  if (!items.length) return null;
  return h(
    "div",
    { className: "flux-grid" },
    items.map((one, at) =>
      h(Tile, { key: one.id || one.key, prediction: one, runEnded, onOpen: () => setPosition(at) }),
    ),
    position !== null && items[position]
      ? h(Details, { prediction: items[position], onClose: () => setPosition(null), onStep: step })
      : null,
  );
}
