// Jobs over one another, by epoch, iteration or seconds, with the figures that they are told apart by.

import { everything, get } from "../api.js";
import { draw } from "../charts.js";
import { differences, figures, notes } from "../comparison.js";
import { keepAsking } from "../connection.js";
import { h, title, update } from "../dom.js";
import { jobName, words } from "../format.js";
import { statusChip } from "../parts.js";
import { read, readAll, write } from "../place.js";

const COLOURS = [
  "#2f6fed",
  "#e0680f",
  "#1d9457",
  "#b8409c",
  "#0d94a8",
  "#c0392b",
  "#7a5cd6",
  "#8a7a12",
  "#5b6b8c",
  "#d14f7a",
];
const DASHES = ["solid", "dashed", "dotted"];
const AXES = { epoch: "Epoch", iteration: "Iteration", seconds: "Seconds of training" };
const MOST = 20;
const LIVE_PAUSE = 2000;
const QUIET_PAUSE = 30_000;

export async function show(main, { fail }) {
  title("Compare");
  const page = new ComparePage(main, fail);
  await page.open();
}

class ComparePage {
  constructor(main, fail) {
    this.main = main;
    this.fail = fail;
    this.chart = null;
    this.comparison = null;
    this.epochs = new Map();
    this.shape = "";
    this.place = h("div", {
      class: "chart",
      id: "compared",
      role: "img",
      "aria-label": "Nothing to compare yet",
    });
    this.controls = h("div", { class: "filters" });
    this.tables = h("div");
    document.addEventListener(
      "themechange",
      () => ((this.shape = ""), this.comparison && this.drawChart().catch(fail)),
    );
  }

  get ids() {
    return [...new Set(readAll("job"))].slice(0, MOST);
  }

  async open() {
    const known = (await get("/v1/jobs", { limit: 200 })).data;
    this.picker = picker(known, (id) => this.choose([...this.ids, id]));
    this.main.replaceChildren(
      h("div", { class: "heading" }, h("h1", {}, "Compare"), this.controls),
      h("section", { class: "card" }, this.picker, (this.chosen = h("ul", { class: "legend" })), this.place),
      this.tables,
    );
    this.live = keepAsking(
      () => this.load(),
      () => (this.jobs?.some((job) => !job.done) ? LIVE_PAUSE : QUIET_PAUSE),
      this.fail,
    );
    await this.live.started;
  }

  choose(ids) {
    write({ job: ids });
    this.live.again();
  }

  async load() {
    const ids = this.ids;
    this.jobs = await Promise.all(ids.map((id) => get(`/v1/jobs/${id}`)));
    const query = { job: ids, metric: read("metric"), target: read("target"), points: 2 };
    this.comparison = ids.length > 1 ? await get("/v1/metrics/compare", query) : null;
    await Promise.all(this.jobs.map((job) => this.loadEpochs(job)));
    await this.drawAll();
  }

  // Epochs are final once recorded, but for a job that is trained again: then all are read again.
  async loadEpochs(job) {
    const known = this.epochs.get(job.id);
    const begun = known && known.attempt === job.attempt && known.rows.length <= job.progress.epoch;
    const rows = begun ? known.rows : [];
    if (rows.length < job.progress.epoch) {
      rows.push(
        ...(await everything(`/v1/jobs/${job.id}/epochs`, { limit: 10_000, after: rows.at(-1)?.epoch ?? 0 })),
      );
    }
    this.epochs.set(job.id, { attempt: job.attempt, rows });
  }

  get metric() {
    const asked = read("metric") ?? this.comparison?.metric;
    return asked ?? (this.metrics.includes("validation_loss") ? "validation_loss" : "train_loss");
  }

  get metrics() {
    const names = new Set(["train_loss"]);
    for (const { rows } of this.epochs.values()) {
      for (const [name, value] of Object.entries(rows.at(-1) ?? {}))
        if (/^(train|validation)_/.test(name) && value !== undefined) names.add(name);
    }
    return [...names];
  }

  async drawAll() {
    this.drawControls();
    this.chosen.replaceChildren(...this.jobs.map((job, place) => this.chip(job, place)));
    this.tables = update(
      this.tables,
      h(
        "div",
        {},
        this.comparison
          ? [figures(this.comparison), differences(this.comparison, this.jobs), notes(this.comparison)]
          : prompt(this.jobs.length),
      ),
    );
    if (this.jobs.length) await this.drawChart();
  }

  chip(job, place) {
    const without = this.ids.filter((id) => id !== job.id);
    return h(
      "li",
      {},
      h("i", {
        class: `swatch ${DASHES[Math.floor(place / COLOURS.length)] === "solid" ? "bold" : "dashed"}`,
        style: `--swatch:${COLOURS[place % COLOURS.length]}`,
      }),
      h("a", { href: `/jobs/${job.id}` }, jobName(job)),
      " ",
      statusChip(job),
      h(
        "button",
        {
          class: "plain",
          type: "button",
          "aria-label": `Leave out ${jobName(job)}`,
          onclick: () => this.choose(without),
        },
        "×",
      ),
    );
  }

