/* One action as a row of the list. */

import { attr, el, text } from "./dom.js";
import { age, bytes, clock, exactly, NOTHING, ratio, seconds } from "./format.js";
import { progressBar } from "./progress.js";
import { podOf, stateLabel, typeOf, words } from "./words.js";

/** A row that is changed in place: `{element, update(action)}`. */
export function row() {
  const label = stateLabel();
  const progress = progressBar();
  const link = el("a", {});
  const id = el("span", { class: "second mono" });
  const kind = lines();
  const node = lines();
  const frozen = el("span");
  const frozenCell = cell("frozen", frozen);
  const size = lines();
  const when = el("time");
  const since = el("span", { class: "second" });
  const element = el(
    "tr",
    { role: "row" },
    cell("state", label.element),
    el("th", { role: "rowheader", scope: "row", class: "pod" }, link, id),
    cell("kind", ...kind.parts),
    cell("node", ...node.parts),
    cell("progress", progress.element),
    frozenCell,
    cell("size", ...size.parts),
    cell("age", when, since),
  );
  return {
    element,
    update(action) {
      const { details } = action;
      label.update(action.status);
      progress.update(action);
      attr(link, "href", `#action/${encodeURIComponent(action.action_id)}`);
      attr(link, "title", podOf(action));
      text(link, podOf(action));
      text(id, action.action_id);
      kind.update(
        typeOf(action),
        [action.reason, details.kind].filter(Boolean).map(words).join(", "),
      );
      node.update(action.node_name ?? NOTHING, details.cluster ?? "");
      text(frozen, seconds(details.frozen_seconds));
      frozenCell.classList.toggle("unknown", details.frozen_seconds === null);
      size.update(...sizes(details));
      text(when, age(action.action_timestamp));
      attr(when, "datetime", action.action_timestamp);
      attr(when, "title", exactly(action.action_timestamp));
      text(since, clock(action.action_timestamp));
    },
  };
}

/** `2.00 GiB → 1.46 GiB` and its ratio, as far as they are known. */
export function sizes({ bytes_raw: raw, bytes_stored: stored }) {
  if (raw === null) {
    return [NOTHING, ""];
  }
  return stored
    ? [`${bytes(raw)} → ${bytes(stored)}`, `ratio ${ratio(raw, stored)}`]
    : [bytes(raw), ""];
}

function cell(name, ...content) {
  return el("td", { role: "cell", class: name }, ...content);
}

/** Two lines of a cell, the second one small. */
function lines() {
  const first = el("span");
  const second = el("span", { class: "second" });
  return {
    parts: [first, second],
    update(above, below) {
      text(first, above);
      attr(first, "title", above);
      text(second, below);
    },
  };
}
