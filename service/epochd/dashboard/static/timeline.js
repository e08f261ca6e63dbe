// The events of a job that people ask about, newest first; epochs, which are in the curves, are not among them.

import { h } from "./dom.js";
import { bytes, count, moment, number, seconds, words } from "./format.js";

export const SHOWN = [
  "job.queued",
  "job.started",
  "diagnosis.changed",
  "checkpoint.restored",
  "checkpoint.failed",
  "spec.amended",
  "batch_size.chosen",
  "memory.reduced",
  "export.completed",
  "export.failed",
  "job.paused",
  "job.resumed",
  "attempt.lost",
  "job.succeeded",
  "job.failed",
  "job.cancelled",
];

const WORDS = {
  "job.queued": (data) => (data.reason ? `Queued again: ${data.reason}` : "Queued"),
  "job.started": (data) => `Attempt ${data.attempt} on ${data.device} of ${data.worker}`,
  "diagnosis.changed": (data) => `Diagnosis: ${words(data.verdict)}`,
  "checkpoint.restored": (data) =>
    `Goes on from epoch ${count(data.epoch)}, iteration ${count(data.iteration)}`,
  "checkpoint.failed": (data) => `Checkpoint not saved: ${data.message}`,
  "spec.amended": (data) =>
    `Amended: ${Object.entries(data.changes)
      .map(([name, value]) => `${name} = ${JSON.stringify(value)}`)
      .join(", ")}`,
  "batch_size.chosen": (data) => `Batch size ${count(data.batch_size)} chosen by measuring`,
  "memory.reduced": (data) =>
    `Out of memory: mini-batches in ${data.micro_batches} parts of ${data.micro_batch_size}`,
  "export.completed": (data) => `${data.name} exported, ${bytes(data.bytes)}`,
  "export.failed": (data) => `${data.name} not exported: ${data.message}`,
  "job.paused": (data) => `Paused after epoch ${count(data.epoch)}`,
  "job.resumed": (data) => `Resumed after epoch ${count(data.epoch)}`,
  "attempt.lost": (data) =>
    `Attempt ${data.attempt} lost: ${data.reason}${data.retry_in_seconds === null ? "" : `; again in ${seconds(data.retry_in_seconds)}`}`,
  "job.succeeded": (data) => `Succeeded: ${words(data.stop_reason)}${kept(data)}`,
  "job.failed": (data) => `Failed: ${data.error?.message ?? words(data.stop_reason)}`,
  "job.cancelled": (data) => `Cancelled${kept(data)}`,
};

function kept({ selected_checkpoint: chosen }) {
  if (!chosen) return "";
  return `, weights of epoch ${chosen.epoch}${chosen.metric ? ` (${words(chosen.metric)} ${number(chosen.value)})` : ""}`;
}

export function timeline(events) {
  return h(
    "ol",
    { class: "timeline", reversed: true },
    [...events]
      .reverse()
      .map((event) =>
        h(
          "li",
          { "data-key": `event ${event.seq}`, class: event.type.replace(".", "-") },
          h("time", { datetime: event.created_at }, moment(event.created_at)),
          h("span", {}, WORDS[event.type]?.(event.data) ?? event.type),
        ),
      ),
  );
}
