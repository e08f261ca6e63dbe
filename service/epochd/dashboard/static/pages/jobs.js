// All jobs, live: found, steered, and chosen to be compared.

import { address, get } from "../api.js";
import { keepAsking } from "../connection.js";
import { h, title, update } from "../dom.js";
import { count, datasetOf, jobName, lossOf, modelOf, moment, number } from "../format.js";
import { eta, progressBar, sparkline, statusChip } from "../parts.js";
import { read, readAll, write } from "../place.js";
import { buttons } from "../steering.js";

const STATUSES = ["queued", "running", "paused", "succeeded", "failed", "cancelled"];
const LIVE_PAUSE = 1500;
const QUIET_PAUSE = 5000;
const PAGE = 25;

const state = { jobs: null, next: null, curves: new Map(), chosen: new Set() };

export async function show(main, { fail }) {
  title("Jobs");
  const list = h("div", { id: "jobs", "aria-busy": "true" }, h("p", { class: "faint" }, "Loading…"));
  const live = keepAsking(() => load(list), pauseBetween, fail);
  main.replaceChildren(h("div", { class: "heading" }, h("h1", {}, "Jobs"), filters(live)), list);
  await live.started;
}

function pauseBetween() {
  return state.jobs.some((job) => !job.done) ? LIVE_PAUSE : QUIET_PAUSE;
}

function filters(live) {
  const again = () => (write({ after: null }), live.again());
  const text = h("input", {
    type: "search",
    name: "search",
    placeholder: "Name, data set, model or id",
    "aria-label": "Search jobs",
    maxlength: 200,
    value: read("search") ?? "",
    oninput: () => (write({ search: text.value || null }), again()),
  });
  const wanted = new Set(readAll("status"));
  const boxes = STATUSES.map((status) =>
    h(
      "label",
      { class: "choice" },
      h("input", {
        type: "checkbox",
        checked: wanted.has(status),
        onchange: (event) => {
          if (event.target.checked) wanted.add(status);
          else wanted.delete(status);
          write({ status: [...wanted] });
          again();
        },
      }),
      status,
    ),
  );
  return h(
    "form",
    { class: "filters", role: "search", onsubmit: (event) => event.preventDefault() },
    text,
    h("fieldset", {}, h("legend", { class: "unseen" }, "Status"), boxes),
  );
}

async function load(list) {
  const asked = location.search;
  const page = await get("/v1/jobs", {
    limit: PAGE,
    search: read("search"),
    status: readAll("status"),
    after: read("after"),
  });
  if (asked !== location.search) return load(list); // typed on since
  state.jobs = page.data;
  state.next = page.next;
  draw(list);
  await Promise.all(state.jobs.map((job) => loadCurve(job)));
  draw(list);
}

// The loss of some 50 points, asked for again only when there is more of it.
async function loadCurve(job) {
  const known = state.curves.get(job.id);
  if (job.progress.iteration === (known?.iteration ?? 0)) return;
  const query = { points: 50, fields: "train_loss", reduction: "mean" };
  try {
    const found = await get(`/v1/jobs/${job.id}/iterations`, query);
    state.curves.set(job.id, { iteration: job.progress.iteration, values: found.columns.train_loss });
  } catch (error) {
    if (error.status !== 404) throw error; // deleted meanwhile
  }
}

function draw(list) {
  const redraw = () => draw(list);
  const changed = (job, fresh) => {
    state.jobs = fresh
      ? state.jobs.map((one) => (one.id === job.id ? fresh : one))
      : state.jobs.filter((one) => one.id !== job.id);
    redraw();
  };
  update(
    list,
    h(
      "div",
      { id: "jobs" },
      state.jobs.length === 0 ? empty() : table(state.jobs, changed, redraw),
      h("div", { class: "pager" }, comparison(), pages()),
    ),
  );
}

function empty() {
  const filtered = read("search") || readAll("status").length > 0;
  return h(
    "div",
    { class: "card empty", "data-key": filtered ? "none found" : "none" },
    h("p", {}, filtered ? "No job is like this." : "No job yet."),
    h(
      "p",
      {},
      filtered
        ? h("a", { href: "/" }, "Show all jobs")
        : h("a", { class: "button primary", href: "/submit" }, "Submit the first"),
    ),
  );
}

function table(jobs, changed, redraw) {
  const heads = ["", "Job", "Status", "Progress", "Loss", "", ""];
  const names = ["Compare", "", "", "", "", "Time", "Actions"];
  return h(
    "table",
    { class: "jobs", "data-key": "jobs" },
    h("caption", { class: "unseen" }, "Jobs, newest first"),
    h(
      "thead",
      {},
      h(
        "tr",
        {},
        heads.map((text, index) =>
          h("th", { scope: "col" }, text || h("span", { class: "unseen" }, names[index])),
        ),
      ),
    ),
    h(
      "tbody",
      {},
      jobs.map((job) => row(job, changed, redraw)),
    ),
  );
}

function row(job, changed, redraw) {
  const loss = lossOf(job);
  const curve = state.curves.get(job.id)?.values ?? [];
  return h(
    "tr",
    { "data-key": job.id },
    h("td", { class: "choose" }, chooser(job, redraw)),
    h(
      "th",
      { scope: "row", class: "name" },
      h("a", { href: `/jobs/${job.id}` }, jobName(job)),
      h(
        "small",
        {},
        `${modelOf(job.spec)} · ${datasetOf(job.spec)} · batch size ${job.spec.batch_size} · ${moment(job.created_at)}`,
      ),
    ),
    h("td", { class: "status" }, statusChip(job), verdict(job)),
    h("td", {}, progressBar(job)),
    h(
      "td",
      { class: "loss" },
      sparkline(curve, `Training loss of ${jobName(job)}`),
      h("span", {}, number(loss)),
    ),
    h(
      "td",
      { class: "time" },
      eta(job) || (job.status === "running" ? `${count(job.progress.iteration)} iterations` : ""),
    ),
    h(
      "td",
      { class: "actions" },
      buttons(job, (fresh) => changed(job, fresh), ["pause", "resume", "cancel", "retry"]),
    ),
  );
}

function verdict(job) {
  if (job.error) return h("small", { class: "bad" }, job.error.code.replaceAll("_", " "));
  const found = job.diagnosis.verdict;
  return found === "undetermined"
    ? null
    : h("small", { class: found === "good_fit" ? "good" : "warn" }, found.replaceAll("_", " "));
}

function chooser(job, redraw) {
  return h("input", {
    type: "checkbox",
    "aria-label": `Compare ${jobName(job)}`,
    checked: state.chosen.has(job.id),
    onchange: (event) => {
      if (event.target.checked) state.chosen.add(job.id);
      else state.chosen.delete(job.id);
      redraw();
    },
  });
}

function comparison() {
  const chosen = [...state.chosen];
  if (chosen.length < 2)
    return h(
      "span",
      { class: "faint" },
      state.jobs.length > 1 ? "Tick two or more jobs to compare them." : "",
    );
  return h(
    "a",
    { class: "button primary", "data-key": "compare", href: address("/compare", { job: chosen }) },
    `Compare ${chosen.length} jobs`,
  );
}

function pages() {
  const here = { search: read("search"), status: readAll("status") };
  return h(
    "nav",
    { "aria-label": "Pages of jobs" },
    read("after") ? h("a", { href: address("/", here) }, "Newest") : null,
    state.next ? h("a", { href: address("/", { ...here, after: state.next }) }, "Older") : null,
  );
}
