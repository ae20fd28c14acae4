/* Which actions to show: a form, and the same in the address, so that it can be shared. */

import { el } from "./dom.js";

const FIELDS = ["state", "type", "node", "namespace", "pod"];
// Milliseconds after the last key.
const TYPING = 250;

/** Keep form and address in step; `changed()` hears of every change by hand. */
export function filters(form, changed) {
  let typing = 0;
  let applied = null;

  function apply() {
    clearTimeout(typing);
    const query = asQuery().toString();
    // Whoever leaves a field has often changed nothing since the last key.
    if (query === applied) {
      return;
    }
    applied = query;
    const address = `${location.pathname}${query && `?${query}`}${location.hash}`;
    history.replaceState(history.state, "", address);
    changed();
  }

  function asQuery() {
    const query = new URLSearchParams();
    for (const field of FIELDS) {
      const value = form.elements[field].value.trim();
      if (value) {
        query.set(field, value);
      }
    }
    return query;
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    apply();
  });
  form.addEventListener("change", apply);
  form.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(apply, TYPING);
  });

  return {
    asQuery,
    /** Take over what the address says. */
    read() {
      const query = new URLSearchParams(location.search);
      for (const field of FIELDS) {
        form.elements[field].value = query.get(field) ?? "";
      }
      applied = asQuery().toString();
    },
    clear() {
      form.reset();
      apply();
    },
  };
}

/** A function that offers values for a text field, and remembers those it has offered. */
export function offers(datalist) {
  const known = new Set();
  return (values) => {
    for (const value of values) {
      if (value && !known.has(value)) {
        known.add(value);
        datalist.append(el("option", { value }));
      }
    }
  };
}
