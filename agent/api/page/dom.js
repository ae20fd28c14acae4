/* Elements and text, never markup: what comes from the server cannot become a tag. */

const SVG = "http://www.w3.org/2000/svg";

/** An element; attributes that are null or false are left out, `on…` are listeners. */
export function el(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

/** An element of a picture. */
export function svg(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") {
      element.addEventListener(name.slice(2), value);
    } else {
      attr(element, name, value);
    }
  }
  // append() makes text of strings.
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** The element of the page with this id. */
export function byId(id) {
  return document.getElementById(id);
}

/** Set an element's text if it differs: a selection in it stays, and nothing is announced twice. */
export function text(element, value) {
  if (element.textContent !== value) {
    element.textContent = value;
  }
}

/** Set an attribute if it differs; null and false remove it. */
export function attr(element, name, value) {
  if (value === null || value === false || value === undefined) {
    element.removeAttribute(name);
  } else if (element.getAttribute(name) !== String(value)) {
    element.setAttribute(name, value === true ? "" : String(value));
  }
}

/** Show text in an element that is hidden without. */
export function tell(element, value) {
  text(element, value);
  element.hidden = value === "";
}

/**
 * A function that makes `parent` show one element per item, and changes those in place that it knows.
 * `make(item)` returns `{element, update(item)}`. What has the focus keeps it.
 */
export function keyed(parent, key, make) {
  const known = new Map();
  return (items) => {
    const wanted = new Set(items.map(key));
    for (const [id, part] of known) {
      if (!wanted.has(id)) {
        leave(part.element);
        known.delete(id);
      }
    }
    let next = parent.firstElementChild;
    for (const item of items) {
      const id = key(item);
      if (!known.has(id)) {
        known.set(id, make(item));
      }
      const { element, update } = known.get(id);
      update(item);
      // An element that is moved loses the focus, so only what is out of place is.
      if (element === next) {
        next = next.nextElementSibling;
      } else {
        parent.insertBefore(element, next);
      }
    }
  };
}

/** Remove an element; a focus in it goes to the one beside it instead of to nowhere. */
function leave(element) {
  const had = element.contains(document.activeElement);
  const beside = element.nextElementSibling ?? element.previousElementSibling;
  element.remove();
  if (had) {
    beside?.querySelector("a, button:not(:disabled)")?.focus({ preventScroll: true });
  }
}

/** A function that fills `element` anew only when the data differ from those of the last time. */
export function region(element, render) {
  let shown;
  return (data) => {
    const now = JSON.stringify(data);
    if (now !== shown) {
      shown = now;
      element.replaceChildren(...render(data).filter((child) => child !== null));
    }
  };
}
