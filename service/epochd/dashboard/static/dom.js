// Elements from plain calls: h("a", {href: "/"}, "Jobs"). Text is always text, never markup.

const SVG = "http://www.w3.org/2000/svg";
const SVG_TAGS = new Set(["svg", "polyline", "title", "circle"]);

export function h(tag, properties = {}, ...children) {
  const element = SVG_TAGS.has(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    set(element, name, value);
  }
  element.append(
    ...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false),
  );
  return element;
}

function set(element, name, value) {
  if (name.startsWith("on")) {
    element.addEventListener(name.slice(2), value);
  } else if (name === "value" || name === "checked" || name === "indeterminate") {
    element[name] = value;
  } else if (value === true) {
    element.setAttribute(name, "");
  } else if (value !== false && value !== null && value !== undefined) {
    element.setAttribute(name, value);
  }
}

// Replaces what differs and leaves the rest alone, so that focus, selection and open details stay while a page is
// live.
export function update(old, fresh) {
  if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName || keyOf(old) !== keyOf(fresh)) {
    old.replaceWith(fresh);
    return fresh;
  }
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return old;
  }
  updateAttributes(old, fresh);
  updateChildren(old, fresh);
  return old;
}

function keyOf(node) {
  return node.dataset?.key;
}

function updateAttributes(old, fresh) {
  for (const { name } of [...old.attributes]) {
    // Whether details are open is the reader's business.
    if (!fresh.hasAttribute(name) && name !== "open") old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
}

function updateChildren(old, fresh) {
  const known = new Map([...old.children].filter(keyOf).map((child) => [keyOf(child), child]));
  const children = [...fresh.childNodes];
  children.forEach((child, place) => {
    const same = keyOf(child) === undefined ? undefined : known.get(keyOf(child));
    if (same && same !== old.childNodes[place]) old.insertBefore(same, old.childNodes[place] ?? null);
    const there = old.childNodes[place];
    if (there === undefined) old.append(child);
    else update(there, child);
  });
  while (old.childNodes.length > children.length) old.lastChild.remove();
}

// Text in which `code` is marked as the service's messages mark it.
export function prose(text) {
  return text.split("`").map((part, place) => (place % 2 ? h("code", {}, part) : part));
}

export function announce(text) {
  document.getElementById("announcement").textContent = text;
}

export function title(text) {
  document.title = `${text} · epochd`;
}
