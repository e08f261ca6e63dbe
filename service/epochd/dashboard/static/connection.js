// Whether the service answers, said once at the top of the page; and asking again and again, for as long as a page
// is open.

const LONGEST_PAUSE = 10_000;

export function connected(is) {
  const place = document.getElementById("connection");
  place.hidden = is;
  const text = is ? "" : "No connection to the service. Trying again; nothing is lost.";
  if (place.textContent !== text) place.textContent = text;
}

export function pause(milliseconds, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });
}

export function longer(milliseconds) {
  return Math.min(milliseconds * 2, LONGEST_PAUSE);
}

// Calls `ask` every `interval()` milliseconds while the page is seen; `again()` of what it gives calls it at once, or as
// soon as the call that is under way, which may be of what was wanted before, has ended. What it cannot help, a problem
// that asking again would only repeat, goes to `onProblem`, and it stops.
export function keepAsking(ask, interval, onProblem) {
  let timer = null;
  let asking = false;
  let outdated = false;
  let wait = 1000;

  async function turn() {
    if (asking) {
      outdated = true;
      return;
    }
    clearTimeout(timer);
    timer = null;
    asking = true;
    const next = await once();
    asking = false;
    if (next === null) return;
    const pause = outdated ? 0 : next;
    outdated = false;
    if (!document.hidden) timer = setTimeout(turn, pause);
  }

  // Gives the milliseconds until the next time; null: never.
  async function once() {
    try {
      await ask();
      connected(true);
      wait = 1000;
      return interval();
    } catch (error) {
      if (error.name !== "Unreachable" && !(error.status >= 500)) return (onProblem(error), null);
      connected(false);
      wait = longer(wait);
      return wait / 2;
    }
  }

  document.addEventListener("visibilitychange", () => {
    if (!document.hidden && timer === null) turn();
  });
  return { started: turn(), again: turn };
}
