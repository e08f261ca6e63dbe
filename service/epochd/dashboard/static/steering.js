// What can be done to a job: buttons, and the calls behind them.

import { Problem, post, request } from "./api.js";
import { announce, h } from "./dom.js";
import { jobName } from "./format.js";

const POSSIBLE = {
  queued: ["pause", "cancel"],
  running: ["pause", "cancel"],
  paused: ["resume", "cancel"],
  succeeded: ["delete"],
  failed: ["retry", "delete"],
  cancelled: ["retry", "delete"],
};

const LABELS = { pause: "Pause", resume: "Resume", cancel: "Cancel…", retry: "Retry", delete: "Delete…" };

// `wanted` chooses from what is possible; `changed(job)` hears of what became of it: null once it is deleted.
export function buttons(job, changed, wanted = Object.keys(LABELS)) {
  const possible = POSSIBLE[job.status].filter((action) => wanted.includes(action));
  const asked = job.cancel_requested_at || (job.pause_requested_at && "pause");
  return possible
    .filter((action) => !(action === "cancel" && job.cancel_requested_at) && !(action === "pause" && asked))
    .map((action) =>
      h(
        "button",
        {
          class: "button small",
          type: "button",
          "data-key": `${job.id} ${action}`,
          "aria-label": `${LABELS[action].replace("…", "")} ${jobName(job)}`,
          onclick: () => carryOut(action, job, changed),
        },
        LABELS[action],
      ),
    );
}

async function carryOut(action, job, changed) {
  const body =
    action === "cancel" ? await askHowToCancel(job) : action === "delete" ? await askToDelete(job) : {};
  if (body === null) return;
  try {
    const path = `/v1/jobs/${job.id}`;
    changed(action === "delete" ? await request("DELETE", path) : await post(`${path}/${action}`, body));
    announce(`${LABELS[action].replace("…", "")}: ${jobName(job)}, asked for.`);
  } catch (error) {
    if (!(error instanceof Problem) && error.name !== "Unreachable") throw error;
    await ask("That did not work", h("p", {}, error.message), null);
  }
}

async function askHowToCancel(job) {
  const choice = h(
    "select",
    { id: "keep" },
    h("option", { value: "best" }, "the best so far"),
    h("option", { value: "last" }, "the newest"),
    h("option", { value: "nothing" }, "none"),
  );
  const content = h("p", { class: "field" }, h("label", { for: "keep" }, "Weights to keep"), choice);
  return (await ask(`Cancel ${jobName(job)}?`, content, "Cancel the job")) ? { keep: choice.value } : null;
}

async function askToDelete(job) {
  const text = h("p", {}, "Its curves, events, checkpoints and artifacts go with it. This cannot be undone.");
  return (await ask(`Delete ${jobName(job)}?`, text, "Delete the job")) ? {} : null;
}

// A dialog; without `yes` there is nothing to answer. Gives whether it was answered with yes.
export function ask(heading, content, yes) {
  const answer = yes && h("button", { class: "button primary", value: "yes" }, yes);
  const dialog = h(
    "dialog",
    { "aria-labelledby": "dialog-title" },
    h(
      "form",
      { method: "dialog" },
      h("h2", { id: "dialog-title" }, heading),
      content,
      h(
        "div",
        { class: "actions" },
        h("button", { class: "button", value: "no" }, yes ? "Leave it" : "Close"),
        answer,
      ),
    ),
  );
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    });
  });
}
