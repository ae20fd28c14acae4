/* Where the time of an action went: a picture, and the same as a table. */

import { el, svg } from "./dom.js";
import { seconds } from "./format.js";

const REST = "unaccounted";
// Those in which a container may be frozen; the freeze begins with the first one that there is.
const FREEZES_WITH = ["freeze", "dump"];
const MEANINGS = {
  prepare: "look at the target, open the store",
  start: "start runc and CRIU",
  freeze: "stop all containers together",
  dump: "copy memory and files out",
  drain: "take the last bytes over",
  thaw: "let the containers run again",
  store: "make all bytes durable",
  commit: "write the manifest",
  unpack: "put the bundle in place",
  restore: "read, and let CRIU build the processes",
  [REST]: "what no phase claims",
};

// Pixels. Along the time everything is a percentage, so that text keeps its size at any width.
const TOP = 26;
const ROW = 36;
const BAR = 12;
const BOTTOM = 22;
// A label begins at its bar, or ends with it where the bar begins further right than this.
const TURN = 55;
const TICKS = 5;

/** Each phase's beginning and length in seconds, the frozen part of it, and all of it. */
export function layout(phases, frozenSeconds) {
  const names = Object.keys(phases).filter((name) => phases[name] > 0 || name !== REST);
  const bars = [];
  let at = 0;
  for (const name of names) {
    bars.push({ name, start: at, length: phases[name] });
    at += phases[name];
  }
  const first = bars.find((bar) => FREEZES_WITH.includes(bar.name));
  const frozen =
    frozenSeconds && first
      ? {
          start: first.start,
          length: Math.min(frozenSeconds, at - first.start),
          seconds: frozenSeconds,
        }
      : null;
  return { bars, frozen, total: at };
}

/** The picture: a row for each phase, one after the other along the time. */
export function phasesChart({ bars, frozen, total }) {
  const height = TOP + ROW * bars.length + BOTTOM;
  const percent = (value) => `${((value / total) * 100).toFixed(3)}%`;
  return svg(
    "svg",
    {
      class: "phases",
      width: "100%",
      height,
      role: "img",
      "aria-label": inWords(bars, frozen, total),
    },
    hatching(),
    ...(frozen ? frozenMark(frozen, percent, height, total) : []),
    ...axis(total, percent, height),
    ...bars.flatMap((bar, number) => row(bar, TOP + ROW * number, percent, total)),
  );
}

function inWords(bars, frozen, total) {
  const each = bars.map((bar) => `${bar.name} ${seconds(bar.length)}`).join(", ");
  const still = frozen ? `; frozen ${seconds(frozen.seconds)}` : "";
  return `${seconds(total)} in phases: ${each}${still}`;
}

function row(bar, top, percent, total) {
  const isLate = (bar.start / total) * 100 > TURN;
  const place = isLate ? bar.start + bar.length : bar.start;
  const fill = bar.name === REST ? "url(#hatching)" : null;
  return [
    svg(
      "text",
      { x: percent(place), y: top + 15, "text-anchor": isLate ? "end" : "start", class: "phase" },
      svg("tspan", { class: "phase-name" }, bar.name),
      ` ${seconds(bar.length)}`,
    ),
    svg("rect", {
      x: percent(bar.start),
      y: top + 20,
      width: percent(bar.length),
      height: BAR,
      class: "phase-bar",
      "data-phase": bar.name,
      fill,
    }),
  ];
}

/** The part of the time in which containers stood still, behind all rows. */
function frozenMark(frozen, percent, height, total) {
  const isLate = (frozen.start / total) * 100 > TURN;
  const end = frozen.start + frozen.length;
  return [
    svg("rect", {
      x: percent(frozen.start),
      y: TOP - 6,
      width: percent(frozen.length),
      height: height - BOTTOM - TOP + 6,
      class: "frozen-part",
    }),
    svg(
      "text",
      {
        x: percent(isLate ? end : frozen.start),
        y: 14,
        "text-anchor": isLate ? "end" : "start",
        class: "frozen-words",
      },
      `frozen ${seconds(frozen.seconds)}`,
    ),
  ];
}

function axis(total, percent, height) {
  const step = niceStep(total / TICKS);
  const parts = [];
  for (let number = 0; number * step <= total * 1.0001; number += 1) {
    const at = number * step;
    const anchor = number === 0 ? "start" : at / total > 0.95 ? "end" : "middle";
    const x = percent(Math.min(at, total));
    parts.push(
      svg("line", { x1: x, x2: x, y1: TOP - 6, y2: height - BOTTOM, class: "tick" }),
      svg(
        "text",
        { x, y: height - 6, "text-anchor": anchor, class: "tick-words" },
        at === 0 ? "0" : seconds(at),
      ),
    );
  }
  return parts;
}

/** The next of 1, 2, 5, 10, 20, … times a power of ten that is not below `atLeast`. */
function niceStep(atLeast) {
  const power = 10 ** Math.floor(Math.log10(atLeast));
  return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= atLeast * 0.9999);
}

function hatching() {
  const line = svg("path", { d: "M-1 7 L7 -1 M-1 1 L1 -1 M5 7 L7 5", class: "hatch" });
  const size = { width: 6, height: 6, patternUnits: "userSpaceOnUse" };
  return svg("defs", {}, svg("pattern", { id: "hatching", ...size }, line));
}

/** The numbers of the picture. */
export function phasesTable({ bars, frozen, total }) {
  const line = (name, length, meaning, attributes = {}) =>
    el(
      "tr",
      attributes,
      el("th", { scope: "row" }, name),
      el("td", {}, seconds(length)),
      el("td", {}, `${((length / total) * 100).toFixed(1)} %`),
      el("td", { class: "meaning" }, meaning),
    );
  const heading = (words) => el("th", { scope: "col" }, words);
  return el(
    "table",
    { class: "numbers" },
    el("caption", { class: "unseen" }, "Phases and how long they took"),
    el(
      "thead",
      {},
      el("tr", {}, heading("Phase"), heading("Time"), heading("Share"), heading("What it does")),
    ),
    el("tbody", {}, ...bars.map((bar) => line(bar.name, bar.length, MEANINGS[bar.name] ?? ""))),
    el(
      "tfoot",
      {},
      line("all", total, "", { class: "sum" }),
      frozen ? line("frozen", frozen.seconds, "from the first freeze to the last thaw") : null,
    ),
  );
}
