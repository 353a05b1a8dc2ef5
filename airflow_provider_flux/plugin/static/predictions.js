// What a prediction is to the views: one record, however many tasks told of it.

const TERMINAL = new Set([
  "succeeded",
  "kept",
  "failed",
  "canceled",
  "aborted",
  "unknown",
  "over_budget",
  "not_started",
]);
const GOOD = new Set(["succeeded", "kept"]);

export const hasEnded = (prediction) => TERMINAL.has(prediction.status);
export const hasSucceeded = (prediction) => GOOD.has(prediction.status);
export const isFailure = (prediction) => hasEnded(prediction) && !hasSucceeded(prediction);

/** The group that a status is filtered by, and the colour that it is shown in. */
export function group(prediction) {
  return hasEnded(prediction) ? prediction.status : "running";
}

export const GROUP_NAMES = {
  running: "Running",
  succeeded: "Succeeded",
  kept: "Kept",
  failed: "Failed",
  canceled: "Canceled",
  aborted: "Aborted",
  unknown: "Unknown",
  over_budget: "Over budget",
  not_started: "Not started",
};

/**
 * Make one record of those that tell of the same prediction, such as an operator's and its sensor's.
 * The one that has ended wins; what only another one knows, such as where a picture was stored, is kept.
 */
export function merge(records) {
  const byId = new Map();
  for (const record of records.map(withPlaces)) {
    const other = byId.get(record.id);
    byId.set(record.id, other ? combine(other, record) : record);
  }
  return [...byId.values()];
}

function combine(one, other) {
  const later = hasEnded(other) || !hasEnded(one) ? other : one;
  const earlier = later === other ? one : other;
  return {
    ...earlier,
    ...later,
    prompt: later.prompt || earlier.prompt,
    stored: later.stored.length ? later.stored : earlier.stored,
    inputs: later.inputs.length ? later.inputs : earlier.inputs,
    outputs: later.outputs.length ? later.outputs : earlier.outputs,
  };
}

/** A picture is served for the task instance that recorded it, so it remembers which one that is. */
function withPlaces(record) {
  const { dag_id, run_id, task_id, map_index } = record;
  const placed = (files = []) => files.map((file) => ({ ...file, at: { dag_id, run_id, task_id, map_index } }));
  return { ...record, stored: placed(record.stored), inputs: placed(record.inputs) };
}

export const located = (batch, rows) =>
  rows.map((row) => {
    const { dag_id, run_id, task_id, map_index } = batch;
    return withPlaces({ ...row, dag_id, run_id, task_id, map_index });
  });

/** The seconds that a prediction ran for; those of the model where they are known. */
export function runTime(prediction) {
  if (Number.isFinite(prediction.predict_time)) return prediction.predict_time;
  const from = Date.parse(prediction.started_at ?? prediction.created_at ?? "");
  const to = Date.parse(prediction.completed_at ?? "");
  return to >= from ? (to - from) / 1000 : NaN;
}

export const since = (prediction) => Date.parse(prediction.created_at ?? prediction.timestamp ?? "");

/** Count predictions by what a function says of them. */
export function tally(predictions, of) {
  const counts = {};
  for (const prediction of predictions) counts[of(prediction)] = (counts[of(prediction)] ?? 0) + 1;
  return counts;
}
