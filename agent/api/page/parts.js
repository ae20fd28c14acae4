/* The parts of the page of one action, each shown only where there is something to show. */

import { copyable } from "./copy.js";
import { askRestore } from "./dialogs.js";
import {
  changes,
  containers,
  failure,
  figure,
  json,
  member,
  phases,
  steps,
  term,
  times,
} from "./details.js";
import { attr, el, region } from "./dom.js";
import { progressBar } from "./progress.js";
import { figures, known } from "./facts.js";
import { hasEnded, stateLabel } from "./words.js";

/** All of them: `{element, update(action)}`. */
export function parts(may) {
  const wide = [
    head(may),
    part("What went wrong", "failure", ({ details }) => details.error, failure),
    part(null, "figures", figures, (list) => list.map(figure)),
    part("Phases", "time", times, phases),
  ];
  const left = [
    part("States", "timeline", changes, steps),
    part(
      "Path",
      "path",
      ({ details }) => details.path,
      (path) => [copyable(el("code", {}, path), "Copy the path")],
    ),
    part(
      "Request",
      "request",
      ({ details }) => details.request,
      (request) => [json(request, "Copy the request")],
    ),
    ...["pod_spec", "pod_metadata_spec", "persistent_volume_claim"].map((name) =>
      part(
        null,
        "uploaded",
        (action) => action[name],
        (value) => [
          el("details", {}, el("summary", {}, `Uploaded ${name}`), json(value, `Copy ${name}`)),
        ],
      ),
    ),
  ];
  const right = [
    part("Containers", "containers", containers, (list) => [
      el("ul", { class: "members" }, ...list.map(member)),
    ]),
    part("Facts", "known", known, (list) => [el("dl", {}, ...list.flatMap(term))]),
  ];
  const elements = (list) => list.map(({ element }) => element);
  const columns = [left, right].map((list) => el("div", { class: "column" }, ...elements(list)));
  return {
    element: el(
      "div",
      { class: "parts" },
      ...elements(wide),
      el("div", { class: "columns" }, ...columns),
    ),
    update(action) {
      for (const { update } of [...wide, ...left, ...right]) {
        update(action);
      }
    },
  };
}

/** A section that is filled anew when its data change, and hidden while there are none. */
function part(title, name, data, render) {
  const content = el("div", { class: "content" });
  const element = el(
    "section",
    { class: `part part-${name}` },
    title ? el("h2", {}, title) : null,
    content,
  );
  const show = region(content, render);
  return {
    element,
    update(action) {
      const now = data(action) ?? null;
      element.hidden = now === null || (Array.isArray(now) && now.length === 0);
      if (!element.hidden) {
        show(now);
      }
    },
  };
}

/** State, progress and what can be done with it. */
function head(may) {
  const label = stateLabel();
  const progress = progressBar();
  const button = el(
    "button",
    { type: "button", class: "main", onclick: () => askRestore(shown) },
    "Restore",
  );
  let shown;
  button.disabled = !may("restore");
  attr(button, "title", may("restore") ? null : "your token has no scope restore");
  return {
    element: el("div", { class: "head" }, label.element, progress.element, button),
    update(action) {
      shown = action;
      label.update(action.status);
      progress.update(action);
      // What has ended has parts that say more.
      progress.element.hidden = hasEnded(action);
      button.hidden = action.type !== "checkpoint_pod" || action.status !== "ready";
    },
  };
}
