// What can be trained on, and a form that brings more.

import { Problem, askForKey, authorization, everything } from "../api.js";
import { announce, h, title } from "../dom.js";
import { bytes, count, moment, words } from "../format.js";

const TASKS = ["classification", "regression"];

export async function show(main) {
  title("Data sets");
  const found = await everything("/v1/datasets", { limit: 200 });
  main.replaceChildren(
    h("div", { class: "heading" }, h("h1", {}, "Data sets")),
    h("div", { class: "form" }, list(found), upload()),
  );
}

function list(found) {
  const heads = ["Name", "Kind", "Task", "Samples", "Shape", "Size"];
  return h(
    "section",
    { class: "card scroll" },
    h(
      "table",
      { class: "figures", id: "datasets" },
      h("caption", { class: "unseen" }, "Data sets, newest first"),
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          heads.map((text) => h("th", { scope: "col" }, text)),
        ),
      ),
      h(
        "tbody",
        {},
        found.map((one) => row(one)),
      ),
    ),
  );
}

function row(one) {
  return h(
    "tr",
    {},
    h(
      "th",
      { scope: "row" },
      h("a", { href: `/datasets/${encodeURIComponent(one.name)}` }, one.name),
      h("small", {}, one.built_in ? " built in" : ` ${moment(one.created_at)}`),
    ),
    [words(one.kind), words(one.task), count(one.samples), one.shape.join(" × "), bytes(one.bytes)].map(
      (value) => h("td", {}, value),
    ),
  );
}

function upload() {
  const field = (name, label, input, note) =>
    h(
      "div",
      { class: "field", "data-param": name },
      h("label", { for: input.id }, label),
      input,
      note ? h("small", { class: "hint" }, note) : null,
    );
  const file = h("input", {
    type: "file",
    id: "upload-file",
    required: true,
    accept: ".csv,.tsv,.gz,.parquet,.arrow,.feather,.npz,.safetensors,.zip,.jsonl",
  });
  const name = h("input", { type: "text", id: "upload-name", maxlength: 200, autocomplete: "off" });
  const target = h("input", { type: "text", id: "upload-target", autocomplete: "off" });
  const task = h(
    "select",
    { id: "upload-task" },
    h("option", { value: "" }, "what the target looks like"),
    TASKS.map((one) => h("option", {}, one)),
  );
  const bar = h("progress", { max: 1, value: 0, hidden: true, "aria-label": "Upload" });
  const told = h("p", { role: "status" });
  const button = h("button", { class: "button primary", type: "submit" }, "Upload");
  const send = async (event) => {
    event.preventDefault();
    const form = new FormData();
    for (const [key, input] of [
      ["name", name],
      ["target", target],
      ["task", task],
    ])
      if (input.value) form.append(key, input.value);
    form.append("file", file.files[0]);
    button.disabled = true;
    await carryOut(form, bar, told);
    button.disabled = false;
  };
  return h(
    "form",
    { class: "card sticky", onsubmit: send, "aria-labelledby": "upload-title" },
    h("h2", { id: "upload-title" }, "Bring one"),
    h(
      "div",
      { class: "fields" },
      field(
        "file",
        "File",
        file,
        "CSV, Parquet, Arrow, NPZ, safetensors, JSON Lines of texts, or a ZIP of images in a folder a class.",
      ),
      field("name", "Name", name, "By default the file's."),
      field("target", "Target column", target, "By default target, label, class or y, else the last."),
      field("task", "Task", task),
    ),
    h("div", { class: "actions" }, button),
    bar,
    told,
  );
}

async function carryOut(form, bar, told) {
  const say = (text, look = "") => {
    told.className = look;
    told.replaceChildren(text);
  };
  try {
    bar.hidden = false;
    const made = await post(form, (sent, total) => {
      bar.value = sent / total;
      say(sent < total ? `${bytes(sent)} of ${bytes(total)}` : "Sent; being checked…");
    });
    announce(`Data set ${made.name} is there.`);
    location.assign(`/datasets/${encodeURIComponent(made.name)}`);
  } catch (error) {
    bar.hidden = true;
    const places = (error.errors ?? []).map((one) => `${one.param}: ${one.message}`);
    say(places.length ? places.join("; ") : error.message, "error");
  }
}

// XMLHttpRequest, because fetch does not tell how much of a body is sent.
function post(form, progress) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", "/v1/datasets");
    for (const [name, value] of Object.entries(authorization())) request.setRequestHeader(name, value);
    request.responseType = "json";
    request.upload.addEventListener("progress", (event) => progress(event.loaded, event.total));
    request.addEventListener("error", () =>
      reject(new Error("The connection broke off; nothing was kept. Try again.")),
    );
    request.addEventListener("load", () => {
      if (request.status === 401) askForKey().then(() => resolve(post(form, progress)), reject);
      else if (request.status >= 400) reject(new Problem(request.status, request.response));
      else resolve(request.response);
    });
    request.send(form);
  });
}
