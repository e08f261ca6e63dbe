// Small things that several pages show.

import { h, prose } from "./dom.js";
import { count, percent, seconds } from "./format.js";

export function statusChip(job) {
  const asked =
    job.status === "running" &&
    (job.cancel_requested_at ? "cancelling" : job.pause_requested_at ? "pausing" : null);
  const text = asked || (job.stop_reason === "early_stopped" ? "early stopped" : job.status);
  return h("span", { class: `chip ${job.status}`, "data-status": job.status }, text);
}

export function progressBar(job) {
  const { epoch, epochs, fraction } = job.progress;
  const text = `${count(epoch)} of ${count(epochs)} epochs`;
  return h(
    "div",
    { class: "progress" },
    h(
      "div",
      {
        class: `bar ${job.status}`,
        role: "progressbar",
        "aria-valuemin": 0,
        "aria-valuemax": 100,
        "aria-valuenow": Math.floor(fraction * 100),
        "aria-label": text,
      },
      h("span", { style: `width:${(fraction * 100).toFixed(1)}%` }),
    ),
    h("small", {}, `${text} · ${percent(fraction)}`),
  );
}

export function eta(job) {
  if (job.done)
    return job.progress.elapsed_seconds === null ? "" : `took ${seconds(job.progress.elapsed_seconds)}`;
  if (job.status !== "running") return "";
  return job.progress.eta_seconds === null ? "" : `${seconds(job.progress.eta_seconds)} left`;
}

// Values as a line of 96 by 24 pixels, what is not finite left out.
export function sparkline(values, label) {
  const found = values.map((value, index) => [index, value]).filter(([, value]) => value !== null);
  if (found.length < 2) return h("span", { class: "sparkline" });
  const low = Math.min(...found.map(([, value]) => value));
  const span = Math.max(...found.map(([, value]) => value)) - low || 1;
  const points = found.map(([index, value]) => {
    const x = (index / (values.length - 1)) * 94 + 1;
    return `${x.toFixed(1)},${(22 - ((value - low) / span) * 20).toFixed(1)}`;
  });
  return h(
    "svg",
    { class: "sparkline", viewBox: "0 0 96 24", width: 96, height: 24, role: "img", "aria-label": label },
    h("polyline", { points: points.join(" "), fill: "none" }),
  );
}

export function adviceList(advice) {
  if (advice.length === 0) return null;
  return h(
    "ul",
    { class: "advice" },
    advice.map((one) => h("li", {}, h("code", {}, one.param), " ", prose(one.message))),
  );
}

// N samples by mini-batches of B: how many iterations that makes, in words.
export function planInWords(plan) {
  const rest = plan.last_batch_size === plan.batch_size ? "" : `, the last of ${count(plan.last_batch_size)}`;
  const epochs = plan.iterations_per_epoch ? plan.total_iterations / plan.iterations_per_epoch : 0;
  return (
    `${count(plan.train_samples)} training samples in mini-batches of ${count(plan.batch_size)}${rest}: ` +
    `${count(plan.iterations_per_epoch)} iterations an epoch, ${count(plan.total_iterations)} in ${count(epochs)} epochs. ` +
    `${count(plan.validation_samples)} samples validate.`
  );
}

export function tile(name, value, note, key) {
  return h(
    "div",
    { class: "tile", "data-key": key ?? name },
    h("dt", {}, name),
    h("dd", {}, value),
    note ? h("dd", { class: "note" }, note) : null,
  );
}

export function definitionTable(rows) {
  return h(
    "table",
    { class: "plain-table" },
    h(
      "tbody",
      {},
      rows.map(([name, value]) => h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, value))),
    ),
  );
}

// Browsers give the clipboard to pages of https and of this machine only.
export function copyButton(text) {
  if (!navigator.clipboard) return null;
  return h(
    "button",
    {
      class: "button small",
      type: "button",
      onclick: ({ target }) =>
        navigator.clipboard.writeText(text).then(() => (target.textContent = "Copied")),
    },
    "Copy",
  );
}
