// A form that submits a job: built from the service's own schemas, with the plan and the advice while one types.
// The spec that it stands for is in the address.

import { get, post } from "../api.js";
import { h, prose, title } from "../dom.js";
import { bytes, count, words } from "../format.js";
import { adviceList, planInWords } from "../parts.js";
import { read, write } from "../place.js";
import { SchemaForm } from "../schema_form.js";

const FIRST = ["epochs", "batch_size", "name"];
const MAIN = ["optimizer", "schedule", "validation", "early_stopping"];
const OWN = ["dataset", "model", "webhook"]; // chosen here by name, or not to be chosen
const POWERS = [16, 32, 64, 128, 256];
const PLAN_PAUSE = 250;

export async function show(main, { fail }) {
  title("Submit a job");
  const [document_, models, datasets] = await Promise.all([
    get("/openapi.json"),
    get("/v1/models"),
    get("/v1/datasets", { limit: 200 }),
  ]);
  const page = new SubmitPage(document_.components.schemas, models.data, datasets.data, fail);
  main.replaceChildren(h("div", { class: "heading" }, h("h1", {}, "Submit a job")), page.element);
  page.plan();
}

// A spec in the address that is none is as good as no spec.
function specOfAddress() {
  try {
    const found = JSON.parse(read("spec") ?? "{}");
    return found !== null && typeof found === "object" && !Array.isArray(found) ? found : {};
  } catch {
    return {};
  }
}

class SubmitPage {
  constructor(definitions, models, datasets, fail) {
    this.models = models;
    this.datasets = datasets;
    this.fail = fail;
    this.timer = null;
    this.turn = 0;
    this.key = randomKey();
    const given = specOfAddress();
    this.form = new SchemaForm(definitions, { on: ["validation"], changed: () => this.changed() });
    this.fields = this.specFields(definitions.JobSpec, { epochs: 20, batch_size: 32, ...given });
    this.dataset = this.datasetFields(given.dataset ?? "digits", definitions.SyntheticDataset);
    this.model = this.modelFields(given.model);
    this.build();
  }

  specFields(schema, given) {
    const required = new Set(schema.required);
    return new Map(
      Object.entries(schema.properties)
        .filter(([name]) => !OWN.includes(name))
        .map(([name, property]) => [
          name,
          this.form.field(property, [name], given[name], required.has(name)),
        ]),
    );
  }

  datasetFields(given, synthetic) {
    const name = typeof given === "string" ? given : given?.name;
    const known = this.datasets.filter((one) => one.name !== "synthetic");
    const options = [
      ...known.map((one) => [
        one.name,
        `${one.name}: ${words(one.kind)}, ${words(one.task)}, ${count(one.samples)} samples`,
      ]),
      ["synthetic", "synthetic: made up"],
    ];
    if (name && !options.some(([value]) => value === name)) options.push([name, name]);
    const select = h(
      "select",
      { id: "dataset", name: "dataset", onchange: () => (fill({}), this.changed()) },
      options.map(([value, text]) => h("option", { value }, text)),
    );
    select.value = name;
    const place = h("div", { class: "wide" });
    let inner = null;
    const fill = (values) => {
      inner =
        select.value === "synthetic" ? this.form.object(synthetic, ["dataset"], values, ["name"]) : null;
      place.replaceChildren(...(inner ? [inner.element] : []));
      this.model?.offer();
    };
    fill(typeof given === "object" ? given : {});
    const read_ = () => (inner ? { name: "synthetic", ...inner.read() } : select.value);
    const kind = () =>
      known.find((one) => one.name === select.value) ?? { kind: "table", task: inner?.read()?.task };
    return { field: labelled("dataset", "Data set", select), place, read: read_, about: kind };
  }

  // Models that take this kind of data; what each takes is in its own JSON schema.
  modelFields(given) {
    const select = h("select", { id: "model", name: "model", onchange: () => (fill({}), this.changed()) });
    const place = h("div", { class: "wide" });
    const about = h("small", { class: "hint", id: "model-hint" });
    let inner = null;
    const fill = (values) => {
      const model = this.models.find((one) => one.name === select.value);
      about.replaceChildren(...prose(model?.description ?? "What suits the data set."));
      inner =
        model && Object.keys(model.parameters.properties ?? {}).length
          ? this.form.object(model.parameters, ["model"], values, ["name"])
          : null;
      place.replaceChildren(...(inner ? [inner.element] : []));
    };
    const offer = () => {
      const before = select.value || given?.name || "";
      const { kind, task } = this.dataset.about();
      const fits = this.models.filter(
        (one) => one.kinds.includes(kind) && (!task || one.tasks.includes(task)),
      );
      select.replaceChildren(
        h("option", { value: "" }, "by default"),
        ...fits.map((one) =>
          h("option", { value: one.name }, `${words(one.name)}${one.workers ? "" : " (no worker has it)"}`),
        ),
      );
      select.value = fits.some((one) => one.name === before) ? before : "";
      fill(before === given?.name ? without(given, "name") : {});
    };
    offer();
    const read_ = () => (select.value ? { name: select.value, ...inner?.read() } : undefined);
    return { field: labelled("model", "Model", select, about), place, read: read_, offer };
  }

