// What a job's page shows around its curves, each from the job as the API gives it.

import { address, apiKey, send } from "./api.js";
import { h, prose } from "./dom.js";
import {
  bytes,
  count,
  datasetOf,
  jobName,
  modelOf,
  moment,
  number,
  percent,
  rate,
  seconds,
  titled,
  words,
} from "./format.js";
import {
  adviceList,
  copyButton,
  definitionTable,
  eta,
  planInWords,
  progressBar,
  statusChip,
  tile,
} from "./parts.js";
import { buttons } from "./steering.js";

export function heading(job, changed) {
  return h(
    "div",
    { class: "heading" },
    h(
      "div",
      {},
      h("h1", {}, jobName(job), " ", statusChip(job)),
      h(
        "p",
        { class: "faint" },
        h("code", {}, job.id),
        ` · ${modelOf(job.spec)} on ${datasetOf(job.spec)} · created ${moment(job.created_at)}`,
        tags(job),
      ),
    ),
    h(
      "div",
      { class: "actions" },
      buttons(job, changed),
      h(
        "a",
        { class: "button small", href: address("/submit", { spec: JSON.stringify(again(job.spec)) }) },
        "Submit again",
      ),
      h("a", { class: "button small", href: address("/compare", { job: job.id }) }, "Compare"),
    ),
  );
}

function tags(job) {
  return Object.entries(job.spec.tags ?? {}).map(([key, value]) =>
    h("span", { class: "tag" }, `${key}: ${value}`),
  );
}

export function problem(job) {
  if (!job.error) return null;
  return h(
    "div",
    { class: "card error", role: "alert", "data-key": "error" },
    h("strong", {}, words(job.error.code)),
    " ",
    job.error.message,
  );
}

export function tiles(job) {
  const { progress, metrics } = job;
  const accuracy = Object.entries(metrics).find(
    ([name]) => name.startsWith("validation_") && name !== "validation_loss",
  );
  const shown = [
    tile("Progress", progressBar(job), eta(job), "progress"),
    tile("Iteration", count(progress.iteration), `of ${count(progress.total_iterations)}`),
    tile("Training loss", number(metrics.train_loss)),
    "validation_loss" in metrics ? tile("Validation loss", number(metrics.validation_loss)) : null,
    accuracy ? tile(titled(accuracy[0]), number(accuracy[1])) : null,
    patience(job),
    tile("Samples/s", rate(progress.samples_per_second)),
    tile(
      "Peak memory",
      bytes(progress.peak_memory_bytes),
      progress.micro_batch_size ? `micro-batches of ${progress.micro_batch_size}` : null,
    ),
    tile("Elapsed", seconds(progress.elapsed_seconds), job.attempt > 1 ? `attempt ${job.attempt}` : null),
    tile("Device", job.device ?? "–", job.worker),
  ];
  return h("dl", { class: "tiles" }, shown);
}

// How many epochs without improvement are left before training stops.
function patience(job) {
  const state = job.early_stopping;
  if (!state) return null;
  const left = Math.max(0, state.patience - state.epochs_without_improvement);
  const pips =
    state.patience > 20
      ? null
      : h(
          "span",
          { class: "pips", "aria-hidden": "true" },
          Array.from({ length: state.patience }, (_, place) =>
            h("i", { class: place < left ? "left" : "gone" }),
          ),
        );
  const best =
    state.best_epoch === null ? null : `best ${number(state.best_value)} in epoch ${state.best_epoch}`;
  const text = state.stopped
    ? `stopped in epoch ${state.stopped_epoch}`
    : job.done
      ? `${left} of ${state.patience} left`
      : `${left} of ${state.patience} epochs left`;
  return tile("Patience", [h("span", {}, text), pips], best, "patience");
}

