// Who trains: devices, their memory, and what runs where.

import { get } from "../api.js";
import { keepAsking } from "../connection.js";
import { h, title, update } from "../dom.js";
import { bytes, count, jobName, moment } from "../format.js";
import { progressBar } from "../parts.js";

const PAUSE = 2000;

export async function show(main, { fail }) {
  title("Workers");
  const place = h("div");
  const state = { place };
  main.replaceChildren(h("div", { class: "heading" }, h("h1", {}, "Workers")), place);
  await keepAsking(
    () => load(state),
    () => PAUSE,
    fail,
  ).started;
}

async function load(state) {
  const workers = (await get("/v1/workers")).data;
  const ids = workers.flatMap((worker) => worker.running.map((one) => one.job));
  const jobs = new Map(
    (await Promise.all(ids.map((id) => get(`/v1/jobs/${id}`).catch(() => null))))
      .filter(Boolean)
      .map((job) => [job.id, job]),
  );
  state.place = update(
    state.place,
    h(
      "div",
      { class: workers.length ? "cards" : null },
      workers.length ? workers.map((worker) => card(worker, jobs)) : none(),
    ),
  );
}

function none() {
  return h(
    "div",
    { class: "card empty" },
    h("p", {}, "No worker is alive: jobs wait in the queue."),
    h("p", {}, "Start one with ", h("code", {}, "epochd worker"), "."),
  );
}

function card(worker, jobs) {
  return h(
    "section",
    { class: "card", "data-key": worker.id },
    h("h2", {}, worker.id),
    h(
      "p",
      { class: "faint" },
      `${worker.slots === 1 ? "1 job" : `${count(worker.slots)} jobs`} at a time · since ${moment(worker.started_at)} · seen ${moment(worker.last_seen_at)}`,
    ),
    worker.devices.map((device) => deviceMeter(device)),
    worker.models.length ? h("p", {}, `Own models: ${worker.models.join(", ")}`) : null,
    h("h3", {}, "Runs"),
    worker.running.length || worker.measuring.length
      ? [
          worker.running.map((one) => running(one, jobs.get(one.job))),
          worker.measuring.map((one) => h("p", {}, `Measures batch sizes: ${one}`)),
        ]
      : h("p", { class: "faint" }, "Nothing now."),
  );
}

function running(one, job) {
  return h(
    "div",
    { "data-key": one.job },
    h(
      "p",
      {},
      h("a", { href: `/jobs/${one.job}` }, job ? jobName(job) : one.job),
      h("small", {}, ` · ${one.device} · attempt ${one.attempt}`),
    ),
    job ? progressBar(job) : null,
  );
}

function deviceMeter({ name, memory_used_bytes: used, memory_total_bytes: total }) {
  const known = used !== null && total !== null;
  return h(
    "div",
    { "data-key": name },
    h("p", {}, h("strong", {}, name), known ? ` ${bytes(used)} of ${bytes(total)} in use` : ""),
    known
      ? h(
          "div",
          {
            class: "meter",
            role: "meter",
            "aria-label": `Memory of ${name}`,
            "aria-valuemin": 0,
            "aria-valuemax": total,
            "aria-valuenow": used,
          },
          h("span", { style: `width:${((used / total) * 100).toFixed(1)}%` }),
        )
      : null,
  );
}
