// React comes from Airflow, which publishes it for its plugins (Airflow 3.1 and later); nothing of it is shipped here.

const { React, ReactRouterDOM } = globalThis;

export const h = React.createElement;
export const { Fragment, useCallback, useEffect, useMemo, useRef, useState } = React;
export const { Link } = ReactRouterDOM;

const ICONS = {
  alert: "M12 8v5m0 3.5v.5M10.3 3.9 2.5 17.5A2 2 0 0 0 4.2 20.5h15.6a2 2 0 0 0 1.7-3L13.7 3.9a2 2 0 0 0-3.4 0Z",
  check: "m5 12.5 4.5 4.5L19 7.5",
  clock: "M12 7v5l3 2M21 12a9 9 0 1 1-18 0 9 9 0 0 1 18 0Z",
  close: "M6 6l12 12M18 6 6 18",
  copy: "M9 9h10v11H9zM5 15V4h10",
  gone: "m4 4 16 16M9.5 5H19a1 1 0 0 1 1 1v9.500M4 8v11a1 1 0 0 0 1 1h11",
  next: "m9 5 7 7-7 7",
  open: "M14 4h6v6m0-6-9 9M18 14v5a1 1 0 0 1-1 1H5a1 1 0 0 1-1-1V7a1 1 0 0 1 1-1h5",
  picture: "M4 5h16v14H4zM4 16l4.500-4.500 4 4 3-3L20 17M15.500 9.200h.010",
  previous: "m15 5-7 7 7 7",
  stop: "M7 7h10v10H7z",
};

export function Icon({ name, size = 16 }) {
  return h(
    "svg",
    {
      className: "flux-icon",
      width: size,
      height: size,
      viewBox: "0 0 24 24",
      fill: "none",
      stroke: "currentColor",
      strokeWidth: 1.8,
      strokeLinecap: "round",
      strokeLinejoin: "round",
      "aria-hidden": true,
    },
    h("path", { d: ICONS[name] }),
  );
}

/** The time in milliseconds, anew every second as long as it is wanted. */
export function useNow(wanted) {
  const [now, setNow] = useState(Date.now);
  useEffect(() => {
    if (!wanted) return undefined;
    const timer = setInterval(() => setNow(Date.now()), 1000);
    return () => clearInterval(timer);
  }, [wanted]);
  return now;
}

/** "dark" or "light", as chosen in Airflow. */
export function useTheme() {
  const read = () => (document.documentElement.classList.contains("dark") ? "dark" : "light");
  const [theme, setTheme] = useState(read);
  useEffect(() => {
    const observer = new MutationObserver(() => setTheme(read()));
    observer.observe(document.documentElement, { attributes: true, attributeFilter: ["class"] });
    return () => observer.disconnect();
  }, []);
  return theme;
}

export function CopyButton({ text, what }) {
  const [copied, setCopied] = useState(false);
  const copy = async () => {
    await copyText(text);
    setCopied(true);
    setTimeout(() => setCopied(false), 1500);
  };
  return h(
    "button",
    { type: "button", className: "flux-tool", onClick: copy, title: `Copy ${what}`, "aria-label": `Copy ${what}` },
    h(Icon, { name: copied ? "check" : "copy", size: 15 }),
    h("span", { className: "flux-unseen", role: "status" }, copied ? "Copied" : ""),
  );
}

async function copyText(text) {
  if (navigator.clipboard) {
    await navigator.clipboard.writeText(text);
    return;
  }
  // Browsers offer the clipboard to https and localhost only.
  const field = document.createElement("textarea");
  field.value = text;
  (document.querySelector("dialog[open]") ?? document.body).append(field);
  field.select();
  document.execCommand("copy");
  field.remove();
}

/** An element that calls back whenever it comes near the visible part of the page. */
export function Sentinel({ onNear }) {
  const element = useRef(null);
  const callback = useRef(onNear);
  callback.current = onNear;
  useEffect(() => {
    const observer = new IntersectionObserver(
      (entries) => entries.some((entry) => entry.isIntersecting) && callback.current(),
      { rootMargin: "600px" },
    );
    observer.observe(element.current);
    return () => observer.disconnect();
  }, []);
  return h("div", { ref: element, className: "flux-sentinel", "aria-hidden": true });
}

export function Notice({ icon = "picture", title, children }) {
  return h(
    "div",
    { className: "flux-notice" },
    h(Icon, { name: icon, size: 40 }),
    h("h3", null, title),
    h("p", null, children),
  );
}
