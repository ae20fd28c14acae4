/* The nodes that are there, and what runs on them. */

import { get } from "./api.js";
import { attr, byId, el, keyed, region, tell, text } from "./dom.js";
import { askCheckpoint } from "./dialogs.js";
import { age, bytes, counted, exactly } from "./format.js";
import { polling } from "./poll.js";

// Milliseconds: a container's coming or going is in the inventory within a second.
const EVERY = 2000;
const SETTINGS = '[node]\ncluster = "default"\n\n[nats]\nurl = "nats://HOST:4222"';

/** The view `#nodes`: `{show(), hide()}`. */
export function nodesView(may) {
  const showCards = keyed(
    byId("cards"),
    (node) => `${node.cluster}.${node.node}`,
    () => card(may),
  );
  const poll = polling(
    refresh,
    (error) => tell(byId("nodes-problem"), error?.message ?? ""),
    EVERY,
  );

  async function refresh(signal) {
    const { body: nodes } = await get("/v2/nodes", signal);
    showCards(nodes);
    const pods = nodes.reduce((sum, node) => sum + node.pods.length, 0);
    text(byId("nodes-count"), `${counted(nodes.length, "node")}, ${counted(pods, "pod")}`);
    byId("nodes-empty").hidden = nodes.length > 0;
  }

  tell(byId("nodes-note"), may("checkpoint") ? "" : `Only to look at: ${MISSING}.`);
  byId("nodes-empty").replaceChildren(
    el(
      "p",
      {},
      "No node is there. Start checkpoint-agent daemon on one, with the broker of this server in its settings:",
    ),
    el("pre", {}, SETTINGS),
  );
  return { title: () => "Nodes", show: poll.start, hide: poll.stop };
}

const MISSING = "your token has no scope checkpoint";

/** One node: `{element, update(node)}`. */
function card(may) {
  const name = el("h2");
  const cluster = el("span", { class: "second" });
  const running = el("span", { class: "label" });
  const queued = el("span", { class: "label" });
  const facts = el("dl", { class: "facts" });
  const gpus = el("ul", { class: "gpus" });
  const pods = el("ul", { class: "pods" });
  const none = el("p", { class: "second" }, "No pods run here.");
  const showFacts = region(facts, factRows);
  const showGpus = region(gpus, (list) => list.map(gpuLine));
  let node;
  const showPods = keyed(
    pods,
    (pod) => pod.uid,
    () => podLine(may, () => node),
  );
  return {
    element: el(
      "article",
      { class: "card" },
      el("header", {}, name, cluster, running, queued),
      facts,
      gpus,
      pods,
      none,
    ),
    update(now) {
      node = now;
      text(name, node.node);
      text(cluster, node.cluster);
      text(running, `${node.running} running`);
      attr(running, "data-state", node.running ? "processing" : "initialized");
      text(queued, `${node.queued} queued`);
      attr(queued, "data-state", "initialized");
      showFacts([
        node.agent_version,
        node.started,
        age(node.started),
        node.kernel,
        node.platform,
        node.criu,
        node.runc,
      ]);
      showGpus(alike(node.gpus));
      gpus.hidden = node.gpus.length === 0;
      showPods(node.pods);
      none.hidden = node.pods.length > 0;
    },
  };
}

function factRows([agent, started, since, kernel, platform, criu, runc]) {
  const up = el("time", { datetime: started, title: exactly(started) }, `up ${since}`);
  return [
    ["Agent", el("span", {}, `${agent}, `, up)],
    ["Kernel", kernel],
    ["Platform", platform],
    ["CRIU", criu],
    ["runc", runc],
  ].map(([term, value]) => el("div", {}, el("dt", {}, term), el("dd", {}, value)));
}

/** GPUs of the same kind together: a node often has eight. */
function alike(gpus) {
  const kinds = new Map();
  for (const { uuid, model, memory, driver } of gpus) {
    const kind = JSON.stringify([model, memory, driver]);
    kinds.set(kind, [...(kinds.get(kind) ?? []), uuid]);
  }
  return [...kinds].map(([kind, uuids]) => [...JSON.parse(kind), uuids]);
}

function gpuLine([model, memory, driver, uuids]) {
  const number = uuids.length > 1 ? `${uuids.length} × ` : "";
  const more = `${bytes(memory)}${number && " each"}, driver ${driver}`;
  return el(
    "li",
    { title: uuids.join("\n") },
    `${number}${model}`,
    el("span", { class: "second" }, more),
  );
}

/** One pod with its button: `{element, update(pod)}`. */
function podLine(may, nodeNow) {
  let pod;
  const name = el("a");
  const uid = el("span", { class: "second mono" });
  const containers = el("ul", { class: "pod-containers" });
  const button = el(
    "button",
    { type: "button", onclick: () => askCheckpoint(nodeNow(), pod) },
    "Checkpoint",
  );
  const showContainers = region(containers, (list) => list.map(containerLine));
  return {
    element: el(
      "li",
      { class: "pod-line" },
      el("div", { class: "name" }, name, uid),
      containers,
      button,
    ),
    update(now) {
      pod = now;
      const called = `${pod.namespace}/${pod.name}`;
      text(name, called);
      attr(
        name,
        "href",
        `?${new URLSearchParams({ namespace: pod.namespace, pod: pod.name })}#actions`,
      );
      attr(name, "title", `Actions of ${called}`);
      text(uid, pod.uid);
      showContainers(pod.containers);
      const reason = whyNot(may, pod);
      button.disabled = reason !== null;
      attr(button, "title", reason);
      attr(button, "aria-label", `Checkpoint ${called}`);
    },
  };
}

function whyNot(may, pod) {
  if (!may("checkpoint")) {
    return MISSING;
  }
  const runs = pod.containers.some((container) => container.status !== "stopped");
  return runs ? null : "none of its containers runs";
}

function containerLine(container) {
  const name = container.checkpoint_name ? `keeps the name ${container.checkpoint_name}` : null;
  return el(
    "li",
    { title: name },
    el("span", { class: "dot", "data-status": container.status }),
    el("span", {}, container.name),
    el("span", { class: "second" }, `${container.status}, ${container.image}`),
  );
}
