// The page in the navigation: the predictions of the last hours, over all DAGs that the user may see.

import { getBatches, readPredictions, runRoute } from "./api.js";
import { rowsEnded } from "./batch.js";
import { Chart, COLORS } from "./charts.js";
import { h, Link, Notice, useEffect, useMemo, useState } from "./dom.js";
import { count, dollars, moment, percent, percentile, seconds, shortModel, spend, sum } from "./format.js";
import { Problem } from "./gallery.js";
import { group, hasEnded, hasSucceeded, isFailure, merge, runTime, since } from "./predictions.js";

const HOUR = 3600 * 1000;
const DAY = 24 * HOUR;
const WINDOWS = [
  [6, "Last 6 hours"],
  [24, "Last 24 hours"],
  [7 * 24, "Last 7 days"],
];
const MOST = 2000;
const RUNS_SHOWN = 50;
const DAGS_IN_CHART = 6;

export function Overview({ theme }) {
  const [hours, setHours] = useState(24);
  const [reload, setReload] = useState(0);
  const found = useRecent(hours, reload);
  return h(
    "div",
    { className: "flux-overview" },
    h(
      "header",
      { className: "flux-headline" },
      h("h2", null, "FLUX predictions"),
      h("span", { className: "flux-gap" }),
      found.loading
        ? h(
            "span",
            { className: "flux-live flux-is-live", role: "status" },
            `${count(found.records.length)} of ${count(found.total)} read`,
          )
        : null,
      h(
        "select",
        {
          className: "flux-select",
          "aria-label": "Period",
          value: hours,
          onChange: (event) => setHours(Number(event.target.value)),
        },
        WINDOWS.map(([value, name]) => h("option", { key: value, value }, name)),
      ),
      h("button", { type: "button", className: "flux-button", onClick: () => setReload(reload + 1) }, "Refresh"),
    ),
    h(Content, { found, hours, theme }),
  );
}

function Content({ found, hours, theme }) {
  const predictions = useMemo(() => merge(found.records), [found]);
  if (!predictions.length && !found.batches.length) {
    if (found.error) return h(Problem, { error: found.error });
    if (found.loading) return h("p", { className: "flux-muted", role: "status" }, "Reading predictions…");
    return h(
      Notice,
      { title: "No predictions" },
      "No run of this period that you may see has made a prediction. A longer period may show some; the XComs of deleted runs are gone.",
    );
  }
  const { batches } = found;
  return h(
    "div",
    null,
    found.error ? h("p", { className: "flux-muted" }, `Not everything could be read: ${found.error.message}`) : null,
    found.total > MOST
      ? h("p", { className: "flux-muted" }, `The newest ${count(MOST)} of ${count(found.total)} are counted here.`)
      : null,
    h(Tiles, { predictions, batches }),
    h(Charts, { predictions, batches, hours, theme }),
    h(Models, { predictions }),
    h(Runs, { predictions, batches }),
  );
}

function useRecent(hours, reload) {
  const nothing = { records: [], batches: [], total: 0, loading: true };
  const [found, setFound] = useState(nothing);
  useEffect(() => {
    const abort = new AbortController();
    const query = { dag_id: "~", since: new Date(Date.now() - hours * HOUR).toISOString() };
    const add = (more) => abort.signal.aborted || setFound((earlier) => ({ ...earlier, ...more }));
    setFound(nothing);
    Promise.all([
      readPredictions(query, abort.signal, (records, total) => add({ records: [...records], total }), MOST),
      getBatches(query, abort.signal).then(add),
    ]).then(
      () => add({ loading: false }),
      (error) => add({ loading: false, error }),
    );
    return () => abort.abort();
  }, [hours, reload]);
  return found;
}

