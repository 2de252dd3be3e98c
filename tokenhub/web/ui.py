"""The dashboard's page and its files.

The page is one template; scripts and styles are served under a digest of the whole tree, so that
browsers may keep them for ever and a new version has new addresses throughout. No inline script, no
other origin, and nothing that could turn text into HTML: the browser itself enforces it.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from flask import Blueprint, Response, current_app, redirect, render_template
from flask.blueprints import BlueprintSetupState
from werkzeug.wrappers import Response as AnyResponse

from tokenhub import __version__
from tokenhub.errors import NotFound

blueprint = Blueprint("ui", __name__)

STATIC = Path(__file__).parents[2] / "static"
CONTENT_TYPES = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
ASSETS = "tokenhub.assets"

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Assets:
    """The files under `static/`, read once.

    Args:
        root: the directory; only the kinds of file that we serve are read.
    """

    def __init__(self, root: Path) -> None:
        paths = sorted(path for path in root.rglob("*") if path.suffix in CONTENT_TYPES)
        self._files = {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}
        digest = sha256()
        for name, content in self._files.items():
            digest.update(b"%d %s %d " % (len(name), name.encode(), len(content)) + content)
        self.digest = digest.hexdigest()[:16]

    def get(self, digest: str, name: str) -> Response:
        """A file of this version; that of another version is not ours to give.

        Raises:
            NotFound.
        """
        content = self._files.get(name) if digest == self.digest else None
        if content is None:
            raise NotFound("there is no such file")
        response = Response(content, content_type=CONTENT_TYPES[Path(name).suffix])
        response.headers.update(SECURITY_HEADERS)
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        return response


@blueprint.record
def read_assets(state: BlueprintSetupState) -> None:
    """Read them when the app is built: a new version starts new workers."""
    state.app.extensions[ASSETS] = Assets(STATIC)


@blueprint.get("/")
def home() -> AnyResponse:
    """People who type the bare address want the dashboard."""
    return redirect("/admin/")


@blueprint.get("/admin/")
def dashboard() -> Response:
    """The page; it holds no data, so it needs no token."""
    assets: Assets = current_app.extensions[ASSETS]
    html = render_template("admin.html", version=__version__, assets=f"/_assets/{assets.digest}")
    response = Response(html, content_type="text/html; charset=utf-8")
    response.headers.update(SECURITY_HEADERS)
    response.headers["Cache-Control"] = "no-cache"
    return response


@blueprint.get("/_assets/<digest>/<path:name>")
def asset(digest: str, name: str) -> Response:
    """A script, a style or a picture."""
    assets: Assets = current_app.extensions[ASSETS]
    return assets.get(digest, name)
