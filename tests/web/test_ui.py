"""The dashboard's page: no inline script, no other origin, nothing that turns text into HTML."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tokenhub.web.ui import STATIC, Assets

SCRIPTS = sorted(STATIC.rglob("*.js"))
FORMATS = """
import { count, ms, perMillion, time, usd } from "./format.mjs";
const now = new Date(2026, 10, 23, 18, 30, 0);
console.log(JSON.stringify([
  usd(null), usd(0), usd(41.871), usd(0.0015), usd(0.0142), usd(0.000000004), usd(1),
  perMillion(null), perMillion(0), perMillion(0.0025), perMillion(0.00015),
  ms(null), ms(0), ms(483.4), ms(2411), ms(12400), count(null), count(0), count(137520),
  time(null, now), time(now.toISOString(), now),
  time(new Date(2026, 9, 3, 7, 5, 9).toISOString(), now),
]));
"""


def test_the_bare_address_leads_to_the_dashboard(client):
    response = client.get("/")
    assert (response.status_code, response.headers["Location"]) == (302, "/admin/")


@pytest.mark.parametrize("path", ["/admin", "/admin/"])
def test_the_page_is_never_served_stale_and_allows_only_its_own_files(client, path):
    response = client.get(path)
    assert response.status_code == 200
    assert response.content_type == "text/html; charset=utf-8"
    assert response.headers["Cache-Control"] == "no-cache"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    policy = dict(
        part.strip().partition(" ")[::2]
        for part in response.headers["Content-Security-Policy"].split(";")
    )
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "connect-src": "'self'",
        "img-src": "'self'",
        "frame-ancestors": "'none'",
        "base-uri": "'none'",
        "form-action": "'self'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }


def test_the_page_has_nothing_inline_and_nothing_from_elsewhere(client):
    page = client.get("/admin/").text
    assert re.findall(r"<script(?![^>]* src=)", page) == []
    assert re.findall(r"<style|\son\w+=|\sstyle=|javascript:", page) == []
    assert re.findall(r"(?:https?:)?//[\w.]+", page) == []


def test_every_file_that_is_asked_for_exists_and_may_be_kept(client):
    page = client.get("/admin/").text
    addresses = re.findall(r'(?:src|href)="(/_assets/[^"]+)"', page)
    assert len(addresses) >= 4
    prefix = re.match(r"/_assets/[0-9a-f]{16}/", addresses[0])
    assert prefix is not None
    addresses += [f"{prefix[0]}{path.relative_to(STATIC).as_posix()}" for path in SCRIPTS]
    kinds = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
    for address in addresses:
        response = client.get(address)
        assert response.status_code == 200, address
        assert response.content_type.startswith(kinds[address.rpartition(".")[2]])
        assert response.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        assert response.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    "path",
    ["0000000000000000/js/main.js", "{digest}/js/none.js", "{digest}/../../etc/passwd",
     "{digest}/%2e%2e/templates/admin.html", "{digest}//etc/passwd", "{digest}/js"],
)  # fmt: skip
def test_nothing_else_is_served(client, app, path):
    digest = app.extensions["tokenhub.assets"].digest
    response = client.get("/_assets/" + path.format(digest=digest))
    assert response.status_code in (404, 308)
    assert "immutable" not in response.headers.get("Cache-Control", "")


def test_the_digest_changes_with_any_file(tmp_path):
    (tmp_path / "a.js").write_text("1")
    first = Assets(tmp_path).digest
    (tmp_path / "a.js").write_text("2")
    second = Assets(tmp_path).digest
    (tmp_path / "a.js").rename(tmp_path / "b.js")
    assert len({first, second, Assets(tmp_path).digest}) == 3


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.relative_to(STATIC).as_posix())
def test_scripts_make_no_html_keep_nothing_and_import_what_exists(path: Path):
    source = path.read_text()
    banned = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|Storage|cookie\b|https?:"
    )
    assert re.findall(banned, source) == []
    for name in re.findall(r'from "([^"]+)"', source):
        assert (path.parent / name).is_file(), name
    if path.name != "dom.js":
        assert "createElement" not in source
    if path.name != "api.js":
        assert "fetch(" not in source


def test_values_are_shown_as_people_read_them(tmp_path):
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    shutil.copy(STATIC / "js/format.js", tmp_path / "format.mjs")
    (tmp_path / "run.mjs").write_text(FORMATS)
    done = subprocess.run([node, "run.mjs"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        '["unknown","$0","$41.87","$0.0015","$0.0142","<$0.000001","$1.00",'
        '"unknown","$0","$2.50","$0.15",'
        '"–","0 ms","483 ms","2.41 s","12.4 s","–","0","137,520",'
        '"never","18:30:00","3 Oct 07:05:09"]\n'
    )
