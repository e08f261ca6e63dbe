// The curves of one job: loss, learning rate, gradient norm and throughput over the iterations.

import { colour, draw } from "./charts.js";
import { h } from "./dom.js";
import { count, number, titled, words } from "./format.js";
import { read, write } from "./place.js";

const BANDS = {
  overfitting: "bad",
  diverging: "bad",
  underfitting: "warn",
  plateau: "warn",
  noisy: "warn",
  good_fit: "good",
};

export class Curves {
  constructor(recorded, fail) {
    this.recorded = recorded;
    this.fail = fail;
    this.chart = null;
    this.job = null;
    this.place = h("div", {
      class: "chart",
      id: "curves",
      role: "img",
      "aria-label": "Curves, still loading",
    });
    this.legend = h("ul", { class: "legend", "aria-hidden": "true" });
    this.figure = h(
      "figure",
      { class: "card curves", "aria-labelledby": "curves-title" },
      this.head(),
      this.legend,
      this.place,
    );
    this.pending = false;
    document.addEventListener("themechange", () => this.build().catch(fail));
    recorded.range = rangeOfAddress();
  }

  head() {
    const button = (name, label, act) =>
      h(
        "button",
        {
          class: "button small",
          type: "button",
          "aria-label": label,
          title: label,
          onclick: () => act().catch(this.fail),
        },
        name,
      );
    this.scale = h(
      "button",
      { class: "button small", type: "button", onclick: () => this.toggleScale().catch(this.fail) },
      "Log scale",
    );
    return h(
      "div",
      { class: "chart-head" },
      h("h2", { id: "curves-title" }, "Curves"),
      h(
        "div",
        { class: "zoom", role: "group", "aria-label": "Zoom" },
        button("−", "Zoom out", () => this.zoom(2)),
        button("+", "Zoom in", () => this.zoom(0.5)),
        button("‹", "Earlier", () => this.move(-0.5)),
        button("›", "Later", () => this.move(0.5)),
        button("Whole", "Show the whole series", () => this.look(null)),
        this.scale,
      ),
    );
  }

  // Draws the chart anew: colours, scale or the set of panels have changed.
  async build() {
    if (!this.job) return;
    const log = read("scale") === "log";
    this.scale.setAttribute("aria-pressed", String(log));
    const [start, end] = this.bounds();
    const chart = await draw(this.place, panels(log), {
      start,
      end,
      xLabel: "Iteration",
      onZoom: (from, to) => this.look([Math.max(1, Math.floor(from)), Math.ceil(to)]).catch(this.fail),
    });
    this.chart?.remove();
    this.chart = chart;
    this.fill();
  }

  bounds() {
    const whole = Math.max(this.recorded.last, 1);
    return this.recorded.range ?? [whole > 1 ? 1 : 0, whole];
  }

  async look(range) {
    const clipped = range && [Math.max(1, range[0]), Math.min(range[1], Math.max(this.recorded.last, 2))];
    const all = !clipped || (clipped[0] <= 1 && clipped[1] >= this.recorded.last) || clipped[0] >= clipped[1];
    const wanted = all ? null : clipped;
    write({ from: wanted?.[0], to: wanted?.[1] });
    await this.recorded.look(wanted);
    this.fill();
  }

  zoom(factor) {
    const [start, end] = this.bounds();
    const half = Math.max(2, ((end - start) * factor) / 2);
    const middle = (start + end) / 2;
    return this.look([Math.floor(middle - half), Math.ceil(middle + half)]);
  }

  move(part) {
    const [start, end] = this.bounds();
    const width = end - start;
    const first = Math.min(
      Math.max(1, Math.round(start + width * part)),
      Math.max(1, this.recorded.last - width),
    );
    return this.look([first, first + width]);
  }

  async toggleScale() {
    write({ scale: read("scale") === "log" ? null : "log" });
    await this.build();
  }

  show(job) {
    const first = this.job === null;
    this.job = job;
    if (first) this.build().catch(this.fail);
    else this.later();
  }

  // Draws at the next frame what has come until then.
  later() {
    if (this.pending) return;
    this.pending = true;
    requestAnimationFrame(() => {
      this.pending = false;
      this.fill();
    });
  }

