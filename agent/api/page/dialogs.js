/* The two questions that make an action. */

import { ApiError, ask, newKey } from "./api.js";
import { byId, tell } from "./dom.js";
import { podOf } from "./words.js";

/** Ask how to checkpoint a pod of a node. */
export function askCheckpoint(node, pod) {
  const subject = `${pod.namespace}/${pod.name} on ${node.node}`;
  open(
    "checkpoint-dialog",
    subject,
    "/v2/checkpoint/pod",
    ({ kind, compression, streams, asynchronous }) => ({
      pod_id: pod.uid,
      namespace: pod.namespace,
      pod_name: pod.name,
      cluster_id: node.cluster,
      kind: kind.value,
      reason: "manual",
      overrides: overrides({
        compression: compression.value || undefined,
        streams: streams.value ? Number(streams.value) : undefined,
        asynchronous: asynchronous.checked || undefined,
      }),
    }),
  );
}

/** Ask how to restore a checkpoint. */
export function askRestore(action) {
  const subject = `${podOf(action)}, checkpoint ${action.action_id}`;
  open("restore-dialog", subject, "/v2/restore/pod", ({ reason, pod_name: name }) => ({
    action_id: action.action_id,
    reason: reason.value,
    cluster_id: action.details.cluster ?? undefined,
    overrides: overrides({ pod_name: name.value.trim() || undefined }),
  }));
}

/** Null where nothing differs from the node's settings. */
function overrides(wanted) {
  return Object.values(wanted).some((value) => value !== undefined) ? wanted : null;
}

/** Show a dialog; send what `body(fields)` makes of it, and go to the action it becomes. */
function open(id, subject, path, body) {
  const dialog = byId(id);
  const form = dialog.querySelector("form");
  // Made once: whoever presses twice, or again after a broken connection, still gets one action.
  const key = newKey();
  dialog.dataset.key = key;
  form.classList.remove("sending");
  form.reset();
  form.querySelector(".subject").textContent = subject;
  problem(form, "");
  form.onsubmit = (event) => {
    event.preventDefault();
    send(dialog, form, key, () => ask(path, body(form.elements), key));
  };
  form.querySelector(".cancel").onclick = () => dialog.close();
  // The browser gives the focus back to where it was when the dialog closes.
  dialog.showModal();
}

async function send(dialog, form, key, asking) {
  if (form.classList.contains("sending")) {
    return;
  }
  // Somebody may close the dialog meanwhile, and open it for something else.
  const isOpen = () => dialog.open && dialog.dataset.key === key;
  form.classList.add("sending");
  problem(form, "");
  try {
    const id = await asking();
    if (isOpen()) {
      dialog.close();
      location.hash = `action/${encodeURIComponent(id)}`;
    }
  } catch (error) {
    if (!(error instanceof ApiError)) {
      throw error;
    }
    if (isOpen()) {
      problem(form, refusal(error));
    }
  } finally {
    if (dialog.dataset.key === key) {
      form.classList.remove("sending");
    }
  }
}

function problem(form, words) {
  tell(form.querySelector(".problem"), words);
}

function refusal(error) {
  if (error.status === 0) {
    return "The server does not answer. Sending it again makes no second action.";
  }
  if (error.status === 429) {
    return `Too many requests. Try again in ${error.retryAfter ?? 1} s.`;
  }
  return [error.message, error.details?.hint].filter(Boolean).join(" ");
}