function Tiles({ predictions, batches }) {
  const ended = predictions.filter(hasEnded).length + sum(batches.map(rowsEnded));
  const failed = predictions.filter(isFailure).length + sum(batches.map((batch) => sum([batch.failed, batch.unknown])));
  const running = predictions.length - predictions.filter(hasEnded).length;
  const times = predictions.filter(hasSucceeded).map(runTime).filter(Number.isFinite);
  const priced = predictions.filter((one) => Number.isFinite(one.cost_usd));
  const spent = spend([...priced, ...batches]);
  const unpriced = predictions.filter(hasSucceeded).length - priced.filter(hasSucceeded).length;
  const total = predictions.length + sum(batches.map((batch) => batch.total));
  return h(
    "div",
    { className: "flux-tiles" },
    h(Figure, {
      name: "Predictions",
      value: count(total),
      note: batches.length
        ? `${count(total - predictions.length)} of them in ${count(batches.length)} ${batches.length === 1 ? "batch" : "batches"}`
        : "",
    }),
    h(Figure, {
      name: "Succeeded",
      value: percent(ended - failed, ended),
      note: `${count(ended - failed)} of ${count(ended)} ended`,
    }),
    h(Figure, { name: "Failed", value: count(failed), tone: failed ? "bad" : "" }),
    h(Figure, { name: "In the making", value: count(running) }),
    h(Figure, {
      name: "Run time",
      value: seconds(percentile(times, 0.5)) || "–",
      note: times.length ? `half are faster; 95 % below ${seconds(percentile(times, 0.95))}` : "",
    }),
    h(Figure, {
      name: "Spend",
      value: spent,
      note: unpriced > 0 ? `the cost of ${count(unpriced)} is not known` : "",
    }),
  );
}

function Figure({ name, value, note, tone }) {
  return h(
    "div",
    { className: `flux-figure ${tone ? `flux-is-${tone}` : ""}` },
    h("span", { className: "flux-muted" }, name),
    h("strong", null, value),
    h("span", { className: "flux-muted" }, note || "\u00a0"),
  );
}

const when = (record) => since(record) || Date.parse(record.run_after);
const whole = (value) => (Number.isInteger(value) ? count(value) : "");

function Charts({ predictions, batches, hours, theme }) {
  const byTime = useMemo(() => statusesByTime(predictions, hours), [predictions, hours]);
  const spend = useMemo(() => spendByDay([...predictions, ...batches]), [predictions, batches]);
  const models = useMemo(() => byModel(predictions), [predictions]);
  const success = useMemo(() => successData(models), [models]);
  const times = useMemo(() => timeData(models), [models]);
  return h(
    "div",
    { className: "flux-charts" },
    h(Chart, {
      title: hours > 48 ? "Predictions by day" : "Predictions by hour",
      label: "Predictions over time by status",
      data: byTime,
      stacked: true,
      format: whole,
      theme,
    }),
    h(Chart, {
      title: "Spend by day and DAG",
      label: "Spend by day, for each DAG",
      data: spend,
      stacked: true,
      format: dollars,
      theme,
    }),
    h(Chart, {
      title: "Success rate by model",
      label: "Success rate by model; the same figures are in the table below",
      data: success,
      horizontal: true,
      format: (value) => `${value} %`,
      theme,
    }),
    h(Chart, {
      title: "Run time by model",
      label: "Run time by model; the same figures are in the table below",
      data: times,
      horizontal: true,
      format: seconds,
      theme,
    }),
  );
}

function statusesByTime(predictions, hours) {
  const step = hours > 48 ? DAY : HOUR;
  const begins = (milliseconds) =>
    step === DAY ? new Date(milliseconds).setHours(0, 0, 0, 0) : Math.floor(milliseconds / HOUR) * HOUR;
  const now = Date.now();
  const times = [
    ...new Set(Array.from({ length: (hours * HOUR) / step }, (_, back) => begins(now - back * step))),
  ].reverse();
  const name = (time) =>
    new Date(time).toLocaleString(
      undefined,
      step === DAY ? { weekday: "short", day: "numeric" } : { hour: "2-digit", minute: "2-digit" },
    );
  const groups = [
    ["Succeeded", hasSucceeded, COLORS.succeeded],
    ["Failed", isFailure, COLORS.failed],
    ["In the making", (one) => !hasEnded(one), COLORS.running],
  ];
  return {
    labels: times.map(name),
    datasets: groups.map(([label, belongs, backgroundColor]) => ({
      label,
      backgroundColor,
      data: times.map((time) => predictions.filter((one) => belongs(one) && begins(when(one)) === time).length),
    })),
  };
}

function spendByDay(records) {
  const day = (record) => new Date(when(record)).toLocaleDateString(undefined, { month: "short", day: "numeric" });
  const cost = (record) => record.cost_usd ?? record.spent_usd ?? 0;
  const days = [...new Set([...records].sort((one, other) => when(one) - when(other)).map(day))];
  const spent = (dags) => sum(records.filter((record) => dags.includes(record.dag_id)).map(cost));
  const dags = [...new Set(records.map((record) => record.dag_id))].filter((dag) => spent([dag]) > 0);
  const paid = dags.sort((one, other) => spent([other]) - spent([one]));
  const series = paid.slice(0, DAGS_IN_CHART).map((dag) => [dag, [dag]]);
  if (paid.length > DAGS_IN_CHART) series.push(["others", paid.slice(DAGS_IN_CHART)]);
  return {
    labels: days,
    datasets: series.map(([label, members], position) => ({
      label,
      backgroundColor: COLORS.series[position],
      maxBarThickness: 64,
      data: days.map((name) =>
        sum(records.filter((record) => day(record) === name && members.includes(record.dag_id)).map(cost)),
      ),
    })),
  };
}