export function diagnosis(job) {
  const { verdict, since_epoch: since, confidence, evidence, suggestions } = job.diagnosis;
  const about =
    since === null
      ? ""
      : ` since epoch ${since}${confidence === null ? "" : `, ${percent(confidence)} sure`}`;
  return h(
    "section",
    { class: "card", id: "diagnosis" },
    h("h2", {}, "Diagnosis"),
    h("p", {}, h("strong", { class: `verdict ${verdict}` }, titled(verdict)), about),
    h("p", {}, prose(evidence)),
    suggestions.length
      ? h(
          "ul",
          { class: "suggestions" },
          suggestions.map((one) =>
            h(
              "li",
              { "data-key": one.message },
              prose(one.message),
              " ",
              h(
                "a",
                { href: address("/submit", { spec: JSON.stringify({ ...again(job.spec), ...one.patch }) }) },
                "Try it",
              ),
            ),
          ),
        )
      : null,
    job.advice.length ? [h("h3", {}, "Advice on the spec"), adviceList(job.advice)] : null,
  );
}

export function epochTable(recorded) {
  const rows = recorded.epochs.rows.slice(-200).reverse();
  if (rows.length === 0) return null;
  const metrics = Object.keys(rows[0]).filter((name) => !["epoch", "iteration", "is_best"].includes(name));
  return h(
    "details",
    { class: "card", "data-key": "epochs" },
    h("summary", {}, h("h2", {}, "Epochs as a table")),
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
            h("th", { scope: "col" }, "epoch"),
            metrics.map((name) => h("th", { scope: "col" }, words(name))),
          ),
        ),
        h(
          "tbody",
          {},
          rows.map((row) =>
            h(
              "tr",
              { class: row === recorded.epochs.best ? "best" : null, "data-key": `epoch ${row.epoch}` },
              h("th", { scope: "row" }, `${row.epoch}${row === recorded.epochs.best ? " (best)" : ""}`),
              metrics.map((name) => h("td", {}, number(row[name]))),
            ),
          ),
        ),
      ),
    ),
  );
}

export function downloads(job, artifacts) {
  if (artifacts.length === 0) return null;
  return h(
    "section",
    { class: "card", "data-key": "artifacts" },
    h("h2", {}, "Artifacts"),
    job.selected_checkpoint
      ? h(
          "p",
          {},
          `Weights of epoch ${job.selected_checkpoint.epoch}: ${job.selected_checkpoint.reason.replaceAll("_", " ")}.`,
        )
      : null,
    h(
      "ul",
      { class: "files" },
      artifacts.map((file) => {
        const path = `/v1/jobs/${job.id}/artifacts/${file.name}`;
        return h(
          "li",
          { "data-key": file.name },
          h(
            "a",
            { href: path, download: file.name, onclick: (event) => save(event, path, file.name) },
            file.name,
          ),
          h("small", {}, bytes(file.bytes)),
          h("code", { title: `SHA-256 ${file.sha256}` }, file.sha256.slice(0, 12)),
        );
      }),
    ),
  );
}

// A link cannot send a key: where one is needed, the file is fetched first.
async function save(event, path, name) {
  if (!apiKey()) return;
  event.preventDefault();
  const file = await (await send("GET", path)).blob();
  const link = h("a", { href: URL.createObjectURL(file), download: name });
  link.click();
  URL.revokeObjectURL(link.href);
}

export function specification(job) {
  const spec = JSON.stringify(job.spec, null, 2);
  const command = curl(job.spec);
  return h(
    "section",
    { class: "card" },
    h("h2", {}, "Spec and plan"),
    h("p", {}, planInWords(job.plan)),
    h(
      "details",
      { "data-key": "plan" },
      h("summary", {}, "Plan"),
      definitionTable(Object.entries(job.plan).map(([name, value]) => [words(name), count(value)])),
    ),
    h("details", { "data-key": "spec" }, h("summary", {}, "Spec"), h("pre", {}, spec)),
    h(
      "details",
      { "data-key": "curl" },
      h("summary", {}, "Submit it again with curl"),
      h("pre", { id: "curl" }, command),
      copyButton(command),
    ),
  );
}

// A spec as it would be sent: what is null by default says nothing.
function again(spec) {
  return Object.fromEntries(
    Object.entries(spec).filter(
      ([name, value]) =>
        name !== "webhook" && (value !== null || ["validation", "early_stopping"].includes(name)),
    ),
  );
}

function curl(spec) {
  const body = JSON.stringify(again(spec)).replaceAll("'", "'\\''");
  const key = apiKey() ? ` -H "Authorization: Bearer $EPOCHD_API_KEY"` : "";
  return `curl -sS ${location.origin}/v1/jobs -H 'Content-Type: application/json'${key} -d '${body}'`;
}
