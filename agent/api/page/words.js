/* What the API's names are called here. */

import { attr, el, text } from "./dom.js";

const TYPES = { checkpoint_pod: "checkpoint", restore_pod: "restore" };

/** A state or reason as words: `checkpoint created`, `node termination`. */
export function words(name) {
  return name
    .replaceAll("_", " ")
    .replace(/([a-z])([A-Z])/g, (_, a, b) => `${a} ${b.toLowerCase()}`);
}

/** `checkpoint` or `restore`. */
export function typeOf(action) {
  return TYPES[action.type] ?? action.type;
}

/** `namespace/name` of an action's pod, or what else is known of it. */
export function podOf(action) {
  const pod = action.details?.pod;
  return pod?.name ? `${pod.namespace}/${pod.name}` : pod?.uid || "unknown pod";
}

/** Whether nothing more will become of an action. */
export function hasEnded(action) {
  return action.status === "ready" || action.status === "error";
}

/** A state as a coloured label: `{element, update(state)}`. */
export function stateLabel() {
  const element = el("span", { class: "label" });
  return {
    element,
    update(state) {
      attr(element, "data-state", state);
      text(element, words(state));
    },
  };
}

/** A state's label that does not change. */
export function stillLabel(state) {
  const label = stateLabel();
  label.update(state);
  return label.element;
}
