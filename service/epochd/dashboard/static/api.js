// The service's public API, as any other caller uses it.

import { h } from "./dom.js";

const KEY = "epochd.api_key";

export class Problem extends Error {
  constructor(status, body) {
    super(body?.detail ?? `The service answered ${status}.`);
    this.status = status;
    this.code = body?.code ?? null;
    this.errors = body?.errors ?? [];
  }
}

export class Unreachable extends Error {
  constructor() {
    super("The service does not answer.");
    this.name = "Unreachable";
  }
}

export function apiKey() {
  return sessionStorage.getItem(KEY);
}

export function authorization() {
  const key = apiKey();
  return key ? { Authorization: `Bearer ${key}` } : {};
}

// `query` values may be lists; null, undefined and "" are left out.
export function address(path, query = {}) {
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== null && one !== undefined && one !== "") parameters.append(name, one);
    }
  }
  const text = parameters.toString();
  return text ? `${path}?${text}` : path;
}

export async function request(method, path, { query, body, headers, signal } = {}) {
  const answer = await send(method, address(path, query), { body, headers, signal });
  return answer.status === 204 ? null : answer.json();
}

export function get(path, query, signal) {
  return request("GET", path, { query, signal });
}

export function post(path, body = {}, headers = {}) {
  return request("POST", path, { body, headers });
}

// Fetches; asks for a key where the service wants one. Raises Problem, Unreachable, or what `signal` was aborted
// with.
export async function send(method, url, { body, headers, signal } = {}) {
  const json = body === undefined ? {} : { "Content-Type": "application/json" };
  const options = { method, signal, body: body === undefined ? undefined : JSON.stringify(body) };
  const answer = await reach(url, { ...options, headers: { ...json, ...authorization(), ...headers } });
  if (answer.status === 401) {
    await askForKey();
    return send(method, url, { body, headers, signal });
  }
  if (!answer.ok) throw new Problem(answer.status, await answer.json().catch(() => null));
  return answer;
}

async function reach(url, options) {
  try {
    return await fetch(url, options);
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new Unreachable();
  }
}

let asked = null;

// One dialog, however many requests wait for it.
export function askForKey() {
  asked ??= new Promise((resolve) => {
    const field = h("input", {
      type: "password",
      id: "api-key",
      name: "api-key",
      required: true,
      autocomplete: "off",
    });
    const wrong = apiKey() ? h("p", { class: "error" }, "The service does not accept this key.") : null;
    const dialog = h(
      "dialog",
      { "aria-labelledby": "key-title" },
      h(
        "form",
        { method: "dialog" },
        h("h2", { id: "key-title" }, "API key"),
        h("p", {}, "This service wants a key. It is kept until this tab is closed."),
        wrong,
        h("label", { for: "api-key" }, "Key"),
        field,
        h("div", { class: "actions" }, h("button", { class: "button primary" }, "Use this key")),
      ),
    );
    dialog.addEventListener("cancel", (event) => event.preventDefault());
    dialog.addEventListener("close", () => {
      sessionStorage.setItem(KEY, field.value);
      dialog.remove();
      asked = null;
      resolve();
    });
    document.body.append(dialog);
    dialog.showModal();
  });
  return asked;
}

// All pages of a list that `after` walks through.
export async function everything(path, query, signal) {
  const found = [];
  let after = query.after;
  do {
    const page = await get(path, { ...query, after }, signal);
    found.push(...page.data);
    after = page.next;
  } while (after !== null);
  return found;
}
