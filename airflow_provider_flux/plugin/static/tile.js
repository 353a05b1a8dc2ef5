// One prediction in the grid: its picture, or why there is none.

import { pictureUrl } from "./api.js";
import { CopyButton, Fragment, h, Icon, useNow, useState } from "./dom.js";
import { moment, seconds, shortModel, spend } from "./format.js";
import { group, GROUP_NAMES, hasEnded, hasSucceeded, runTime, since } from "./predictions.js";

/** Where a browser gets the first picture of a prediction from; undefined if there is none it could show. */
export function firstPicture(prediction, options) {
  const stored = prediction.stored.find((file) => file.sha256);
  return stored ? pictureUrl(stored, options) : prediction.outputs[0];
}

export function Status({ prediction }) {
  const name = group(prediction);
  const words = name === "running" && prediction.status ? prediction.status.replaceAll("_", " ") : GROUP_NAMES[name];
  return h("span", { className: `flux-status flux-is-${name}` }, words);
}

export function RetryAdvice({ prediction }) {
  if (prediction.retry_helps === undefined) return null;
  return h(
    "p",
    { className: "flux-advice" },
    prediction.retry_helps ? "A retry may succeed." : "A retry will not help; change the input.",
  );
}

export function Tile({ prediction, runEnded, onOpen }) {
  const { id, key, prompt, model, seed, cost_usd } = prediction;
  const passed = prediction.passed_over.length;
  const name = prompt || key || id;
  const facts = [
    shortModel(model),
    sizeOf(prediction),
    seconds(runTime(prediction)),
    Number.isFinite(cost_usd) ? spend([prediction]) : "",
    passed ? `after ${passed} other ${passed === 1 ? "way" : "ways"}` : "",
    Number.isFinite(seed) ? `seed ${seed}` : "",
  ];
  return h(
    "article",
    { className: "flux-tile", "data-status": group(prediction), "data-id": id },
    h(
      "button",
      { type: "button", className: "flux-face", onClick: () => onOpen(prediction), "aria-label": `Details of ${name}` },
      h(Face, { prediction, runEnded }),
      prediction.stored.length > 1 || prediction.outputs.length > 1
        ? h(
            "span",
            { className: "flux-more" },
            `${Math.max(prediction.stored.length, prediction.outputs.length)} pictures`,
          )
        : null,
    ),
    h(
      "div",
      { className: "flux-caption" },
      h("p", { className: "flux-prompt", title: prompt || undefined }, name),
      h("p", { className: "flux-facts" }, facts.filter(Boolean).join(" · ")),
      h(
        "div",
        { className: "flux-foot" },
        h(Status, { prediction }),
        h("span", { className: "flux-gap" }),
        prompt ? h(CopyButton, { text: prompt, what: "the prompt" }) : null,
        id ? h(CopyButton, { text: id, what: "the prediction id" }) : null,
      ),
    ),
  );
}

function sizeOf(prediction) {
  const { width, height } = prediction.stored[0] ?? {};
  return width && height ? `${width} × ${height}` : "";
}

function Face({ prediction, runEnded }) {
  if (!hasEnded(prediction)) return h(Waiting, { prediction, runEnded });
  if (!hasSucceeded(prediction)) return h(Failure, { prediction });
  return h(Fragment, null, h(Picture, { prediction, small: true }), h(Inset, { prediction }));
}

/** The picture that went in, small in a corner; nothing if there was none, or it is gone. */
function Inset({ prediction }) {
  const before = prediction.inputs.find((file) => file.sha256);
  if (!before) return null;
  const source = pictureUrl(before, { small: true });
  return h(
    "span",
    { className: "flux-inset" },
    h(Picture, { prediction, small: true, source, alt: "Before", gone: null }),
  );
}

/** What is shown of an input that cannot be read any more. */
export function GoneBefore({ file }) {
  return h(Words, { icon: "gone", title: "Gone" }, `${file.path} is gone, or is not what the model was given.`);
}

function Waiting({ prediction, runEnded }) {
  const now = useNow(!runEnded);
  const from = since(prediction);
  if (runEnded) {
    return h(Words, { icon: "clock", title: "Not waited for" }, "The task ended before the prediction did.");
  }
  return h(
    "div",
    { className: "flux-waiting" },
    h(
      "span",
      { className: "flux-elapsed" },
      Number.isNaN(from) ? "" : seconds(Math.max(0, Math.floor((now - from) / 1000))),
    ),
    h("span", null, "in the making"),
  );
}

const WHY_STOPPED = {
  canceled: "It was stopped before it had a picture.",
  aborted: "It was stopped before it had a picture.",
  over_budget: "The budget was used up before its turn. Nothing was sent.",
  not_started: "The batch ended before its turn. Nothing was sent.",
};

function Failure({ prediction }) {
  const title = GROUP_NAMES[prediction.status] ?? "Failed";
  const stopped = WHY_STOPPED[prediction.status];
  return h(
    Words,
    { icon: stopped ? "stop" : "alert", title, tone: stopped ? "" : "bad" },
    prediction.error || (stopped ?? "The gateway gave no reason."),
    h(RetryAdvice, { prediction }),
  );
}

/** The picture, which is loaded when it comes near; and what it was, if it cannot be loaded any more. */
export function Picture({
  prediction,
  small = false,
  source = firstPicture(prediction, { small }),
  alt = prediction.prompt || `Picture of prediction ${prediction.id}`,
  gone = h(Gone, { prediction }),
}) {
  const [state, setState] = useState("loading");
  if (!source) {
    const why = prediction.stored.length ? "It can be shown once the batch has ended." : "It has no address.";
    return h(Words, { icon: "picture", title: "No preview yet" }, why);
  }
  if (state === "gone") return gone;
  return h("img", {
    key: source,
    className: state === "shown" ? "flux-image flux-is-shown" : "flux-image",
    src: source,
    alt,
    loading: small ? "lazy" : "eager",
    decoding: "async",
    referrerPolicy: "no-referrer",
    onLoad: () => setState("shown"),
    onError: () => setState("gone"),
  });
}

function Gone({ prediction }) {
  const expiry = moment(prediction.expires_at);
  if (prediction.stored.length) {
    return h(
      Words,
      { icon: "gone", title: "Gone" },
      `${prediction.stored[0].path} is gone, or is not what was stored.`,
    );
  }
  const when = expiry && Date.parse(prediction.expires_at) < Date.now() ? ` It was kept until ${expiry}.` : "";
  return h(
    Words,
    { icon: "gone", title: "Gone" },
    `The gateway has deleted this picture.${when} With output_path it would have been stored.`,
  );
}

function Words({ icon, title, tone = "", children }) {
  return h(
    "div",
    { className: `flux-words ${tone && `flux-is-${tone}`}` },
    h(Icon, { name: icon, size: 28 }),
    h("strong", null, title),
    h("div", { className: "flux-reason" }, children),
  );
}
