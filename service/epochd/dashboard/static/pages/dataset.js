// One data set: its schema, its first samples, and what was inferred.

import { address, get, request } from "../api.js";
import { h, prose, title } from "../dom.js";
import { bytes, count, moment, number, words } from "../format.js";
import { definitionTable } from "../parts.js";
import { ask } from "../steering.js";

export async function show(main, { id }) {
  title(id);
  const found = await get(`/v1/datasets/${encodeURIComponent(id)}`);
  main.replaceChildren(
    h(
      "div",
      { class: "heading" },
      h("div", {}, h("h1", {}, found.name), h("p", { class: "faint" }, found.description)),
      h(
        "div",
        { class: "actions" },
        found.built_in ? null : removal(found),
        h(
          "a",
          {
            class: "button primary",
            href: address("/submit", { spec: JSON.stringify({ dataset: found.name }) }),
          },
          "Train on it",
        ),
      ),
    ),
    h("div", { class: "columns" }, about(found), classes(found)),
    h("div", {}, notes(found), columns(found), preview(found)),
  );
}

function removal(found) {
  const remove = async () => {
    if (
      !(await ask(
        `Delete ${found.name}?`,
        h("p", {}, "Jobs that were trained on it stay as they are."),
        "Delete the data set",
      ))
    )
      return;
    try {
      await request("DELETE", `/v1/datasets/${found.id}`);
      location.assign("/datasets");
    } catch (error) {
      await ask("That did not work", h("p", {}, error.message), null);
    }
  };
  return h("button", { class: "button", type: "button", onclick: remove }, "Delete…");
}

function about(found) {
  const rows = [
    ["kind", words(found.kind)],
    ["task", words(found.task)],
    ["samples", count(found.samples)],
    ["shape of a sample", found.shape.join(" × ")],
    ["target", found.targets.join(", ")],
    ["size", bytes(found.bytes)],
    [
      "file",
      found.source
        ? `${found.source.file} (${words(found.source.format)}, ${bytes(found.source.bytes)})`
        : "built in",
    ],
    ["since", moment(found.created_at)],
    ["digest", found.digest ? h("code", { title: found.digest }, found.digest.slice(0, 16)) : "–"],
  ];
  return h("section", { class: "card" }, h("h2", {}, "About"), definitionTable(rows));
}

function classes(found) {
  if (!found.classes) return null;
  const most = Math.max(1, ...found.classes.map((one) => one.samples ?? 0));
  const bar = (one) =>
    one.samples === null
      ? null
      : h(
          "div",
          { class: "meter", "aria-hidden": "true" },
          h("span", { style: `width:${((one.samples / most) * 100).toFixed(1)}%` }),
        );
  return h(
    "section",
    { class: "card" },
    h("h2", {}, `${count(found.classes.length)} classes`),
    h(
      "div",
      { class: "scroll" },
      h(
        "table",
        { class: "plain-table classes" },
        h(
          "tbody",
          {},
          found.classes.map((one) =>
            h(
              "tr",
              {},
              h("th", { scope: "row" }, one.name),
              h("td", {}, bar(one)),
              h("td", {}, count(one.samples)),
            ),
          ),
        ),
      ),
    ),
  );
}

function notes(found) {
  return found.notes.length
    ? h(
        "section",
        { class: "card" },
        h("h2", {}, "What was inferred"),
        h(
          "ul",
          { class: "advice" },
          found.notes.map((one) => h("li", {}, prose(one.message))),
        ),
      )
    : null;
}

function columns(found) {
  if (found.columns.length === 0) return null;
  const values = (one) =>
    one.values ? one.values.slice(0, 8).join(", ") + (one.values.length > 8 ? ", …" : "") : "–";
  return h(
    "section",
    { class: "card" },
    h("h2", {}, `${count(found.columns.length)} features`),
    table(
      ["column", "type", "missing", "distinct", "values"],
      found.columns.map((one) => [one.name, one.type, count(one.missing), count(one.distinct), values(one)]),
    ),
  );
}

function preview(found) {
  if (!found.preview?.rows?.length) return null;
  const show = (value) => (typeof value === "number" ? number(value) : value === null ? "–" : String(value));
  return h(
    "section",
    { class: "card" },
    h("h2", {}, "The first samples"),
    table(
      found.preview.columns,
      found.preview.rows.map((row) => row.map(show)),
    ),
  );
}

function table(heads, rows) {
  return h(
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
          heads.map((text) => h("th", { scope: "col" }, text)),
        ),
      ),
      h(
        "tbody",
        {},
        rows.map((row) =>
          h(
            "tr",
            {},
            row.map((value, place) => (place === 0 ? h("th", { scope: "row" }, value) : h("td", {}, value))),
          ),
        ),
      ),
    ),
  );
}
