// The JSON API: reads and commands. An error is one sentence for the reader.

const TIMEOUT_MS = 5000;
const PREFIX = document.documentElement.dataset.prefix ?? ""; // the path below which a proxy shows the page

export class SessionEnded extends Error {}

async function reply(path, options) {
  let response;
  try {
    const given = options.signal ? [options.signal] : [];
    const signal = AbortSignal.any([AbortSignal.timeout(TIMEOUT_MS), ...given]);
    response = await fetch(path, { cache: "no-store", ...options, signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer.");
  }
  if (response.status === 401) throw new SessionEnded("Your session has ended.");
  if (response.status === 204) return null;
  let body = null;
  try {
    body = await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    if (response.ok) throw new Error("The server's answer broke off.");
  }
  if (response.ok) return body;
  throw new Error(body?.error ?? `The server answers with status ${response.status}.`);
}

/** The path below the prefix, and parameters that are left out where they are empty. */
export function url(path, parameters = {}) {
  const given = Object.entries(parameters).filter(([, value]) => value !== "" && value !== null);
  return PREFIX + (given.length ? `${path}?${new URLSearchParams(given)}` : path);
}

export const read = (path, parameters, signal) => reply(url(path, parameters), signal ? { signal } : {});

export function send(path, body, csrf) {
  return reply(url(path), {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-CSRF-Token": csrf },
    body: JSON.stringify(body),
  });
}
