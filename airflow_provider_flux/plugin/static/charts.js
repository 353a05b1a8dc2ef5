// Charts, drawn by Chart.js, which is shipped in vendor/.

import { h, useEffect, useRef, useState } from "./dom.js";

let library;

/** Load Chart.js when the first chart is drawn. It publishes itself. */
async function loadLibrary() {
  library ??= import("./vendor/chart.umd.min.js").then(() => globalThis.Chart);
  return library;
}

export const COLORS = {
  succeeded: "#2f9e6e",
  failed: "#d6455d",
  canceled: "#9a8f7d",
  running: "#4a8fe0",
  series: ["#6d5ae0", "#1f9bb3", "#e08a3c", "#c2528b", "#5f9c3f", "#8b93a7", "#3f6fd1"],
};

/**
 * @param kind "bar" or "line".
 * @param data as Chart.js takes it; give the same object as long as it is the same data.
 * @param label what the chart shows, for those who do not see it.
 */
export function Chart({ kind = "bar", title, label, data, stacked, horizontal, format = String, theme }) {
  const canvas = useRef(null);
  const [failed, setFailed] = useState(false);
  useEffect(() => {
    let chart;
    let gone = false;
    loadLibrary().then(
      (Library) => {
        if (!gone)
          chart = new Library(canvas.current, {
            type: kind,
            data,
            options: options(canvas.current, { stacked, horizontal, format, data }),
          });
      },
      () => setFailed(true),
    );
    return () => {
      gone = true;
      chart?.destroy();
    };
  }, [kind, data, stacked, horizontal, format, theme]);
  return h(
    "figure",
    { className: "flux-chart" },
    h("figcaption", null, title),
    h(
      "div",
      { className: "flux-canvas" },
      failed ? "The charts could not be loaded." : h("canvas", { ref: canvas, role: "img", "aria-label": label }),
    ),
  );
}

function options(canvas, { stacked, horizontal, format, data }) {
  const style = getComputedStyle(canvas);
  const [ink, line] = ["--flux-muted", "--flux-line"].map((name) => style.getPropertyValue(name));
  const values = {
    stacked,
    beginAtZero: true,
    grid: { color: line },
    border: { display: false },
    ticks: { color: ink, callback: (value) => format(value), maxTicksLimit: 6 },
  };
  const names = {
    stacked,
    grid: { display: false },
    border: { color: line },
    ticks: { color: ink, maxRotation: 0, autoSkipPadding: 12 },
  };
  return {
    animation: false,
    responsive: true,
    maintainAspectRatio: false,
    indexAxis: horizontal ? "y" : "x",
    interaction: { mode: "index", intersect: false, axis: horizontal ? "y" : "x" },
    font: { family: style.fontFamily },
    scales: horizontal ? { x: values, y: names } : { x: names, y: values },
    plugins: {
      legend: {
        display: data.datasets.length > 1,
        position: "bottom",
        labels: { color: ink, boxWidth: 10, boxHeight: 10, usePointStyle: true },
      },
      tooltip: { callbacks: { label: ({ dataset, raw }) => `${dataset.label}: ${format(raw)}` } },
    },
  };
}
