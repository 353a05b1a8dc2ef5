// What Airflow loads: one component, which sees by its properties where it is.

import { Gallery } from "./gallery.js";
import { h, useEffect, useRef, useTheme } from "./dom.js";
import { Overview } from "./overview.js";

const styles = document.createElement("link");
styles.rel = "stylesheet";
styles.href = new URL("flux.css", import.meta.url);
document.head.append(styles);

const LEAST_WIDTH = 200;
const MARGIN = 12;

function Flux({ dagId, runId, taskId, mapIndex }) {
  const theme = useTheme();
  const root = useRef(null);
  useVisibleWidth(root);
  const content =
    dagId && runId ? h(Gallery, { scope: scopeOf(dagId, runId, taskId, mapIndex) }) : h(Overview, { theme });
  return h("div", { ref: root, className: `flux-app flux-${theme}` }, content);
}

/** Airflow's pane is cut off by a narrow window, so that it says nothing of the width that can be seen. */
function useVisibleWidth(root) {
  useEffect(() => {
    const fit = () => {
      const { left } = root.current.getBoundingClientRect();
      root.current.style.maxWidth = `${Math.max(LEAST_WIDTH, innerWidth - left - MARGIN)}px`;
    };
    const observer = new ResizeObserver(fit);
    observer.observe(document.body);
    observer.observe(root.current.parentElement);
    fit();
    return () => observer.disconnect();
  }, [root]);
}

function scopeOf(dag_id, run_id, task_id, mapIndex) {
  if (!task_id) return { dag_id, run_id };
  // Of a task that is not mapped, some versions of Airflow say nothing here and some leave the placeholder.
  const map_index = /^\d+$/.test(mapIndex ?? "") ? Number(mapIndex) : -1;
  return { dag_id, run_id, task_id, map_index };
}

globalThis.FLUX = Flux;
