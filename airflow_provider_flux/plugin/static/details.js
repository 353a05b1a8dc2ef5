// All there is to know of one prediction, in a dialog.

import { getGatewayPage, pictureUrl, taskRoute } from "./api.js";
import { BeforeAndAfter } from "./compare.js";
import { CopyButton, Fragment, h, Icon, Link, useEffect, useRef, useState } from "./dom.js";
import { bytes, moment, seconds, spend } from "./format.js";
import { hasSucceeded, runTime } from "./predictions.js";
import { firstPicture, Picture, RetryAdvice, Status } from "./tile.js";

export function Details({ prediction, onClose, onStep }) {
  const dialog = useRef(null);
  useEffect(() => {
    // The modal dialog of the browser keeps the focus inside and gives it back in the end.
    dialog.current.showModal();
  }, []);
  const onKeyDown = (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step) onStep(step);
  };
  const name = prediction.prompt || prediction.key || prediction.id;
  return h(
    "dialog",
    {
      ref: dialog,
      className: "flux-details",
      "aria-label": `Details of ${name}`,
      onClose,
      onKeyDown,
      onClick: (event) => event.target === dialog.current && dialog.current.close(),
    },
    h(
      "div",
      { className: "flux-details-inside" },
      h(
        "div",
        { className: "flux-stage" },
        hasSucceeded(prediction) ? h(Pictures, { key: prediction.id, prediction }) : h(Reason, { prediction }),
      ),
      h(
        "div",
        { className: "flux-side" },
        h(
          "div",
          { className: "flux-side-head" },
          h(Status, { prediction }),
          h("span", { className: "flux-gap" }),
          h(RoundButton, { icon: "previous", label: "Previous (left arrow)", onClick: () => onStep(-1) }),
          h(RoundButton, { icon: "next", label: "Next (right arrow)", onClick: () => onStep(1) }),
          h(RoundButton, { icon: "close", label: "Close (Escape)", onClick: () => dialog.current.close() }),
        ),
        h(Facts, { prediction }),
        h(Links, { prediction, key: prediction.id }),
      ),
    ),
  );
}

function Pictures({ prediction }) {
  const stored = prediction.stored.filter((file) => file.sha256);
  const sources = stored.length ? stored.map((file) => pictureUrl(file)) : prediction.outputs;
  const [before] = prediction.inputs.filter((file) => file.sha256);
  if (before && sources.length === 1) return h(BeforeAndAfter, { prediction, before, after: sources[0] });
  if (sources.length < 2) return h(Picture, { prediction });
  return h(
    "div",
    { className: "flux-several" },
    sources.map((source) => h(Picture, { key: source, prediction, source })),
  );
}

function Reason({ prediction }) {
  return h(
    "div",
    { className: "flux-why" },
    h("p", null, prediction.error || "It has no picture."),
    h(RetryAdvice, { prediction }),
  );
}

function RoundButton({ icon, label, onClick }) {
  return h(
    "button",
    { type: "button", className: "flux-tool", onClick, title: label, "aria-label": label },
    h(Icon, { name: icon }),
  );
}

function Facts({ prediction }) {
  const { stored } = prediction;
  const rows = [
    ["Prompt", prediction.prompt, true],
    ["Prediction", prediction.id, true],
    ["Row", prediction.key, true],
    ["Model", prediction.model, true],
    ["Gateway", prediction.gateway],
    ...prediction.passed_over.map((way) => ["Tried before", passedOver(way)]),
    ["Seed", prediction.seed, true],
    ["Run time", seconds(runTime(prediction))],
    ["Cost", cost(prediction)],
    ["Attempts", prediction.attempts],
    ["Created", moment(prediction.created_at)],
    ["Completed", moment(prediction.completed_at)],
    ...prediction.inputs.flatMap((file) => [["Made from", file.path, true]]),
    ...stored.flatMap((file) => [
      ["Stored at", file.path, true],
      [
        "File",
        [file.width && `${file.width} × ${file.height}`, file.format, bytes(file.bytes)].filter(Boolean).join(" · "),
      ],
    ]),
    ...(stored.length ? [] : prediction.outputs.map((output) => ["Address", output, true])),
    ["Link lives until", stored.length ? "" : moment(prediction.expires_at)],
  ];
  return h(
    "dl",
    { className: "flux-list" },
    rows
      .filter(([, value]) => value !== undefined && value !== null && value !== "")
      .map(([name, value, copied], position) =>
        h(
          Fragment,
          { key: position },
          h("dt", null, name),
          h(
            "dd",
            null,
            h("span", null, String(value)),
            copied ? h(CopyButton, { text: String(value), what: name.toLowerCase() }) : null,
          ),
        ),
      ),
  );
}

function cost(prediction) {
  if (!Number.isFinite(prediction.cost_usd)) return "";
  return prediction.cost_source ? `${spend([prediction])} (${prediction.cost_source})` : spend([prediction]);
}

const passedOver = ({ model, gateway, reason, error }) =>
  [`${model} at ${gateway}: ${(reason ?? "").replaceAll("_", " ")}`, error].filter(Boolean).join(". ");

function Links({ prediction }) {
  const [page, setPage] = useState(null);
  const { dag_id, run_id, task_id, map_index, key } = prediction;
  useEffect(() => {
    const abort = new AbortController();
    // A task of a batch has many predictions, and so no page of one.
    if (key === undefined) {
      getGatewayPage({ dag_id, run_id, task_id, map_index }, abort.signal).then(setPage, () => setPage(null));
    }
    return () => abort.abort();
  }, [dag_id, run_id, task_id, map_index, key]);
  const picture = hasSucceeded(prediction) && firstPicture(prediction);
  return h(
    "div",
    { className: "flux-links" },
    picture ? h(External, { href: picture }, "Open picture") : null,
    page ? h(External, { href: page }, "Prediction at the gateway") : null,
    h(Link, { className: "flux-button", to: taskRoute(prediction) }, "Task instance"),
  );
}

function External({ href, children }) {
  return h(
    "a",
    { className: "flux-button", href, target: "_blank", rel: "noopener noreferrer" },
    children,
    h(Icon, { name: "open", size: 14 }),
  );
}
