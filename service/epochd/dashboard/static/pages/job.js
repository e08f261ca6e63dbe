// One job, live: where it is, its curves, what is thought of them, what happened, and what came out.

import { everything, get } from "../api.js";
import { pause } from "../connection.js";
import { Curves } from "../curves.js";
import { announce, h, title, update } from "../dom.js";
import { jobName } from "../format.js";
import { diagnosis, downloads, epochTable, heading, problem, specification, tiles } from "../job_view.js";
import { Recorded } from "../recorded.js";
import { follow } from "../stream.js";
import { SHOWN, timeline } from "../timeline.js";

const JOB_PAUSE = 500;

export async function show(main, { id, fail }) {
  const page = new JobPage(id, main, fail);
  await page.open();
}

class JobPage {
  constructor(id, main, fail) {
    this.id = id;
    this.path = `/v1/jobs/${id}`;
    this.main = main;
    this.fail = fail;
    this.recorded = new Recorded(id);
    this.curves = new Curves(this.recorded, fail);
    this.events = [];
    this.artifacts = [];
    this.top = h("div");
    this.below = h("div");
    this.refreshing = null;
  }

  // The newest event is read first and the rest after it: what came in between comes again with the stream, never
  // not at all.
  async open() {
    const { newest } = await get(`${this.path}/events`, { limit: 1 });
    this.events = await everything(`${this.path}/events`, { limit: 200, type: SHOWN });
    this.job = await get(this.path);
    title(jobName(this.job));
    this.main.replaceChildren(this.top, this.curves.figure, this.below);
    this.draw();
    await this.recorded.load();
    await this.loadArtifacts();
    this.draw();
    this.curves.show(this.job);
    await this.listen(newest);
  }

  // Follows the job for as long as the page is open: one that is done may be retried.
  async listen(newest) {
    const url = `${this.path}/events?iterations=true`;
    await follow(
      url,
      `${newest}-${this.recorded.last}`,
      (message) => this.receive(message),
      new AbortController().signal,
    );
    this.main.dataset.stream = "over";
    while (this.job?.done) {
      await pause(3000);
      if (this.job && (await this.refresh()) && !this.job.done) location.reload();
    }
  }

  receive({ type, data }) {
    if (type === "iterations") this.receiveIterations(JSON.parse(data).columns);
    else this.receiveEvent(JSON.parse(data));
    this.refreshSoon();
  }

  receiveIterations(columns) {
    this.recorded.addIterations(columns);
    if (this.recorded.needsReduction)
      this.recorded
        .loadIterations()
        .then(() => this.curves.later())
        .catch(this.fail);
    this.curves.later();
  }

  receiveEvent(event) {
    if (event.type === "epoch.completed") this.recorded.epochs.add(event.data);
    if (event.type === "checkpoint.restored") this.resume(event.data.epoch);
    if (event.type === "job.queued" && event.data.from === "scratch") this.recorded.epochs.forgetFrom(1);
    if (SHOWN.includes(event.type) && !this.events.some((known) => known.seq === event.seq)) {
      this.events.push(event);
      announce(`${jobName(this.job)}: ${event.type.replace(".", " ")}`);
    }
    this.curves.later();
  }

  // A new attempt goes on after this epoch; which of those before was the best, the service knows.
  resume(epoch) {
    this.recorded.epochs.forgetFrom(epoch + 1);
    this.recorded
      .loadEpochs()
      .then(() => this.curves.later())
      .catch((error) => error.name === "Unreachable" || this.fail(error));
  }

  // The job's own figures, at most twice a second however many messages come.
  refreshSoon() {
    this.refreshing ??= pause(JOB_PAUSE)
      .then(() => ((this.refreshing = null), this.refresh()))
      .catch((error) => error.name === "Unreachable" || this.fail(error));
  }

  async refresh() {
    const wasDone = this.job?.done;
    try {
      this.job = await get(this.path);
    } catch (error) {
      if (error.name === "Unreachable" || error.status >= 500) return false;
      throw error;
    }
    if (this.job.done && !wasDone) await this.loadArtifacts();
    this.draw();
    this.curves.show(this.job);
    return true;
  }

  async loadArtifacts() {
    if (this.job.done) this.artifacts = (await get(`${this.path}/artifacts`)).data;
  }

  changed(fresh) {
    if (fresh === null) {
      location.assign("/");
      return;
    }
    this.job = fresh;
    this.draw();
    if (this.main.dataset.stream === "over" && !fresh.done) location.reload();
  }

  draw() {
    const { job } = this;
    this.top = update(
      this.top,
      h(
        "div",
        { class: "job-top" },
        heading(job, (fresh) => this.changed(fresh)),
        problem(job),
        tiles(job),
      ),
    );
    this.below = update(
      this.below,
      h(
        "div",
        { class: "columns" },
        h("div", {}, diagnosis(job), epochTable(this.recorded), downloads(job, this.artifacts)),
        h(
          "div",
          {},
          h("section", { class: "card" }, h("h2", {}, "Timeline"), timeline(this.events)),
          specification(job),
        ),
      ),
    );
  }
}
