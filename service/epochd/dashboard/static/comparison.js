// Jobs side by side in tables: what they came to, and where their specs differ.

import { h, prose } from "./dom.js";
import { bytes, count, jobName, number, rate, seconds, words } from "./format.js";

const FIGURES = [
  ["best value", (job) => number(job.best_value)],
  ["in epoch", (job) => count(job.best_epoch)],
  ["final value", (job) => number(job.final_value)],
  ["generalisation gap", (job) => number(job.generalisation_gap)],
  ["noise", (job) => number(job.noise)],
  ["diagnosis", (job) => words(job.verdict)],
  ["batch size", (job) => count(job.batch_size)],
  ["iterations an epoch", (job) => count(job.iterations_per_epoch)],
  ["epochs", (job) => count(job.epochs)],
  ["iterations", (job) => count(job.iterations)],
  ["training time", (job) => seconds(job.seconds)],
  ["samples/s", (job) => rate(job.samples_per_second)],
  ["peak memory", (job) => bytes(job.peak_memory_bytes)],
  ["device", (job) => job.device ?? "–"],
];

export function figures({ data, metric, mode }) {
  const values = data.map((job) => job.best_value).filter((value) => value !== null);
  const best = mode === "min" ? Math.min(...values) : Math.max(...values);
  return h(
    "section",
    { class: "card" },
    h("h2", {}, `Figures: ${words(metric)}, ${mode === "min" ? "lower" : "higher"} is better`),
    h(
      "div",
      { class: "scroll" },
      h(
        "table",
        { class: "figures" },
        h(
          "thead",
          {},
          h(
            "tr",
            {},
            h("td", {}),
            data.map((job) =>
              h("th", { scope: "col" }, h("a", { href: `/jobs/${job.id}` }, job.name ?? job.id.slice(-8))),
            ),
          ),
        ),
        h(
          "tbody",
          {},
          FIGURES.map(([name, show]) =>
            h(
              "tr",
              {},
              h("th", { scope: "row" }, name),
              data.map((job) =>
                h(
                  "td",
                  { class: name === "best value" && job.best_value === best ? "good" : null },
                  show(job),
                ),
              ),
            ),
          ),
        ),
      ),
    ),
  );
}

export function differences({ differences: found, data }, jobs) {
  if (found.length === 0) return h("section", { class: "card" }, h("p", {}, "The specs are the same."));
  return h(
    "section",
    { class: "card" },
    h("h2", {}, "Where the specs differ"),
    h(
      "div",
      { class: "scroll" },
      h(
        "table",
        { class: "figures" },
        h(
          "thead",
          {},
          h(
            "tr",
            {},
            h("td", {}),
            data.map((job, place) => h("th", { scope: "col" }, jobName(jobs[place]))),
          ),
        ),
        h(
          "tbody",
          {},
          found.map((one) =>
            h(
              "tr",
              {},
              h("th", { scope: "row" }, h("code", {}, one.path)),
              one.values.map((value) => h("td", {}, value === null ? "–" : JSON.stringify(value))),
            ),
          ),
        ),
      ),
    ),
  );
}

export function notes({ notes: found }) {
  return found.length
    ? h(
        "section",
        { class: "card" },
        h("h2", {}, "Notes"),
        h(
          "ul",
          { class: "advice" },
          found.map((text) => h("li", {}, prose(text))),
        ),
      )
    : null;
}