  drawControls() {
    const select = (name, label, options, value) =>
      h(
        "span",
        { class: "choice" },
        h("label", { for: `compare-${name}` }, label),
        h(
          "select",
          { id: `compare-${name}`, onchange: ({ target }) => this.set(name, target) },
          options.map(([key, text]) => h("option", { value: key, selected: key === value }, text)),
        ),
      );
    const whole = read("to")
      ? h("button", { class: "button small", type: "button", onclick: () => this.look(null) }, "Whole")
      : null;
    const log = h(
      "button",
      {
        class: "button small",
        type: "button",
        "aria-pressed": String(read("scale") === "log"),
        onclick: () => (write({ scale: read("scale") === "log" ? null : "log" }), this.live.again()),
      },
      "Log scale",
    );
    if (this.controls.contains(document.activeElement)) return; // not under the reader's hand
    this.controls.replaceChildren(
      select(
        "x",
        "By",
        Object.entries(AXES).map(([key, text]) => [key, text.toLowerCase()]),
        this.axis,
      ),
      select(
        "metric",
        "Metric",
        this.metrics.map((name) => [name, words(name)]),
        this.metric,
      ),
      log,
      ...(whole ? [whole] : []),
    );
  }

  // Another axis or metric: the part that was looked at says nothing of it.
  set(name, input) {
    write({ [name]: input.value, ...(name === "x" && { from: null, to: null }) });
    input.blur();
    this.live.again();
  }

  // The part of the axis that the reader chose, or all of it.
  look(range) {
    write({ from: range?.[0].toPrecision(6), to: range?.[1].toPrecision(6) });
    this.live.again();
  }

  get range() {
    const [from, to] = [Number(read("from")), Number(read("to"))];
    return to > from ? [from, to] : null;
  }

  get axis() {
    return read("x") in AXES ? read("x") : "epoch";
  }

  async drawChart() {
    const curves = this.jobs.map((job) => this.curve(job));
    const [start, end] = this.range ?? [0, Math.max(1e-3, ...curves.map(({ x }) => x.at(-1) ?? 0))];
    const shape = JSON.stringify([
      this.ids,
      this.axis,
      this.metric,
      read("scale"),
      document.documentElement.dataset.theme,
    ]);
    if (shape !== this.shape) {
      this.shape = shape;
      const lines = this.jobs.map((job, place) => ({
        key: job.id,
        label: jobName(job),
        colour: COLOURS[place % COLOURS.length],
        dash: DASHES[Math.floor(place / COLOURS.length)],
        width: 2.2,
        told: true,
      }));
      const panel = {
        key: "metric",
        title: words(this.metric),
        height: 420,
        log: read("scale") === "log",
        lines,
        at: this.axis,
      };
      const chart = await draw(this.place, [panel], {
        start,
        end,
        xLabel: AXES[this.axis],
        onZoom: (from, to) => this.look([Math.max(0, from), to]),
      });
      this.chart?.remove();
      this.chart = chart;
    }
    this.chart.showRange(start, end);
    this.jobs.forEach((job, place) => this.chart.set("metric", job.id, curves[place].x, curves[place].y));
    this.place.setAttribute(
      "aria-label",
      `${words(this.metric)} of ${this.jobs.map(jobName).join(", ")} by ${this.axis}; the figures are in the table below.`,
    );
    this.place.dataset.points = curves.map(({ x }) => x.length).join(",");
  }

  curve(job) {
    const x = [];
    const y = [];
    let spent = 0;
    for (const row of this.epochs.get(job.id).rows) {
      spent += row.seconds;
      if (typeof row[this.metric] !== "number") continue;
      x.push(
        { epoch: row.epoch, iteration: row.epoch * job.plan.iterations_per_epoch, seconds: spent }[this.axis],
      );
      y.push(row[this.metric]);
    }
    return { x, y };
  }
}

function picker(known, add) {
  const options = known.map((job) => h("option", { value: job.id }, `${jobName(job)} (${job.status})`));
  const input = h(
    "select",
    { id: "picker", onchange: () => (input.value && add(input.value), (input.value = "")) },
    h("option", { value: "" }, "Add a job…"),
    options,
  );
  return h("p", { class: "field" }, h("label", { for: "picker", class: "unseen" }, "Add a job"), input);
}

function prompt(chosen) {
  return h(
    "div",
    { class: "card empty" },
    h("p", {}, chosen === 0 ? "Choose two or more jobs to lay over one another." : "Choose one more job."),
  );
}
