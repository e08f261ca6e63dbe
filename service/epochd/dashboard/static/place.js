// The state of a page is its address: read here, and written without a step in the history for every key typed.

export function read(name) {
  return new URLSearchParams(location.search).get(name);
}

export function readAll(name) {
  return new URLSearchParams(location.search).getAll(name);
}

// `changes` by name: a value, a list of values, or null to leave it out.
export function write(changes) {
  const parameters = new URLSearchParams(location.search);
  for (const [name, value] of Object.entries(changes)) {
    parameters.delete(name);
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== null && one !== undefined && one !== "") parameters.append(name, one);
    }
  }
  const text = parameters.toString();
  history.replaceState(null, "", text ? `${location.pathname}?${text}` : location.pathname);
}
