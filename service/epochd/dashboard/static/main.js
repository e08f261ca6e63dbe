// Chooses the page by the path, and cares for what all pages share: navigation, colours, problems.

import { h } from "./dom.js";

const PAGES = [
  [/^\/$/, "jobs"],
  [/^\/jobs\/([^/]+)$/, "job"],
  [/^\/compare$/, "compare"],
  [/^\/submit$/, "submit"],
  [/^\/datasets$/, "datasets"],
  [/^\/datasets\/([^/]+)$/, "dataset"],
  [/^\/workers$/, "workers"],
];

async function open() {
  const main = document.getElementById("main");
  for (const [pattern, name] of PAGES) {
    const match = pattern.exec(location.pathname);
    if (!match) continue;
    const page = await import(`./pages/${name}.js`);
    await page.show(main, { id: match[1] && decodeURIComponent(match[1]), fail });
    return;
  }
}

function fail(error) {
  console.warn(error);
  const way = error.status === 404 ? h("p", {}, h("a", { href: "/" }, "All jobs")) : null;
  document
    .getElementById("main")
    .replaceChildren(h("div", { class: "card error", role: "alert" }, h("h1", {}, error.message), way));
}

function markCurrent() {
  const section = location.pathname.startsWith("/jobs/") ? "/" : `/${location.pathname.split("/")[1]}`;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.getAttribute("href") === section) link.setAttribute("aria-current", "page");
  }
}

const THEMES = { auto: "Colours: system", light: "Colours: light", dark: "Colours: dark" };

function theme() {
  const chosen = localStorage.getItem("epochd.theme");
  return chosen in THEMES ? chosen : "auto";
}

function applyTheme() {
  const chosen = theme();
  const root = document.documentElement;
  const dark = chosen === "dark" || (chosen === "auto" && matchMedia("(prefers-color-scheme: dark)").matches);
  root.dataset.theme = dark ? "dark" : "light";
  const button = document.getElementById("theme");
  button.setAttribute("aria-label", THEMES[chosen]);
  button.title = THEMES[chosen];
  button.textContent = { auto: "◐", light: "☀", dark: "☾" }[chosen];
  document.dispatchEvent(new Event("themechange"));
}

function nextTheme() {
  const names = Object.keys(THEMES);
  localStorage.setItem("epochd.theme", names[(names.indexOf(theme()) + 1) % names.length]);
  applyTheme();
}

document.getElementById("theme").addEventListener("click", nextTheme);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", applyTheme);
applyTheme();
markCurrent();
open().catch(fail);