  build() {
    const part = (names) => names.map((name) => this.fields.get(name).element);
    const others = [...this.fields.keys()].filter((name) => !FIRST.includes(name) && !MAIN.includes(name));
    this.outcome = h("section", {
      class: "card sticky",
      "aria-live": "polite",
      "aria-labelledby": "plan-title",
    });
    this.submit = h("button", { class: "button primary", type: "submit" }, "Submit the job");
    this.element = h(
      "form",
      { class: "form", novalidate: true, onsubmit: (event) => (event.preventDefault(), this.send()) },
      h(
        "div",
        {},
        h(
          "section",
          { class: "card" },
          h("h2", {}, "What to train"),
          h(
            "div",
            { class: "fields pair" },
            this.dataset.field,
            this.model.field,
            this.dataset.place,
            this.model.place,
          ),
        ),
        h(
          "section",
          { class: "card" },
          h("h2", {}, "For how long"),
          h("div", { class: "fields" }, part(FIRST)),
        ),
        h("section", { class: "card" }, h("h2", {}, "How"), h("div", { class: "fields" }, part(MAIN))),
        h(
          "details",
          { class: "card" },
          h("summary", {}, h("h2", {}, "Everything else")),
          h("div", { class: "fields" }, part(others)),
        ),
      ),
      h("div", {}, this.outcome),
    );
    this.addPowers();
  }

  addPowers() {
    const { element, input } = this.fields.get("batch_size");
    const choose = (value) => ((input.value = value), this.changed());
    const button = (value) =>
      h("button", { class: "button small", type: "button", onclick: () => choose(value) }, String(value));
    input.after(
      h(
        "div",
        { class: "powers", role: "group", "aria-label": "Usual batch sizes" },
        [...POWERS, "auto"].map(button),
      ),
    );
  }

  spec() {
    const values = [...this.fields].map(([name, field]) => [name, field.read()]);
    return Object.fromEntries(
      [["dataset", this.dataset.read()], ["model", this.model.read()], ...values].filter(
        ([, value]) => value !== undefined,
      ),
    );
  }

  changed() {
    this.key = randomKey();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      write({ spec: JSON.stringify(this.spec()) });
      this.plan();
    }, PLAN_PAUSE);
  }

  async plan() {
    const turn = (this.turn += 1);
    try {
      const [planned, dataset] = await Promise.all([post("/v1/jobs/plan", this.spec()), this.datasetSize()]);
      if (turn === this.turn) this.showPlan(planned, dataset);
    } catch (error) {
      if (turn === this.turn) this.showErrors(error);
    }
  }

  datasetSize() {
    return this.dataset.about().bytes ?? null;
  }

  showPlan({ spec, plan, advice }, size) {
    this.clearErrors();
    this.submit.disabled = false;
    const stopping = spec.early_stopping
      ? `, stops after ${spec.early_stopping.patience} epochs without a better ${words(spec.early_stopping.monitor ?? "validation_loss")}`
      : "";
    this.outcome.replaceChildren(
      h("h2", { id: "plan-title" }, "Plan"),
      h("p", { id: "plan" }, planInWords(plan)),
      h(
        "p",
        { class: "faint" },
        `${words(spec.model.name)}, ${spec.optimizer.name}, learning rate ${spec.optimizer.learning_rate}${stopping}${size ? `, ${bytes(size)} of data` : ""}`,
      ),
      advice.length
        ? h("div", {}, h("h3", {}, "Advice"), adviceList(advice))
        : h("p", { class: "good" }, "No advice: nothing stands out."),
      h("div", { class: "actions" }, this.submit),
      h("details", {}, h("summary", {}, "The whole spec"), h("pre", {}, JSON.stringify(spec, null, 2))),
    );
  }

  showErrors(error) {
    this.clearErrors();
    this.submit.disabled = true;
    for (const one of error.errors ?? []) this.markField(one);
    const found = error.errors?.length ? null : h("p", { class: "error" }, error.message);
    this.outcome.replaceChildren(
      h("h2", { id: "plan-title" }, "Not yet"),
      found ??
        h(
          "p",
          {},
          `${count(error.errors.length)} ${error.errors.length === 1 ? "field needs" : "fields need"} another value.`,
        ),
      h(
        "ul",
        { class: "advice" },
        (found ? [] : error.errors).map((one) =>
          h("li", {}, h("code", {}, one.param), " ", prose(one.message)),
        ),
      ),
      h("div", { class: "actions" }, this.submit),
    );
  }

  // The innermost field that the dotted path of an error leads to.
  markField({ param, message }) {
    const parts = param.split(/[.[\]]+/).filter(Boolean);
    for (let length = parts.length; length > 0; length -= 1) {
      const field = this.element.querySelector(
        `[data-param="${CSS.escape(parts.slice(0, length).join("."))}"]`,
      );
      if (!field) continue;
      const own = [...field.children].find((child) => child.matches("p.error"));
      own.textContent = message;
      field.querySelector("input, select")?.setAttribute("aria-invalid", "true");
      field.closest("details")?.setAttribute("open", "");
      return;
    }
  }

  clearErrors() {
    for (const place of this.element.querySelectorAll("p.error")) place.textContent = "";
    for (const input of this.element.querySelectorAll("[aria-invalid]"))
      input.removeAttribute("aria-invalid");
  }

  async send() {
    this.submit.disabled = true;
    try {
      const job = await post("/v1/jobs", this.spec(), { "Idempotency-Key": this.key });
      location.assign(`/jobs/${job.id}`);
    } catch (error) {
      this.showErrors(error);
      this.submit.disabled = false;
    }
  }
}

// A form that is sent twice as it is, by impatience or over a bad line, trains once.
function randomKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))]
    .map((one) => one.toString(16).padStart(2, "0"))
    .join("");
}

function labelled(name, text, input, hint = null) {
  return h(
    "div",
    { class: "field", "data-param": name },
    h("label", { for: input.id }, text),
    input,
    hint,
    h("p", { class: "error" }),
  );
}

function without(object, name) {
  return Object.fromEntries(Object.entries(object ?? {}).filter(([key]) => key !== name));
}
