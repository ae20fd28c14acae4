/* How far an action is, as a bar and in words. */

import { attr, el, text } from "./dom.js";
import { bytes, seconds } from "./format.js";
import { podOf, typeOf } from "./words.js";

const NANOSECONDS = 1e9;

/** What is said in the place of a bar, and below it; of what is at work there is a bar instead. */
function linesOf(action) {
  const { error, bytes_raw: raw } = action.details;
  const duration = secondsOf(action);
  if (action.status === "initialized") {
    return ["waits for its turn", ""];
  }
  if (action.status === "ready") {
    return [took(action), raw && duration ? `${bytes(raw / duration)}/s` : ""];
  }
  if (action.status === "error") {
    return [error?.message ?? "failed", ""];
  }
  return ["", workWords(action)];
}

/** `dump: 312 MiB of 1.20 GiB, 410 MiB/s`. */
function workWords(action) {
  const { progress } = action.details;
  if (action.status === "checkpoint_created") {
    return "running again, being stored";
  }
  if (!progress) {
    return "at work";
  }
  const of = progress.bytes_total ? ` of ${bytes(progress.bytes_total)}` : "";
  const rate = progress.bytes_per_second ? `, ${bytes(progress.bytes_per_second)}/s` : "";
  const amount = progress.bytes_raw ? `: ${bytes(progress.bytes_raw)}${of}${rate}` : "";
  return `${progress.phase || "at work"}${amount}`;
}

/** How long an action took as a whole; null until it has ended. */
export function secondsOf(action) {
  return action.total_duration === null ? null : action.total_duration / NANOSECONDS;
}

function took(action) {
  const duration = secondsOf(action);
  return duration === null ? "" : `took ${seconds(duration)}`;
}

/** Two lines, of which the first may be a bar: `{element, update(action)}`. */
export function progressBar() {
  const bar = el("progress", { max: 1 });
  const first = el("span");
  const second = el("span", { class: "second" });
  return {
    element: el("div", { class: "getting-on" }, bar, first, second),
    update(action) {
      const { progress } = action.details;
      // What is said of the dump is over when the containers run again.
      const isKnown = Boolean(progress?.bytes_total) && action.status === "processing";
      const [above, below] = linesOf(action);
      bar.hidden = above !== "";
      attr(bar, "aria-label", `${typeOf(action)} of ${podOf(action)}`);
      attr(bar, "value", isKnown ? Math.min(1, progress.bytes_raw / progress.bytes_total) : null);
      first.hidden = above === "";
      text(first, above);
      attr(first, "title", above || null);
      attr(first, "class", action.status === "error" ? "failed" : null);
      second.hidden = below === "";
      text(second, below);
      attr(second, "title", below || null);
    },
  };
}
