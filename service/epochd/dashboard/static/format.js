// Numbers, times and names as people read them.

const DIGITS = new Intl.NumberFormat("en", { maximumSignificantDigits: 4 });
const COUNT = new Intl.NumberFormat("en");

const NOTHING = "–";

export function number(value) {
  if (value === null || value === undefined) return NOTHING;
  const size = Math.abs(value);
  if (value !== 0 && (size < 1e-3 || size >= 1e7)) return value.toExponential(2);
  return DIGITS.format(value);
}

export function count(value) {
  return value === null || value === undefined ? NOTHING : COUNT.format(value);
}

export function rate(value) {
  if (value === null || value === undefined) return NOTHING;
  return value >= 100 ? COUNT.format(Math.round(value)) : number(value);
}

export function bytes(value) {
  if (value === null || value === undefined) return NOTHING;
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  let left = value;
  while (left >= 1000 && unit < units.length - 1) {
    left /= 1000;
    unit += 1;
  }
  return `${unit === 0 ? left : left.toPrecision(3)} ${units[unit]}`;
}

export function seconds(value) {
  if (value === null || value === undefined) return NOTHING;
  if (value < 1) return `${Math.round(value * 1000)} ms`;
  if (value < 60) return `${value.toFixed(value < 10 ? 1 : 0)} s`;
  const minutes = Math.floor(value / 60);
  if (minutes < 60) return `${minutes} min ${Math.round(value % 60)} s`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

export function percent(fraction) {
  return `${Math.floor(fraction * 100)} %`;
}

export function moment(text) {
  if (!text) return NOTHING;
  const day = new Date(text);
  const today = day.toDateString() === new Date().toDateString();
  return today ? day.toLocaleTimeString() : day.toLocaleString();
}

export function words(name) {
  return name.replaceAll("_", " ");
}

// As a heading or the label of a field.
export function titled(name) {
  return name.charAt(0).toUpperCase() + words(name).slice(1);
}

export function datasetOf(spec) {
  return typeof spec.dataset === "string" ? spec.dataset : spec.dataset.name;
}

export function modelOf(spec) {
  return spec.model?.name ?? "model";
}

export function jobName(job) {
  return job.name ?? `${modelOf(job.spec)} on ${datasetOf(job.spec)}`;
}

// The loss that a job is best told by, its newest value.
export function lossOf(job) {
  return job.metrics.validation_loss ?? job.metrics.train_loss ?? null;
}
