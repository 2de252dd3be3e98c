// @ts-check
/** Providers, models, health and the newest requests. */
import { get } from "../api.js";
import { el, put, state, table } from "../dom.js";
import { count, ms, perMillion, time, usd } from "../format.js";

const KINDS = {
  healthy: "ok", degraded: "warn", down: "bad",
  answered: "ok", rescued: "warn", failed: "bad", cut: "bad", interrupted: "bad",
};

const onOff = (row) => (row.enabled ? state("ok", "on") : state("", "off"));
const shown = ({ items, total }) =>
  `${items.length < total ? `${count(items.length)} of ` : ""}${count(total)} in all`;

export async function providers(root) {
  const found = await get("providers");
  const columns = {
    Provider: (p) => p.id + (p.demo ? " (demo)" : ""),
    Type: (p) => p.type,
    "Base URL": (p) => p.base_url,
    "Key from": (p) => p.cred_store,
    State: onOff,
  };
  const empty = "No providers yet. POST /admin/v1/providers adds one.";
  put(root, table(columns, found.items, shown(found), empty));
}

export async function models(root) {
  const found = await get("models");
  const columns = {
    Model: (m) => m.id,
    Provider: (m) => m.provider_id,
    "#Weight": (m) => count(m.weight),
    "#Context": (m) => (m.max_context_tokens ? count(m.max_context_tokens) : "unknown"),
    "#In, per 1M": (m) => perMillion(m.input_per_1k),
    "#Out, per 1M": (m) => perMillion(m.output_per_1k),
    State: onOff,
  };
  const empty = "No models yet. POST /admin/v1/models adds one.";
  put(root, table(columns, found.items, shown(found), empty));
}

export async function health(root) {
  const found = await get("health");
  const columns = {
    Model: (m) => m.model_id,
    State: (m) => state(KINDS[m.state] ?? "",
      m.cooldown_until ? `rests until ${time(m.cooldown_until)}` : m.state),
    "#Attempts": (m) => count(m.total_requests),
    "#Failed": (m) => count(m.total_errors),
    "#Mean": (m) => ms(m.avg_latency_ms),
    "Last error": (m) => (m.last_error ? `${m.last_error}, ${time(m.last_error_time)}` : ""),
  };
  put(root, table(columns, found.models, `As ${found.host} sees it`, "No attempts yet."));
}

export async function requests(root) {
  const found = await get("logs?limit=20");
  const columns = {
    Time: (r) => time(r.timestamp),
    Outcome: (r) => state(KINDS[r.outcome] ?? "", r.outcome),
    Model: (r) => r.model_id || "–",
    Provider: (r) => r.provider_id || "–",
    "#Attempts": (r) => count(r.attempts),
    "#Latency": (r) => ms(r.latency_ms),
    "#Tokens in": (r) => count(r.input_tokens),
    "#Tokens out": (r) => count(r.output_tokens),
    "#Cost": (r) => usd(r.estimated_cost_usd),
    Request: (r) => el("code", {}, r.request_id),
  };
  const empty = "No requests yet. Send one to /v1/chat/completions with an API key.";
  put(root, table(columns, found.logs, "Newest first", empty));
}
