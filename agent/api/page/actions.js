/* The list of actions, live. */

import { get } from "./api.js";
import { copyable } from "./copy.js";
import { byId, el, keyed, tell, text } from "./dom.js";
import { filters, offers } from "./filters.js";
import { counted } from "./format.js";
import { spliced, staleCursor } from "./listing.js";
import { polling } from "./poll.js";
import { row } from "./rows.js";
import { say } from "./status.js";
import { podOf, typeOf, words } from "./words.js";

const PAGE = 50;
// More changes than this at once are told as a number.
const TOLD = 3;

/** The view `#actions`: `{show(), hide()}`. */
export function actionsView() {
  const showRows = keyed(byId("rows"), (action) => action.action_id, row);
  const offerNodes = offers(byId("known-nodes"));
  const offerNamespaces = offers(byId("known-namespaces"));
  const choice = filters(byId("filters"), () => poll.now());
  const poll = polling(refresh, (error) => tell(byId("actions-problem"), error?.message ?? ""));
  let list = [];
  let shownQuery = null;
  let hasMore = false;
  let wantsMore = false;
  let lastStale = null;

  /** The first page, and one further down: a new one if wanted, else one that may have changed. */
  async function refresh(signal) {
    const query = choice.asQuery();
    const isNew = query.toString() !== shownQuery;
    const before = isNew ? [] : list;
    let now = await page(query, before, null, signal);
    const cursor = wantsMore ? now.at(-1)?.action_id : staleCursor(now, PAGE, lastStale);
    if (cursor) {
      now = await page(query, now, cursor, signal);
    }
    [list, shownQuery, wantsMore, lastStale] = [now, query.toString(), false, cursor];
    show(query);
    say(isNew ? countWords() : changeWords(before, now));
  }

  async function page(query, before, cursor, signal) {
    const asked = new URLSearchParams(query);
    asked.set("limit", PAGE);
    if (cursor) {
      asked.set("before", cursor);
    }
    const { body, more } = await get(`/v2/actions?${asked}`, signal);
    const now = spliced(before, cursor, body, !more);
    if (!more) {
      hasMore = false;
    } else if (now.at(-1) === body.at(-1)) {
      hasMore = true;
    }
    return now;
  }

  function show(query) {
    showRows(list);
    byId("actions-table").hidden = list.length === 0;
    byId("more-line").hidden = !hasMore;
    text(byId("count"), countWords());
    offerNodes(list.map((action) => action.node_name));
    offerNamespaces(list.map((action) => action.details.pod?.namespace));
    showEmpty(list.length > 0 ? null : query.size > 0);
  }

  function countWords() {
    return hasMore ? `the newest ${list.length}` : counted(list.length, "action");
  }

  let shownEmpty = null;
  function showEmpty(isFiltered) {
    const place = byId("actions-empty");
    place.hidden = isFiltered === null;
    if (isFiltered !== shownEmpty && isFiltered !== null) {
      place.replaceChildren(
        ...(isFiltered ? [el("p", {}, "No action matches these filters.")] : firstSteps()),
      );
    }
    shownEmpty = isFiltered;
  }

  byId("clear-filters").addEventListener("click", () => choice.clear());
  byId("more").addEventListener("click", () => {
    wantsMore = true;
    poll.now();
  });

  return {
    title: () => "Actions",
    show() {
      choice.read();
      poll.start();
    },
    hide: poll.stop,
  };
}

/** What has changed, for those who do not see it; "" for nothing. */
function changeWords(before, now) {
  const states = new Map(before.map((action) => [action.action_id, action.status]));
  const changed = now.filter((action) => states.get(action.action_id) !== action.status);
  if (changed.length > TOLD) {
    return `${changed.length} actions have changed`;
  }
  return changed
    .map((action) => `${typeOf(action)} of ${podOf(action)}: ${words(action.status)}`)
    .join("; ");
}

/** What to do where there are no actions yet. */
function firstSteps() {
  const command = [
    `curl -X POST ${location.origin}/v2/checkpoint/pod \\`,
    '  -H "Authorization: Bearer $TOKEN" -H "Content-Type: application/json" \\',
    '  -d \'{"namespace": "default", "pod_name": "web", "kind": "simple", "reason": "manual"}\'',
  ].join("\n");
  return [
    el(
      "p",
      {},
      "No actions yet. Checkpoint a pod from ",
      el("a", { href: "#nodes" }, "Nodes"),
      ", or with a program:",
    ),
    copyable(el("pre", {}, command), "Copy the command"),
  ];
}
