/* What is known of an action, as names and values. */

import { bytes, exactly, moment, ratio, seconds } from "./format.js";
import { secondsOf } from "./progress.js";
import { typeOf, words } from "./words.js";

// What the contract wants where there is no checkpoint yet.
const NIL = "00000000-0000-0000-0000-000000000000";

/** The figures that people look for first: name, value, and what to make of it. */
export function figures(action) {
  const { details, status, action_timestamp: asked } = action;
  const { bytes_raw: raw, bytes_stored: stored, frozen_seconds: frozen } = details;
  const wall = secondsOf(action);
  const isRestore = typeOf(action) === "restore";
  const end =
    status === "error" ? "until it failed" : isRestore ? "until it ran" : "until it was durable";
  const sizes = [
    ["Raw", bytes(raw), raw && wall ? `${bytes(raw / wall)}/s` : ""],
    ["Stored", bytes(stored), raw && stored ? `ratio ${ratio(raw, stored)}` : ""],
  ];
  return [
    isRestore || (status === "error" && frozen === null)
      ? null
      : ["Frozen", seconds(frozen), "containers stood still"],
    status === "error" && wall === null ? null : ["Took", seconds(wall), end],
    // What failed has none.
    ...(status === "error" && raw === null ? [] : sizes),
    ["Asked for", moment(asked).slice(11), moment(asked).slice(0, 10)],
  ].filter((each) => each !== null);
}

/** Everything else: name, value, and the address it leads to, if any. */
export function known(action) {
  const { details, outcome } = action;
  const { pod } = details;
  return [
    ["Action", action.action_id],
    ["Checkpoint", action.checkpoint_id === NIL ? null : action.checkpoint_id],
    [
      "Restored from",
      details.restored_from,
      `#action/${encodeURIComponent(details.restored_from)}`,
    ],
    ["Pod's UID", pod?.uid],
    ["Node", [action.node_name, details.cluster].filter(Boolean).join(", cluster ")],
    ["Platform", action.platform],
    ["GPU", action.gpu],
    ["Reason", action.reason && words(action.reason)],
    ["Kind", details.kind],
    ["Name", details.name],
    ["Codec", outcome?.codec],
    ["Streams", outcome?.streams],
    ["Chunks", outcome?.chunks],
    ["Streamed", outcome && "streamed" in outcome ? streamed(outcome) : null],
    ["GPUs took", outcome?.cuda_seconds ? seconds(outcome.cuda_seconds) : null],
    ["Not restored", outcome?.not_restored?.join(", ")],
    ["Asked for", exactly(action.action_timestamp)],
    ["Completed", exactly(action.checkpoint_completed_timestamp)],
  ]
    .filter(([, value]) => value !== null && value !== undefined && value !== "")
    .map(([name, value, address]) => [name, String(value), address]);
}

function streamed({ streamed: isStreamed, fallback_reason: reason }) {
  return isStreamed ? "yes" : `no, through files${reason ? `: ${reason}` : ""}`;
}
