// The picture that went in and the one that came out: side by side, or one over the other with a slider.

import { pictureUrl } from "./api.js";
import { h, useState } from "./dom.js";
import { GoneBefore, Picture } from "./tile.js";

const VIEWS = { slider: "Slider", beside: "Side by side" };

export function BeforeAndAfter({ prediction, before, after }) {
  const [view, setView] = useState("slider");
  const given = h(Picture, {
    prediction,
    source: pictureUrl(before),
    alt: `Before: ${before.path}`,
    gone: h(GoneBefore, { file: before }),
  });
  const pictures = { given, made: h(Picture, { prediction, source: after }) };
  return h(
    "div",
    { className: "flux-compare" },
    h(
      "div",
      { className: "flux-compare-views", role: "group", "aria-label": "How to compare before and after" },
      Object.entries(VIEWS).map(([name, words]) =>
        h(
          "button",
          {
            key: name,
            type: "button",
            className: "flux-button",
            "aria-pressed": view === name,
            onClick: () => setView(name),
          },
          words,
        ),
      ),
    ),
    h(view === "slider" ? Slider : Beside, pictures),
  );
}

function Beside({ given, made }) {
  return h(
    "div",
    { className: "flux-beside" },
    h(Half, { words: "Before" }, given),
    h(Half, { words: "After" }, made),
  );
}

function Half({ words, children }) {
  return h("figure", { className: "flux-half" }, children, h("figcaption", null, words));
}

function Slider({ given, made }) {
  const [share, setShare] = useState(50);
  // The arrow keys move the slider here, and do not step to the next prediction.
  const stay = (event) => event.stopPropagation();
  return h(
    "div",
    { className: "flux-slider" },
    h(
      "div",
      { className: "flux-slider-pictures", style: { "--flux-share": `${share}%` } },
      h("div", { className: "flux-slider-after" }, made),
      h("div", { className: "flux-slider-before" }, given),
      h("span", { className: "flux-slider-line", "aria-hidden": true }),
    ),
    h(
      "label",
      { className: "flux-slider-label" },
      h("span", null, "Before"),
      h("input", {
        type: "range",
        min: 0,
        max: 100,
        value: share,
        "aria-label": "Show more of the picture before",
        "aria-valuetext": `${share} % before, ${100 - share} % after`,
        onChange: (event) => setShare(Number(event.target.value)),
        onKeyDown: stay,
      }),
      h("span", null, "After"),
    ),
  );
}
