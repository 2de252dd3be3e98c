// @ts-check
/** Entry: sign in, then keep the panels fresh while somebody is looking. */
import { get, setToken } from "./api.js";
import { health, models, providers, requests } from "./panels/tables.js";
import { vault } from "./panels/vault.js";

const EVERY_MS = 5000;
const PANELS = Object.entries({ vault, health, requests, providers, models });

const byId = (id) => document.getElementById(id);
const [form, input, problem] = ["sign-in", "token", "sign-in-error"].map(byId);
let isSignedIn = false;
let timer = 0;

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  setToken(input.value.trim());
  try {
    byId("host").textContent = (await get("info")).host_id;
  } catch (failure) {
    problem.textContent = failure.message;
    return;
  }
  show(true, "");
  byId("main").focus();
  refresh();
});

// The page's memory is the session: a new page has none.
byId("sign-out").addEventListener("click", () => location.reload());

document.addEventListener("visibilitychange", () => {
  clearTimeout(timer);
  if (isSignedIn && !document.hidden) refresh();
});

function show(signedIn, message) {
  isSignedIn = signedIn;
  input.value = "";
  problem.textContent = message;
  form.hidden = signedIn;
  byId("panels").hidden = byId("sign-out").hidden = !signedIn;
}

async function refresh() {
  const said = await Promise.all(PANELS.map(([name, load]) => update(byId(name), load)));
  const failed = said.find(Boolean);
  const clock = new Date().toLocaleTimeString("en-GB");
  byId("fresh").textContent = failed ? `Stale: ${failed}` : `As of ${clock}`;
  clearTimeout(timer);
  if (isSignedIn && !document.hidden) timer = setTimeout(refresh, EVERY_MS);
}

/** Load one panel; returns what went wrong. It keeps what it had, dimmed; the others go on. */
async function update(root, load) {
  let said = "";
  try {
    await load(root);
  } catch (failure) {
    said = failure.message;
    if (failure.status === 401) show(false, "The token is not valid any more.");
  }
  root.classList.toggle("stale", said !== "");
  return said;
}

show(false, "");
input.focus();