function byModel(predictions) {
  const models = [...new Set(predictions.map((one) => one.model ?? ""))];
  return models
    .map((model) => {
      const own = predictions.filter((one) => (one.model ?? "") === model);
      const times = own.filter(hasSucceeded).map(runTime).filter(Number.isFinite);
      return {
        model,
        total: own.length,
        ended: own.filter(hasEnded).length,
        succeeded: own.filter(hasSucceeded).length,
        half: percentile(times, 0.5),
        most: percentile(times, 0.95),
        spent: spend(own),
      };
    })
    .sort((one, other) => other.total - one.total);
}

const successData = (models) => ({
  labels: models.map(({ model }) => shortModel(model)),
  datasets: [
    {
      label: "succeeded",
      backgroundColor: COLORS.succeeded,
      maxBarThickness: 22,
      data: models.map(({ succeeded, ended }) => (ended ? Math.round((1000 * succeeded) / ended) / 10 : 0)),
    },
  ],
});

const timeData = (models) => ({
  labels: models.map(({ model }) => shortModel(model)),
  datasets: [
    {
      label: "half are faster",
      backgroundColor: COLORS.series[0],
      maxBarThickness: 16,
      data: models.map(({ half }) => half),
    },
    {
      label: "95 % are faster",
      backgroundColor: COLORS.series[1],
      maxBarThickness: 16,
      data: models.map(({ most }) => most),
    },
  ],
});

function Models({ predictions }) {
  const rows = byModel(predictions).map((model) => [
    model.model || "unknown",
    count(model.total),
    percent(model.succeeded, model.ended),
    seconds(model.half) || "–",
    seconds(model.most) || "–",
    model.spent,
  ]);
  return h(Table, {
    title: "Models",
    columns: ["Model", "Predictions", "Succeeded", "Half below", "95 % below", "Spend"],
    rows,
  });
}

function Runs({ predictions, batches }) {
  const runs = new Map();
  for (const record of [...predictions, ...batches]) {
    const key = JSON.stringify([record.dag_id, record.run_id]);
    runs.set(key, [...(runs.get(key) ?? []), record]);
  }
  const newest = [...runs.values()].sort((one, other) => Date.parse(other[0].run_after) - Date.parse(one[0].run_after));
  const rows = newest.slice(0, RUNS_SHOWN).map((records) => {
    const [first] = records;
    const singles = records.filter((record) => !("recent" in record));
    const whole_batches = records.filter((record) => "recent" in record);
    const failed =
      singles.filter(isFailure).length + sum(whole_batches.map((batch) => sum([batch.failed, batch.unknown])));
    return [
      first.dag_display_name ?? first.dag_id,
      h(Link, { to: runRoute(first) }, first.run_id),
      moment(first.run_after),
      count(singles.length + sum(whole_batches.map((batch) => batch.total))),
      failed ? h("span", { className: "flux-status flux-is-failed" }, count(failed)) : "0",
      spend(records),
    ];
  });
  const more = newest.length > RUNS_SHOWN ? ` (the newest ${RUNS_SHOWN} of ${count(newest.length)})` : "";
  return h(Table, {
    title: `Runs${more}`,
    columns: ["DAG", "Run", "Run after", "Predictions", "Failed", "Spend"],
    rows,
    words: 3,
  });
}

function Table({ title, columns, rows, words = 1 }) {
  const align = (position) => (position < words ? undefined : "flux-right");
  return h(
    "section",
    { className: "flux-table" },
    h("h3", null, title),
    h(
      "div",
      { className: "flux-scroll", tabIndex: 0, role: "region", "aria-label": title },
      h(
        "table",
        null,
        h(
          "thead",
          null,
          h(
            "tr",
            null,
            columns.map((name, at) => h("th", { key: name, scope: "col", className: align(at) }, name)),
          ),
        ),
        h(
          "tbody",
          null,
          rows.map((row, position) =>
            h(
              "tr",
              { key: position },
              row.map((cell, at) => h("td", { key: at, className: align(at) }, cell)),
            ),
          ),
        ),
      ),
    ),
  );
}
