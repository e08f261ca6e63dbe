// Controls from a JSON schema. A control is {element, read}: `read()` gives the value, or undefined where the field
// is left at its default. Errors find their field by its dotted path, which `data-param` holds.

import { h, prose } from "./dom.js";
import { titled, words } from "./format.js";

let controls = 0;

// `definitions` resolves "#/components/schemas/…"; `on` names nullable objects that are there by default.
export class SchemaForm {
  constructor(definitions, { on = [], changed }) {
    this.definitions = definitions;
    this.on = new Set(on);
    this.changed = changed;
  }

  resolve(schema) {
    return schema.$ref
      ? {
          ...this.definitions[schema.$ref.split("/").pop()],
          ...(schema.description && { description: schema.description }),
        }
      : schema;
  }

  // Fields of an object, by name; `given` are the values to begin with. `fixed` names properties that the caller
  // chooses.
  object(schema, path, given = {}, fixed = []) {
    const { properties = {}, required = [] } = this.resolve(schema);
    const fields = Object.entries(properties)
      .filter(([name]) => !fixed.includes(name))
      .map(([name, property]) => [
        name,
        this.field(property, [...path, name], given?.[name], required.includes(name)),
      ]);
    const read = () => {
      const values = fields
        .map(([name, control]) => [name, control.read()])
        .filter(([, value]) => value !== undefined);
      return values.length ? Object.fromEntries(values) : undefined;
    };
    return {
      element: h(
        "div",
        { class: "fields" },
        fields.map(([, control]) => control.element),
      ),
      read,
    };
  }

  field(property, path, given, required = false) {
    const schema = this.resolve(property);
    const options = (schema.anyOf ?? schema.oneOf ?? [schema]).map((option) => this.resolve(option));
    const kinds = options.filter((option) => option.type !== "null");
    const nullable = kinds.length < options.length;
    const about = {
      path,
      given,
      required,
      nullable,
      label: titled(path.at(-1)),
      hint: schema.description ?? kinds[0]?.description,
      fallback: schema.default,
    };
    if (kinds.length > 1 && kinds.every((kind) => kind.properties?.name?.const))
      return this.choice(kinds, about);
    if (kinds.length === 1 && kinds[0].properties)
      return nullable
        ? this.optional(kinds[0], { ...about, hint: kinds[0].description })
        : this.group(kinds[0], about);
    return this.simple(kinds, about);
  }

  // One of several objects, told apart by their constant `name`.
  choice(kinds, about) {
    const names = kinds.map((kind) => kind.properties.name.const);
    const byDefault = /"name": "(\w+)"/.exec(about.hint ?? "")?.[1] ?? names[0];
    const select = h(
      "select",
      { ...this.identity(about), onchange: () => (fill({}), this.changed()) },
      names.map((name) => h("option", { value: name }, words(name))),
    );
    select.value = about.given?.name ?? byDefault;
    const place = h("div");
    const kind = h("div", { class: "field" }, h("label", { for: select.id }, "Kind"), select);
    let inner = null;
    const fill = (given) => {
      inner = this.object(kinds[names.indexOf(select.value)], about.path, given, ["name"]);
      inner.element.prepend(kind);
      place.replaceChildren(inner.element);
    };
    fill(about.given ?? {});
    const read = () => {
      const values = inner.read();
      return values || select.value !== byDefault ? { name: select.value, ...values } : undefined;
    };
    return { element: this.frame(about, place), read };
  }

  group(schema, about) {
    const inner = this.object(schema, about.path, about.given);
    return { element: this.frame(about, inner.element), read: inner.read };
  }

  // An object or null, with a box that says which.
  optional(schema, about) {
    const byDefault = this.on.has(about.path.join("."));
    const box = h("input", {
      type: "checkbox",
      checked: about.given === undefined ? byDefault : about.given !== null,
      id: `field-${(controls += 1)}`,
    });
    const inner = this.object(schema, about.path, about.given ?? {});
    const apply = () => (inner.element.hidden = !box.checked);
    box.addEventListener("change", () => (apply(), this.changed()));
    apply();
    const read = () => {
      if (!box.checked) return byDefault ? null : undefined;
      return inner.read() ?? (byDefault ? undefined : {});
    };
    const legend = h("span", { class: "flag" }, box, h("label", { for: box.id }, about.label));
    return {
      element: h(
        "fieldset",
        { class: "group wide", "data-param": about.path.join(".") },
        h("legend", {}, legend),
        hint(about),
        inner.element,
        h("p", { class: "error" }),
      ),
      read,
    };
  }

