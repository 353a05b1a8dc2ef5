// Requests, all to the Airflow that serves this page, with the session that its user has there.

import { useEffect, useRef, useState } from "./dom.js";
import { merge } from "./predictions.js";

/** Where Airflow is: "/" or the path of `[api] base_url`. This file is below it, at flux/static/. */
export const BASE = new URL("../../", import.meta.url).pathname;

const SHORTEST_PAUSE = 2000;
const LONGEST_PAUSE = 20000;
const PATIENCE = 1.4;
const FIRST_PAGE = 24; // a screenful, to have something to show soon

class Refusal extends Error {
  constructor(status, words) {
    super(words);
    this.status = status;
  }
}

async function getJson(path, parameters, signal) {
  const known = Object.entries(parameters).filter(([, value]) => value !== undefined && value !== null);
  const answer = await fetch(`${BASE}${path}?${new URLSearchParams(known)}`, { signal, credentials: "same-origin" });
  if (!answer.ok) {
    const content = await answer.json().catch(() => ({}));
    throw new Refusal(answer.status, typeof content.detail === "string" ? content.detail : answer.statusText);
  }
  return answer.json();
}

export const getState = (scope, signal) => getJson("flux/state", scope, signal);
export const getPredictions = (query, signal) => getJson("flux/predictions", query, signal);
const getUnsettled = ({ limit: _, ...query }, signal) => getJson("flux/unsettled", query, signal);
export const getBatches = (query, signal) => getJson("flux/batches", query, signal);
export const getRows = (query, signal) => getJson("flux/rows", query, signal);

/** The buttons of a task instance, of which "Prediction" may lead to the gateway. */
export async function getGatewayPage({ dag_id, run_id, task_id, map_index }, signal) {
  const [dag, run, task] = [dag_id, run_id, task_id].map(encodeURIComponent);
  const path = `api/v2/dags/${dag}/dagRuns/${run}/taskInstances/${task}/links`;
  const { extra_links: links } = await getJson(path, { map_index }, signal);
  return /^https?:/i.test(links.Prediction ?? "") ? links.Prediction : null;
}

export function pictureUrl({ at, sha256 }, { small = false } = {}) {
  return `${BASE}flux/picture?${new URLSearchParams({ ...at, sha256, ...(small && { small }) })}`;
}

export function taskRoute({ dag_id, run_id, task_id, map_index }) {
  const [dag, run, task] = [dag_id, run_id, task_id].map(encodeURIComponent);
  return `/dags/${dag}/runs/${run}/tasks/${task}${map_index >= 0 ? `/mapped/${map_index}` : ""}`;
}

export const runRoute = ({ dag_id, run_id }) =>
  `/dags/${encodeURIComponent(dag_id)}/runs/${encodeURIComponent(run_id)}/plugin/flux-run`;

/**
 * Read all predictions page by page, and tell of those read so far after each page. Those of tasks that have not pushed
 * what became of them come from elsewhere and may come twice, which `merge` mends.
 */
export async function readPredictions(query, signal, onPage, limit = Infinity) {
  const records = [];
  let before = 0;
  for (const get of [getUnsettled, getPredictions]) {
    let page = { next: 0, total: 1 };
    while (page.next < Math.min(page.total, limit)) {
      const offset = page.next;
      page = await get({ ...query, offset, limit: offset ? undefined : FIRST_PAGE }, signal);
      records.push(...page.predictions);
      onPage(records, before + page.total);
      if (page.next === offset) break;
    }
    before = get === getUnsettled ? records.length : before + page.total;
  }
  return { records, total: before };
}

/**
 * What a run or a task instance has to show, refreshed as long as it goes on and someone looks.
 * The pause grows while nothing changes, and is never shorter than what a refresh takes.
 */
export function useGallery(scope) {
  const [gallery, setGallery] = useState({ predictions: [], batches: [], loading: true });
  const key = JSON.stringify(scope);
  useEffect(() => {
    const abort = new AbortController();
    setGallery({ predictions: [], batches: [], loading: true });
    keepReading(JSON.parse(key), abort.signal, setGallery);
    return () => abort.abort();
  }, [key]);
  return gallery;
}

async function keepReading(scope, signal, setGallery) {
  let pause = SHORTEST_PAUSE;
  let seen = "";
  while (!signal.aborted) {
    const began = Date.now();
    try {
      const { state, found } = await readOnce(scope, signal, setGallery, seen === "");
      pause = found === seen ? Math.min(LONGEST_PAUSE, pause * PATIENCE) : SHORTEST_PAUSE;
      seen = found;
      if (state.ended) return;
    } catch (error) {
      if (signal.aborted) return;
      setGallery((gallery) => ({ ...gallery, loading: false, error }));
      if (error.status >= 400 && error.status < 500) return;
      pause = Math.min(LONGEST_PAUSE, pause * 2);
    }
    await wait(Math.max(pause, 2 * (Date.now() - began)), signal);
    await untilVisible(signal);
  }
}

async function readOnce(scope, signal, setGallery, isFirst) {
  // The state first: what ends while the rest is read is seen at the next look.
  const [state, { batches }] = await Promise.all([getState(scope, signal), getBatches(scope, signal)]);
  const show = (records, total, loading) =>
    setGallery({ state, batches, predictions: merge(records), total, loading, updatedAt: Date.now() });
  // Only the first time are pages shown as they come; later a shorter list would make the view jump.
  const { records, total } = await readPredictions(scope, signal, (...so_far) => isFirst && show(...so_far, true));
  show(records, total, false);
  const versions = records.map(({ id, timestamp, status }) => [id, timestamp, status]);
  return { state, found: JSON.stringify([state, versions, batches]) };
}

const wait = (milliseconds, signal) =>
  new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    signal.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });

const untilVisible = (signal) =>
  new Promise((resolve) => {
    const look = () => {
      if (document.hidden && !signal.aborted) return;
      document.removeEventListener("visibilitychange", look);
      resolve();
    };
    document.addEventListener("visibilitychange", look);
    signal.addEventListener("abort", look, { once: true });
    look();
  });

/** The rows of a batch that has ended, a hundred at a time. */
export function useRows(batch, filter) {
  const [rows, setRows] = useState({ items: [], next: 0, total: Infinity });
  const turn = useRef(0);
  const busy = useRef(false);
  const key = JSON.stringify([batch.task_id, batch.map_index, batch.timestamp, filter]);
  const more = async (from = rows) => {
    if (busy.current || from.next >= from.total) return;
    const mine = turn.current;
    busy.current = true;
    try {
      const { dag_id, run_id, task_id, map_index } = batch;
      const page = await getRows({ dag_id, run_id, task_id, map_index, offset: from.next, ...filter });
      if (mine === turn.current) setRows({ ...page, items: [...from.items, ...page.predictions] });
    } catch (error) {
      if (mine === turn.current) setRows({ ...from, total: from.next, error });
    } finally {
      if (mine === turn.current) busy.current = false;
    }
  };
  useEffect(() => {
    turn.current += 1;
    busy.current = false;
    const none = { items: [], next: 0, total: Infinity };
    setRows((earlier) => ({ ...none, statuses: earlier.statuses, models: earlier.models }));
    if (batch.ended) more(none);
    // `more` is made anew at each drawing; the key says when to begin again.
  }, [key, batch.ended]);
  return [rows, more];
}
