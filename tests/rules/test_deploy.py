"""What is shipped for Prometheus and Grafana works, as far as their own tools can say."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.promtool import ROOT, promtool

PROMETHEUS = ROOT / "deploy" / "prometheus"
DASHBOARD = ROOT / "deploy" / "grafana" / "dashboard.json"
ALERTS = re.findall(r"- alert: (\w+)", (PROMETHEUS / "alerts.yaml").read_text())
VARIABLES = {"$__rate_interval": "5m", "$host": ".*"}


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    return found


def expressions() -> Iterator[str]:
    """What the dashboard asks, as Grafana would send it."""
    for panel in panels():
        for target in panel.get("targets", ()):
            text = target["expr"]
            for name, value in VARIABLES.items():
                text = text.replace(name, value)
            yield text


def test_the_alerts_and_the_example_configuration_are_valid():
    status, said = promtool("check", "rules", "--lint-fatal", "alerts.yaml")
    assert status == 0, said
    status, said = promtool("check", "config", "--syntax-only", "prometheus.yml")
    assert status == 0, said


def test_each_alert_fires_and_keeps_quiet_on_recorded_series():
    status, said = promtool("test", "rules", *sorted(PROMETHEUS.glob("tests/*.yaml")))
    assert status == 0, said


def test_there_is_a_series_for_each_alert_on_which_it_fires_and_one_on_which_it_does_not():
    tests = "".join(path.read_text() for path in sorted(PROMETHEUS.glob("tests/*.yaml")))
    blocks = re.split(r"^  - name: ", tests, flags=re.MULTILINE)[1:]
    found = {(re.findall(r"alertname: (\w+)", block)[0], "exp_labels" in block) for block in blocks}
    assert len(ALERTS) == len(set(ALERTS)) > 20
    assert found == {(name, fires) for name in ALERTS for fires in (True, False)}


def test_every_expression_of_the_dashboard_can_be_parsed(tmp_path):
    rules = [
        {"record": f"panel:number_{number}", "expr": text}
        for number, text in enumerate(expressions())
    ]
    assert len(rules) > 20
    path = tmp_path / "panels.yaml"  # JSON is YAML
    path.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    status, said = promtool("check", "rules", path)
    assert status == 0, said
    assert "$" not in "".join(expressions())


def test_the_dashboard_has_panels_of_its_own_place_and_number():
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels()]
    assert len(places) == len(set(places))
    assert [panel["id"] for panel in panels()] == list(range(1, len(places) + 1))


def test_the_provisioning_examples_name_files_that_are_shipped():
    text = (ROOT / "deploy/grafana/provisioning/dashboards/tokenhub.yaml").read_text()
    [path] = re.findall(r"path: (\S+)", text)
    assert Path(path).name == DASHBOARD.name