  simple(kinds, about) {
    const { input, read } = this.input(kinds, about);
    const label = h("label", { for: input.id, class: about.required ? "required" : null }, about.label);
    const flag = input.type === "checkbox";
    const top = flag ? h("span", { class: "flag" }, input, label) : [label, input];
    return {
      element: h(
        "div",
        { class: "field", "data-param": about.path.join(".") },
        top,
        hint(about, input),
        h("p", { class: "error", id: `${input.id}-error` }),
      ),
      read,
      input,
    };
  }

  input(kinds, about) {
    const types = new Set(kinds.map((kind) => kind.type));
    const given = about.given ?? (types.has("boolean") ? about.fallback : undefined);
    const common = { ...this.identity(about), oninput: this.changed };
    if (kinds.length === 1 && kinds[0].enum) return this.select(kinds[0], given, common, about);
    if (types.has("boolean")) {
      const input = h("input", { ...common, type: "checkbox", checked: Boolean(given) });
      return { input, read: () => (input.checked === Boolean(about.fallback) ? undefined : input.checked) };
    }
    if (types.size === 1 && (types.has("integer") || types.has("number")))
      return this.number(kinds[0], given, common, about);
    return this.text(kinds, types, given, common, about);
  }

  select(kind, given, common, about) {
    const none = about.required
      ? null
      : h(
          "option",
          { value: "" },
          about.fallback === undefined || about.fallback === null
            ? "default"
            : `default: ${words(String(about.fallback))}`,
        );
    const input = h(
      "select",
      common,
      none,
      kind.enum.map((value) => h("option", { value: String(value) }, words(String(value)))),
    );
    input.value = given === undefined || given === null ? input.value : String(given);
    return { input, read: () => kind.enum.find((value) => String(value) === input.value) };
  }

  number(kind, given, common, about) {
    const limits = {
      min: kind.minimum ?? kind.exclusiveMinimum,
      max: kind.maximum ?? kind.exclusiveMaximum,
      step: kind.type === "integer" ? 1 : "any",
    };
    const input = h("input", {
      ...common,
      ...limits,
      type: "number",
      inputmode: "decimal",
      placeholder: shown(about.fallback),
      value: given ?? "",
    });
    return { input, read: () => (input.value === "" ? undefined : Number(input.value)) };
  }

  // Text, lists (separated by commas), and what may be a number or a word; objects are written as JSON.
  text(kinds, types, given, common, about) {
    const list = kinds.length === 1 && types.has("array");
    const json = kinds.some((kind) => kind.type === "object");
    const words_ = kinds.flatMap((kind) => kind.enum ?? kind.items?.enum ?? []);
    const placeholder = shown(about.fallback) || (json ? '{"key": "value"}' : "");
    const input = h("input", {
      ...common,
      type: "text",
      placeholder,
      title: words_.length ? words_.join(", ") : null,
      value: given === undefined || given === null ? "" : shown(given),
    });
    const read = () => {
      const text = input.value.trim();
      if (text === "") return undefined;
      if (list)
        return text
          .split(",")
          .map((part) => (kinds[0].items.type === "string" ? part.trim() : asNumber(part)));
      return json ? asJson(text) : types.has("number") || types.has("integer") ? asNumber(text) : text;
    };
    return { input, read };
  }

  identity(about) {
    controls += 1;
    return {
      id: `field-${controls}`,
      name: about.path.join("."),
      required: about.required,
      "aria-describedby": `field-${controls}-hint field-${controls}-error`,
      spellcheck: "false",
      autocomplete: "off",
    };
  }

  frame(about, ...content) {
    return h(
      "fieldset",
      { class: "group wide", "data-param": about.path.join(".") },
      h("legend", {}, about.label),
      hint(about),
      content,
      h("p", { class: "error" }),
    );
  }
}

function hint({ hint: text }, input) {
  const known = (text ?? "").replace(/By default `\{.*\}`\./s, "").trim();
  return h("small", { class: "hint", id: input ? `${input.id}-hint` : null }, prose(known));
}

function shown(value) {
  if (value === null || value === undefined) return "";
  return Array.isArray(value)
    ? value.join(", ")
    : typeof value === "object"
      ? JSON.stringify(value)
      : String(value);
}

// A number where it is one; what is not goes to the service as it is, which says what would be right.
function asNumber(text) {
  const value = Number(text);
  return text.trim() !== "" && Number.isFinite(value) ? value : text.trim();
}

function asJson(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
