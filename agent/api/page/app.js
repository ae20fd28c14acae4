/* Where the page begins: who is here, and which view the address names. */

import { actionView } from "./action.js";
import { actionsView } from "./actions.js";
import { get, signOut } from "./api.js";
import { attr, byId, text } from "./dom.js";
import { nodesView } from "./nodes.js";
import { disturbed } from "./status.js";

const NAME = "checkpoint-agent";
const NAV = { actions: "nav-actions", action: "nav-actions", nodes: "nav-nodes" };
// Milliseconds.
const AGAIN = 2000;

/** `#action/ID` as view and parameter; what is unknown is the list. */
function route() {
  const [name, ...rest] = location.hash.slice(1).split("/");
  return name in NAV ? [name, decoded(rest.join("/"))] : ["actions", ""];
}

/** A part of an address as text, or as it is where it is no part of an address. */
function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** Show the view of the address, now and when it changes. */
function follow(views) {
  const lastFocus = new Map();
  let current = null;

  function go() {
    const [name, parameter] = route();
    const isFirst = current === null;
    if (!isFirst) {
      const focused = document.activeElement;
      lastFocus.set(current, byId(`view-${current}`).contains(focused) ? focused : null);
      views[current].hide();
      byId(`view-${current}`).hidden = true;
    }
    current = name;
    byId(`view-${name}`).hidden = false;
    views[name].show(parameter);
    document.title = `${views[name].title()} · ${NAME}`;
    for (const [view, id] of Object.entries(NAV)) {
      if (view !== "action") {
        attr(byId(id), "aria-current", NAV[name] === id ? "page" : null);
      }
    }
    if (!isFirst) {
      focus(name, lastFocus.get(name));
    }
  }

  addEventListener("hashchange", go);
  go();
}

/** Back to where somebody was in a view, else to its beginning. */
function focus(name, before) {
  // One action is another one the next time.
  const place =
    name !== "action" && before?.isConnected ? before : byId(`view-${name}`).querySelector("h1");
  place?.focus();
}

async function begin() {
  let session;
  try {
    session = (await get("/session")).body;
  } catch (error) {
    disturbed(error);
    setTimeout(begin, AGAIN);
    return;
  }
  text(byId("who"), session.name);
  attr(byId("who"), "title", `may ${session.scopes.join(", ")}`);
  const may = (scope) => session.scopes.includes(scope);
  follow({ actions: actionsView(), action: actionView(may), nodes: nodesView(may) });
}

byId("sign-out").addEventListener("click", async () => {
  try {
    await signOut();
    location.assign("/");
  } catch (error) {
    disturbed(error);
  }
});
byId("skip").addEventListener("click", (event) => {
  // The fragment is the view's.
  event.preventDefault();
  byId("content").focus();
});

begin();