  fill() {
    if (!this.chart) return;
    const { recorded, chart } = this;
    const perEpoch = this.job.plan.iterations_per_epoch;
    const [start, end] = this.bounds();
    chart.showRange(start, end);
    for (const [name, { x, y }] of Object.entries(recorded.iterations))
      chart.set(PANEL_OF[name], name, [...x], [...y]);
    for (const metric of ["train_loss", "validation_loss"]) {
      const curve = recorded.epochs.curve(metric, perEpoch, [start, end]);
      chart.set("loss", `epoch ${metric}`, curve.x, curve.y);
    }
    this.markBest(perEpoch);
    this.markDiagnosis(perEpoch);
    this.tell();
  }

  markBest(perEpoch) {
    const { best } = this.recorded.epochs;
    this.chart.mark(best && best.epoch * perEpoch);
  }

  markDiagnosis(perEpoch) {
    const { verdict, since_epoch: since } = this.job.diagnosis;
    const shown = since !== null && verdict in BANDS;
    const edges = {
      left: Math.max(0, since - 1) * perEpoch,
      right: this.recorded.last,
      fill_color: colour(BANDS[verdict] ?? "warn"),
    };
    this.chart.band(shown ? edges : null);
  }

  // The legend, and the same in a sentence for who cannot see the curves.
  tell() {
    const { verdict, since_epoch: since } = this.job.diagnosis;
    const { epochs } = this.recorded;
    const { best } = epochs;
    const item = (kind, look, text) =>
      h("li", {}, h("i", { class: `swatch ${kind}`, style: `--swatch:${colour(look)}` }), text);
    const metric = epochs.newest("validation_loss") === null ? "train_loss" : "validation_loss";
    this.legend.replaceChildren(
      item("thin", "train", "training loss by iteration"),
      item("bold", "train", "by epoch"),
      ...(metric === "validation_loss" ? [item("bold", "validation", "validation loss by epoch")] : []),
      ...(best ? [item("dashed", "best", `best epoch: ${best.epoch}`)] : []),
      ...(since === null
        ? []
        : [item("band", BANDS[verdict] ?? "warn", `${words(verdict)} since epoch ${since}`)]),
    );
    const [start, end] = this.bounds();
    const told = epochs.rows.length
      ? `${titled(metric)} from ${number(epochs.first(metric))} to ${number(epochs.newest(metric))}.`
      : "No epoch is completed yet.";
    const label = `Curves of iterations ${count(start)} to ${count(end)}. ${told} ${best ? `Best epoch ${best.epoch}.` : ""}`;
    this.place.setAttribute("aria-label", label);
    this.place.dataset.last = this.recorded.last;
    this.place.dataset.range = `${start}-${end}`;
  }
}

const PANEL_OF = {
  train_loss: "loss",
  learning_rate: "rate",
  gradient_norm: "norm",
  samples_per_second: "speed",
};

function panels(log) {
  const small = (key, title, name, format, ticks) => ({
    key,
    title,
    ticks,
    height: 110,
    at: "iteration",
    lines: [
      { key: name, label: words(name), colour: colour("other"), width: 1.2, told: true, number: format },
    ],
  });
  const bold = (key, label, name) => ({
    key,
    label,
    colour: colour(name),
    width: 2.6,
    told: true,
    marker: 4,
  });
  return [
    {
      key: "loss",
      title: "Loss",
      height: 340,
      log,
      at: "iteration",
      lines: [
        { key: "train_loss", label: "training loss", colour: colour("train"), width: 1, alpha: 0.4 },
        bold("epoch train_loss", "training loss of the epoch", "train"),
        bold("epoch validation_loss", "validation loss", "validation"),
      ],
    },
    small("rate", "Learning rate", "learning_rate", "0.0e+0"),
    small("norm", "Gradient norm", "gradient_norm", "0.000"),
    small("speed", "Samples/s", "samples_per_second", "0,0", "0.[0]a"),
  ];
}

function rangeOfAddress() {
  const [from, to] = [Number(read("from")), Number(read("to"))];
  return Number.isInteger(from) && Number.isInteger(to) && from >= 1 && to > from ? [from, to] : null;
}
