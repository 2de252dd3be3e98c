// @ts-check
/** The admin API. The token lives in this module's memory and nowhere else. */

let token = "";

/** What the server refused, or that it could not be reached (status 0). */
export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export const setToken = (value) => void (token = value);

/** @param {string} path below /admin/v1/ */
export const get = (path) => send("GET", path);
export const post = (path, body) => send("POST", path, JSON.stringify(body));

async function send(method, path, body) {
  const headers = { Authorization: `Bearer ${token}`, "Content-Type": "application/json" };
  const options = { method, headers, body, credentials: "omit", cache: "no-store" };
  let response, found;
  try {
    response = await fetch(`/admin/v1/${path}`, { ...options, signal: AbortSignal.timeout(10_000) });
    found = await response.json();
  } catch {
    throw new ApiError(0, "The gateway does not answer.");
  }
  if (!response.ok) throw new ApiError(response.status, found?.error?.message ?? "It was refused.");
  return found;
}
