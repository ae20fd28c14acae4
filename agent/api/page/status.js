/* What the page says by itself: how the connection is, and changes for those who do not see them. */

import { attr, byId, text } from "./dom.js";

/** Tell screen readers, politely; nothing leaves what was said last. */
export function say(words) {
  if (words) {
    text(byId("said"), words);
  }
}

/** The last request was answered. */
export function connected() {
  show("live", "live");
}

/** Nothing is going on that could be live. */
export function ended() {
  show("ended", "up to date");
}

/** The last request failed for a reason that may pass. */
export function disturbed(error) {
  show(
    "lost",
    error.status === 429 ? "too many requests, slowing down" : "connection lost, trying again",
  );
}

function show(state, words) {
  attr(byId("connection"), "data-state", state);
  text(byId("connection"), words);
}
