// What a job has recorded, as this page knows it: a first picture of it, then what the stream adds.
//
// Iterations are kept reduced: of the range that is looked at, never more than a screen can show. What the stream
// brings is appended, until there is so much of it that the range is asked for anew.

import { everything, get } from "./api.js";
import { Epochs } from "./epochs.js";

const LOSS_POINTS = 1600;
const OTHER_POINTS = 1200;
const MOST_APPENDED = 3000;
const COLUMNS = ["train_loss", "learning_rate", "gradient_norm", "samples_per_second"];

export class Recorded {
  constructor(jobId) {
    this.jobId = jobId;
    this.epochs = new Epochs();
    this.iterations = Object.fromEntries(COLUMNS.map((name) => [name, { x: [], y: [] }]));
    this.last = 0; // newest iteration known
    this.range = null; // [first, last] of what is looked at; null: all
    this.appended = 0;
    this.asked = 0;
  }

  async load() {
    const epochs = this.loadEpochs();
    await this.loadNewest(); // first: the stream begins behind it, and what else is read may reach farther
    await this.loadIterations();
    await epochs;
  }

  async loadEpochs() {
    const rows = await everything(`/v1/jobs/${this.jobId}/epochs`, { limit: 10_000 });
    for (const row of rows) this.epochs.add(row);
  }

  // One point of a series is its newest: where it ends, when only a part of it is looked at.
  async loadNewest() {
    const newest = await get(`/v1/jobs/${this.jobId}/iterations`, { points: 1, fields: "epoch" });
    this.last = Math.max(this.last, newest.columns.iteration.at(-1) ?? 0);
  }

  // Two requests: the loss keeps its extremes by itself, and does not share its points with the other columns.
  async loadIterations() {
    const turn = (this.asked += 1);
    this.appended = 0; // counts anew: while this is under way, the stream asks for no more
    const [first, last] = this.range ?? [1, null];
    const query = { after: first - 1, up_to: last };
    const path = `/v1/jobs/${this.jobId}/iterations`;
    const [loss, others] = await Promise.all([
      get(path, { ...query, points: LOSS_POINTS, fields: "train_loss" }),
      get(path, { ...query, points: OTHER_POINTS, fields: COLUMNS.slice(1).join(",") }),
    ]);
    if (turn !== this.asked) return; // another range was asked for since
    for (const [name, found] of [["train_loss", loss], ...COLUMNS.slice(1).map((name) => [name, others])]) {
      this.replace(name, found.columns.iteration, found.columns[name].map(finite));
    }
  }

  // What the stream has brought since the question was answered stays behind the answer.
  replace(name, x, y) {
    const before = this.iterations[name];
    const [first, last] = this.range ?? [1, Infinity];
    const end = x.at(-1) ?? first - 1;
    const later = before.x.findIndex((at) => at > end && at <= last);
    const kept = later < 0 ? [[], []] : [before.x.slice(later), before.y.slice(later)];
    this.iterations[name] = { x: [...x, ...kept[0]], y: [...y, ...kept[1]] };
  }

  async look(range) {
    this.range = range;
    await this.loadIterations();
  }

  // Columns of the stream. Those of a new attempt begin where it resumed, and replace what was recorded from there
  // on.
  addIterations(columns) {
    const first = columns.iteration[0];
    const [, end] = this.range ?? [1, null];
    this.last = columns.iteration.at(-1);
    this.cutFrom(first);
    if (end !== null && first > end) return;
    const inside =
      end === null ? columns.iteration.length : columns.iteration.filter((at) => at <= end).length;
    const step = Math.max(1, Math.ceil(inside / 400)); // a message may hold 2000, more than there are pixels
    for (const name of COLUMNS) {
      const { x, y } = this.iterations[name];
      for (let index = 0; index < inside; index += step) {
        x.push(columns.iteration[index]);
        y.push(finite(columns[name][index]));
      }
    }
    this.appended += inside / step;
  }

  cutFrom(first) {
    for (const column of Object.values(this.iterations)) {
      let kept = column.x.length;
      while (kept > 0 && column.x[kept - 1] >= first) kept -= 1;
      column.x.length = column.y.length = kept;
    }
  }

  get needsReduction() {
    return this.appended > MOST_APPENDED;
  }
}

function finite(value) {
  return value ?? Number.NaN;
}
