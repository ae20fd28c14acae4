/* Text with a button that copies it. */

import { el } from "./dom.js";
import { say } from "./status.js";

/** `element`, and a button that copies its text. */
export function copyable(element, label = "Copy") {
  const button = el(
    "button",
    { type: "button", class: "small", "aria-label": label, onclick: copy },
    "Copy",
  );

  async function copy() {
    try {
      await navigator.clipboard.writeText(element.textContent);
      tell("Copied");
    } catch {
      // Browsers let a page copy only where it came over TLS or from this machine.
      getSelection().selectAllChildren(element);
      tell("Selected");
    }
  }

  function tell(word) {
    button.textContent = word;
    say(word);
    setTimeout(() => {
      button.textContent = "Copy";
    }, 2000);
  }

  return el("div", { class: "copyable" }, element, button);
}
