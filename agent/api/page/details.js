/* What is in the parts of the page of one action. */

import { copyable } from "./copy.js";
import { el, text } from "./dom.js";
import { clock, exactly, seconds } from "./format.js";
import { layout, phasesChart, phasesTable } from "./phases.js";
import { stillLabel } from "./words.js";

/** An error with all that helps. */
export function failure(error) {
  const line = (name, value) => (value ? [el("dt", {}, name), el("dd", {}, value)] : []);
  return [
    el("p", { class: "message" }, error.message),
    el(
      "dl",
      {},
      ...line("State of things", error.state),
      ...line("What to try", error.hint),
      ...line("Field", error.field),
      ...line("Code", error.code),
    ),
    error.log_tail
      ? copyable(
          el("pre", { tabindex: "0", "aria-label": "End of CRIU's log" }, error.log_tail),
          "Copy the log",
        )
      : null,
  ];
}

/** A figure that people look for first. */
export function figure([name, value, more]) {
  return el(
    "div",
    { class: "figure" },
    el("span", { class: "second" }, name),
    el("strong", {}, value),
    el("span", { class: "second" }, more),
  );
}

/** What the chart is made of, once it is known. */
export function times({ phases: lengths, details }) {
  const isKnown = Object.values(lengths ?? {}).some((length) => length > 0);
  return isKnown ? { lengths, frozen: details.frozen_seconds } : null;
}

/** Where the time went, as picture and table. */
export function phases({ lengths, frozen }) {
  const shape = layout(lengths, frozen);
  return [el("div", { class: "chart" }, phasesChart(shape)), phasesTable(shape)];
}

/** The first event of each state; those between are progress. */
export function changes({ timeline }) {
  const firsts = (timeline ?? []).filter(
    ({ state }, number, all) => state !== all[number - 1]?.state,
  );
  return firsts.map((each, number) => ({
    ...each,
    since: number === 0 ? null : (Date.parse(each.time) - Date.parse(firsts[0].time)) / 1000,
  }));
}

/** The states that an action came through, with their times. */
export function steps(list) {
  return [el("ol", { class: "timeline" }, ...list.map(step))];
}

function step({ state, time, since }) {
  const when = el("time", { datetime: time, title: exactly(time) }, clock(time));
  return el(
    "li",
    {},
    stillLabel(state),
    when,
    el("span", { class: "second" }, since === null ? "" : `+ ${seconds(since)}`),
  );
}

/** Names of a checkpoint's, and of a restore's what became of them. */
export function containers({ containers: names, outcome }) {
  return outcome?.members?.length ? outcome.members : names;
}

/** One container. */
export function member(each) {
  if (typeof each === "string") {
    return el("li", {}, each);
  }
  const made = [
    each.container_id && `container ${each.container_id}`,
    each.pid && `pid ${each.pid}`,
  ];
  return el("li", {}, each.name, el("span", { class: "second" }, made.filter(Boolean).join(", ")));
}

/** A fact's name and value, with the address it leads to, if any. */
export function term([name, value, address]) {
  const shown = address ? el("a", { href: address }, value) : value;
  return [el("dt", {}, name), el("dd", {}, shown)];
}

/** JSON to read and copy. */
export function json(value, label) {
  const pre = el("pre", { tabindex: "0", "aria-label": "JSON" });
  text(pre, JSON.stringify(value, null, 2));
  return copyable(pre, label);
}
