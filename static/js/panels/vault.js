// @ts-check
/** The vault: is it open, and the way to change that. */
import { get, post } from "../api.js";
import { el, state } from "../dom.js";

export async function vault(root) {
  const info = await get("info");
  const now = !info.vault_locked ? "open" : info.vault_initialized === false ? "new" : "locked";
  if (root.dataset.state === now) return; // a half-typed password stays
  root.dataset.state = now;
  root.replaceChildren(now === "open" ? opened(root) : closed(root, now === "new"));
}

function opened(root) {
  return el("form", { onsubmit: (event) => change(event, root, "vault/lock", () => ({})) },
    el("p", {}, state("ok", "Open"), ". Provider keys can be used and changed."),
    el("p", { class: "error", role: "alert" }),
    el("button", { type: "submit" }, "Lock"));
}

function closed(root, isNew) {
  const word = isNew ? state("", "Not set up") : state("warn", "Locked");
  const text = isNew
    ? ". Choose its password; nobody can recover it."
    : ". Providers whose key is in it cannot be used.";
  const password = el("input", {
    id: "vault-password", type: "password", required: "", minlength: 8, autocomplete: "off",
  });
  const body = () => ({ admin_password: password.value });
  return el("form", { onsubmit: (event) => change(event, root, "vault/unlock", body) },
    el("p", {}, word, text),
    el("label", { for: password.id }, "Vault password, at least 8 bytes"), password,
    el("p", { class: "error", role: "alert" }),
    el("button", { type: "submit", class: "primary" }, isNew ? "Set up" : "Unlock"));
}

async function change(event, root, path, body) {
  event.preventDefault();
  const button = root.querySelector("button");
  button.setAttribute("aria-busy", "true");
  try {
    await post(path, body());
    await vault(root);
    root.querySelector("input, button").focus();
  } catch (failure) {
    root.querySelector(".error").textContent = failure.message;
  } finally {
    button.removeAttribute("aria-busy");
  }
}
