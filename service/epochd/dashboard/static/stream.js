// Server-sent events over fetch, which, unlike EventSource, can send an API key. A connection that breaks is taken
// up where it broke, with Last-Event-ID: no message is missed and none comes twice.

import { Problem, askForKey, authorization } from "./api.js";
import { connected, longer, pause } from "./connection.js";

const SILENCE = 40_000; // a heartbeat comes every 15 seconds: after this the connection is dead

// Calls `receive({id, type, data})` for each message until the stream is over (the job is done) or `signal` is
// aborted.
export async function follow(url, after, receive, signal) {
  const state = { last: after };
  let wait = 500;
  while (!signal.aborted) {
    try {
      if (await once(url, state, receive, signal, () => (wait = 500))) return;
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Problem && error.status < 500) throw error;
      connected(false);
    }
    await pause(wait, signal);
    wait = longer(wait);
  }
}

async function once(url, state, receive, signal, onOpen) {
  const gone = new AbortController();
  const stop = () => gone.abort();
  signal.addEventListener("abort", stop);
  let silence = setTimeout(stop, SILENCE);
  try {
    const resume = state.last ? { "Last-Event-ID": state.last } : {};
    const headers = { Accept: "text/event-stream", ...resume, ...authorization() };
    const answer = await fetch(url, { headers, signal: gone.signal, cache: "no-store" });
    if (answer.status === 401) return (await askForKey(), false);
    if (answer.status !== 204 && !answer.ok)
      throw new Problem(answer.status, await answer.json().catch(() => null));
    connected(true);
    onOpen();
    if (answer.status === 204) return true;
    for await (const message of messages(
      answer.body,
      () => (clearTimeout(silence), (silence = setTimeout(stop, SILENCE))),
    )) {
      if (message.type === "error") throw new Error(message.data);
      if (message.type === "stream.interrupted")
        state.last = JSON.parse(message.data).resume_after ?? state.last;
      else await receive(message);
      if (message.id !== null) state.last = message.id;
    }
    return false; // over only when a new connection says so: the end of an answer may be a restart of the service
  } finally {
    clearTimeout(silence);
    signal.removeEventListener("abort", stop);
    gone.abort();
  }
}

// As the HTML standard lays them out (section 9.2.6), with \n as the only line end, which is what the service writes.
async function* messages(body, onBytes) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    onBytes();
    text += value;
    const parts = text.split("\n\n");
    text = parts.pop();
    for (const part of parts) {
      const message = parse(part);
      if (message.data !== null) yield message;
    }
  }
}

function parse(part) {
  const message = { id: null, type: "message", data: null };
  for (const line of part.split("\n")) {
    const [, field, value] = /^([^:]*): ?(.*)$/.exec(line) ?? [];
    if (field === "data") message.data = message.data === null ? value : `${message.data}\n${value}`;
    if (field === "event") message.type = value;
    if (field === "id") message.id = value;
  }
  return message;
}
