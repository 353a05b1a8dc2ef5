// Figures and times as people read them.

export const shortModel = (model) => (model ? model.split("/").pop() : "unknown model");

export function seconds(value) {
  if (!Number.isFinite(value)) return "";
  if (value < 60) return `${value.toFixed(value < 10 && !Number.isInteger(value) ? 1 : 0)} s`;
  const minutes = Math.floor(value / 60);
  if (minutes < 60) return `${minutes} min ${String(Math.floor(value % 60)).padStart(2, "0")} s`;
  return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
}

export function dollars(value) {
  if (!Number.isFinite(value)) return "";
  if (value === 0) return "$0";
  return `$${value.toFixed(value < 1 ? 4 : 2).replace(/(\.\d\d\d*?)0+$/, "$1")}`;
}

/** What predictions and batches have cost, together; of some it may be known only what it is at most. */
export function spend(records) {
  const usd = sum(records.map((one) => one.cost_usd ?? one.spent_usd));
  const isAtMost = records.some((one) => one.cost_is_at_most || one.spent_is_at_most);
  return usd && isAtMost ? `at most ${dollars(usd)}` : dollars(usd);
}

export function bytes(value) {
  if (!Number.isFinite(value)) return "";
  return value < 1e6 ? `${Math.max(1, Math.round(value / 1e3))} kB` : `${(value / 1e6).toFixed(1)} MB`;
}

export const count = (value) => (Number.isFinite(value) ? value.toLocaleString("en-US") : "–");
export const percent = (part, whole) => (whole ? `${Math.round((1000 * part) / whole) / 10} %` : "–");

const TIME = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const DAY_AND_TIME = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

export const clock = (milliseconds) => TIME.format(milliseconds);

export function moment(text) {
  const milliseconds = Date.parse(text ?? "");
  return Number.isNaN(milliseconds) ? "" : DAY_AND_TIME.format(milliseconds);
}

/** The value below which a share of the values lies. */
export function percentile(values, share) {
  if (!values.length) return NaN;
  const sorted = [...values].sort((one, other) => one - other);
  return sorted[Math.min(sorted.length - 1, Math.ceil(share * sorted.length) - 1)];
}

export const sum = (values) => values.reduce((total, value) => total + (Number.isFinite(value) ? value : 0), 0);
