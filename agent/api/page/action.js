/* One action with all that is known of it, live until it ends. */

import { get } from "./api.js";
import { byId, el, tell, text } from "./dom.js";
import { parts } from "./parts.js";
import { polling } from "./poll.js";
import { connected, disturbed, ended, say } from "./status.js";
import { hasEnded, podOf, typeOf, words } from "./words.js";

// Milliseconds until a stream that was refused is asked for again.
const AGAIN = 2000;

/** The view `#action/ID`: `{show(id), hide()}`. */
export function actionView(may) {
  const page = build(may);
  let id = null;
  let stream = null;
  let lastState = null;

  // The first answer comes without the stream: that tells why there is none.
  const opening = polling(open, (error) => error && page.missing(error, id), AGAIN);

  async function open(signal) {
    const { body } = await get(`/v2/actions/${encodeURIComponent(id)}`, signal);
    take(body);
    opening.stop();
    if (!hasEnded(body)) {
      follow();
    }
  }

  /** Listen to the server; browsers connect again by themselves, unless they were refused. */
  function follow() {
    stream = new EventSource(`/v2/actions/${encodeURIComponent(id)}/events`);
    stream.addEventListener("action", (event) => {
      connected();
      take(JSON.parse(event.data));
    });
    stream.addEventListener("error", () => {
      disturbed({ status: 0 });
      if (stream?.readyState === EventSource.CLOSED) {
        drop();
        setTimeout(() => stream === null && id !== null && opening.start(), AGAIN);
      }
    });
  }

  function take(action) {
    page.update(action);
    if (lastState !== null && lastState !== action.status) {
      say(`${typeOf(action)} of ${podOf(action)}: ${words(action.status)}`);
    }
    lastState = action.status;
    if (hasEnded(action)) {
      drop();
      ended();
    }
  }

  function drop() {
    stream?.close();
    stream = null;
  }

  // A browser holds six connections to a server, all tabs together: one that nobody looks at has none.
  document.addEventListener("visibilitychange", () => {
    if (id === null) {
      return;
    }
    if (document.hidden) {
      drop();
    } else if (stream === null && !page.hasEnded()) {
      opening.start();
    }
  });

  return {
    title: () => `Action ${id}`,
    show(wanted) {
      [id, lastState] = [wanted, null];
      page.clear(id);
      opening.start();
    },
    hide() {
      id = null;
      opening.stop();
      drop();
    },
  };
}

/** The view's frame and how it is filled. */
function build(may) {
  const heading = el("h1", { tabindex: "-1" });
  const problem = el("p", { class: "problem", role: "alert" });
  const body = el("div");
  byId("view-action").append(
    el("p", { class: "back" }, el("a", { href: "#actions" }, "← Actions")),
    heading,
    problem,
    body,
  );
  let shown = null;
  let last = null;
  return {
    clear(id) {
      text(heading, `Action ${id}`);
      tell(problem, "");
      shown = parts(may);
      body.replaceChildren(shown.element);
      // Empty parts have no place until it is known what they are.
      body.hidden = true;
      last = null;
    },
    update(action) {
      last = action;
      tell(problem, "");
      text(
        heading,
        `${typeOf(action) === "restore" ? "Restore" : "Checkpoint"} of ${podOf(action)}`,
      );
      document.title = `${podOf(action)} · ${words(action.status)} · checkpoint-agent`;
      shown.update(action);
      body.hidden = false;
    },
    missing(error, id) {
      tell(problem, error.status === 404 ? `No action has the id ${id}.` : error.message);
    },
    hasEnded: () => last !== null && hasEnded(last),
  };
}
