"""What the doctor reads out of the admin API and the metrics: one function for each check."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import datetime

from tokenhub.config.findings import Finding, Verdict
from tokenhub.ctl.client import Client
from tokenhub.ctl.show import clean

NAMES_MAX = 5
EXPIRY_DAYS = 7
DAY_SECS = 86_400
SERIES_MAX = 20_000
LAG_SECS_MAX = 5.0
NEARLY = 0.9
"""Of a table that is so full it is said before the first label is counted as "other"."""

LAG = "tokenhub_journal_lag_seconds"
DROPPED = "tokenhub_store_dropped_total"
ROWS, ROWS_MAX = "tokenhub_board_rows", "tokenhub_board_rows_limit"

_SAMPLE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{([^\n]*)\})? (\S+)", re.MULTILINE)
_TABLE = re.compile(r'table="(\w+)"')


def vault(asking: Client) -> Finding:
    """Whether providers' keys can be had."""
    info = asking.get("info")
    if not info.get("vault_locked"):
        return Finding("vault", "ok", "open")
    providers = asking.get_all("providers", "items")["items"]
    count = sum(1 for each in providers if each.get("cred_store") == "vault")
    if count:
        text = f"locked, and {count} providers have their keys in it"
        return Finding("vault", "fail", text, "tokenhubctl vault unlock")
    return Finding("vault", "warn", "locked; no provider needs it", "tokenhubctl vault unlock")


def providers(asking: Client) -> Finding:
    """Whether those that are enabled are well."""
    enabled = {
        each["id"] for each in asking.get_all("providers", "items")["items"] if each["enabled"]
    }
    rows = [each for each in asking.get("health")["providers"] if each["provider_id"] in enabled]
    bad = [each["provider_id"] for each in rows if each["state"] in ("down", "degraded")]
    if not rows:
        return Finding("providers", "warn", "none is enabled", "tokenhubctl provider add")
    if bad:
        down = [each for each in rows if each["state"] == "down"]
        verdict: Verdict = "fail" if len(down) == len(rows) else "warn"
        todo = "tokenhubctl provider-status ID"
        return Finding("providers", verdict, f"not well: {_names(bad)}", todo)
    return Finding("providers", "ok", f"{len(rows)} enabled, none is held back")


def prices(asking: Client) -> Finding:
    """Whether the cost of every enabled model is known."""
    models = [each for each in asking.get_all("models", "items")["items"] if each["enabled"]]
    blank = [each["id"] for each in models if None in (each["input_per_1k"], each["output_per_1k"])]
    if blank:
        todo = 'tokenhubctl model edit ID \'{"input_per_1k": …, "output_per_1k": …}\''
        return Finding("prices", "warn", f"no price: {_names(blank)}", todo)
    return Finding("prices", "ok", f"all of {len(models)} models that are enabled have one")


def keys(asking: Client) -> Finding:
    """Whether keys end or must be rotated soon."""
    soon, now = [], time.time()
    for each in asking.get_all("apikeys", "keys")["keys"]:
        ends = [each[name] for name in ("expires_at", "rotation_due_at") if each.get(name)]
        left = [datetime.fromisoformat(end).timestamp() - now for end in ends]
        if each["enabled"] and left and -DAY_SECS < min(left) < EXPIRY_DAYS * DAY_SECS:
            soon.append(each["name"])
    if soon:
        text = f"within {EXPIRY_DAYS} days these end or must be rotated: {_names(soon)}"
        return Finding("keys", "warn", text, "tokenhubctl apikey rotate ID")
    return Finding("keys", "ok", f"none ends within {EXPIRY_DAYS} days")


def hosts(asking: Client) -> Finding:
    """Whether all hosts live, and are of one version."""
    rows = asking.get_all("hosts", "hosts")["hosts"]
    live = [each for each in rows if each["is_live"]]
    versions = {each["version"] for each in live}
    silent = [each["name"] for each in rows if not each["is_live"] and not each["ended_at"]]
    if len(versions) > 1:
        text = f"live hosts are of several versions: {_names(sorted(versions))}"
        return Finding("hosts", "warn", text, "finish the update")
    if silent:
        text = f"gone without a word: {_names(silent)}"
        return Finding("hosts", "warn", text, "start them, or tokenhubctl budgets release HOST")
    return Finding("hosts", "ok", f"{len(live)} live")


def metrics(asking: Client) -> Finding:
    """Whether the journal is read as it is written, and Prometheus can carry what there is."""
    response = asking.send("GET", "/metrics", headers={"Accept": "text/plain"})
    asking.check(response)
    samples = _SAMPLE.findall(response.text)
    values: dict[str, dict[str, float]] = {}
    for name, labels, value in samples:
        values.setdefault(name, {})[labels] = float(value)
    missing = [each for each in (LAG, DROPPED, ROWS, ROWS_MAX) if each not in values]
    if missing:
        text = f"/metrics does not have {_names(missing)}"
        return Finding("metrics", "warn", text, "set TOKENHUB_URL to the gateway's own address")
    return _journal(values) or _cardinality(values, len(samples))


def _journal(values: dict[str, dict[str, float]]) -> Finding | None:
    dropped, lag_secs = sum(values[DROPPED].values()), max(values[LAG].values())
    if dropped:
        return Finding("metrics", "fail", f"{dropped:g} rows were dropped", "see the gateway's log")
    if lag_secs > LAG_SECS_MAX:
        text = f"the journal is {lag_secs:.0f} s behind"
        return Finding("metrics", "warn", text, "see whether the database keeps up")
    return None


def _cardinality(values: dict[str, dict[str, float]], count: int) -> Finding:
    most = values[ROWS_MAX]
    full = [
        found.group(1)
        for labels, rows in values[ROWS].items()
        if rows >= NEARLY * most.get(labels, float("inf")) and (found := _TABLE.search(labels))
    ]
    if full:
        text = f"nearly full, after which labels are counted as `other`: {_names(full)}"
        return Finding("metrics", "warn", text, "have fewer models, or restart after deleting some")
    if count > SERIES_MAX:
        name = max(values, key=lambda each: len(values[each]))
        text = f"{count} series, {len(values[name])} of them of {clean(name)}"
        return Finding("metrics", "warn", text, "scrape less often, or drop that one")
    lag_secs = max(values[LAG].values())
    told = f"{count} series, none dropped, the journal is {lag_secs:.1f} s behind"
    return Finding("metrics", "ok", told)


def _names(found: list[str]) -> str:
    shown = ", ".join(map(clean, found[:NAMES_MAX]))
    more = len(found) - NAMES_MAX
    return f"{shown} and {more} more" if more > 0 else shown


CHECKS: tuple[Callable[[Client], Finding], ...] = (vault, providers, prices, keys, hosts, metrics)
