"""HTTP with the gateway: one call, one answer, and errors that say what to do about them.

Neither a token nor a password that a command was given is ever in an error, whoever wrote it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, urlencode

import click
import requests
import urllib3

from tokenhub.ctl.config import Config
from tokenhub.ctl.show import clean, clean_lines

TIMEOUT_SECS = 30.0
STREAM_IDLE_SECS = 60.0
"""Longer than the gateway's heartbeats are apart."""
PAGE = 1000
"""Most rows of one answer."""
BODY_CHARS_MAX = 2000
SECRET_CHARS_MIN = 4

REMEDIES = {
    "missing_admin_token": "Set TOKENHUB_ADMIN_TOKEN in the environment or in ~/.tokenhub/env.",
    "invalid_admin_token": "Check TOKENHUB_ADMIN_TOKEN; `tokenhubctl doctor` says its source.",
    "too_many_attempts": "Wait, then try once with the right token.",
    "insufficient_role": "Use a token of the role that is named.",
    "vault_locked": "Unlock it: tokenhubctl vault unlock.",
    "revision_mismatch": "Look at it again (--json has its revision), then name that one.",
    "unknown_field": "Leave the field out; a newer gateway may know it.",
    "database_away": "See `tokenhubctl doctor`, and the gateway's log.",
}
BY_STATUS = {
    401: "Check TOKENHUB_ADMIN_TOKEN, or TOKENHUB_API_KEY for requests to models.",
    404: "See the list of what there is; a path that is unknown wants a newer gateway.",
    413: "Send less, or raise TOKENHUB_MAX_BODY_MB.",
    429: "Wait as long as it says, then try again.",
    500: "Report it with the request's id.",
    502: "See the gateway's log, or the proxy's before it.",
    503: "Try again; `tokenhubctl doctor` says what is wrong.",
}
BY_PROXY = {
    413: "Let larger requests through the proxy (nginx: client_max_body_size).",
    502: "Start the gateway, or have the proxy look where it is (nginx: proxy_pass).",
    503: "See the proxy's log: it lets nothing through to the gateway.",
    504: "Have the proxy wait longer (nginx: proxy_read_timeout); see if the gateway hangs.",
}
"""Answers of whoever stands before the gateway, which knows nothing of them."""
OURS = "tokenhub"
"""What the gateway calls itself in `Server`; a proxy may put its own name there."""

_TITLE = re.compile(r"<title>([^<]*)</title>", re.IGNORECASE)

PASSING = frozenset({429, 502, 503, 504})
"""Answers of a gateway that is just starting, or of the proxy before it."""


class Failed(click.ClickException):
    """A command that did not do what it was asked; exit status 1."""

    @property
    def is_passing(self) -> bool:
        """Whether the same call may well be answered a little later."""
        return False


class Unanswered(Failed):
    """No answer, or half of one."""

    @property
    def is_passing(self) -> bool:
        return True


class Refused(Failed):
    """The gateway answered with an error.

    Attributes:
        status: of HTTP.
        code: its stable word, or "".
        body: the JSON, if it was any.
        remedy: what to do about it; "" if nobody knows.
        proxy: who has answered in the gateway's place; "" = nobody.
    """

    remedy = ""
    proxy = ""

    def __init__(self, message: str, *, status: int, code: str, body: Any) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.body = body

    @property
    def is_passing(self) -> bool:
        return self.status in PASSING


class Client:
    """Calls to one gateway.

    Args:
        config: where it is.
        secrets: besides the tokens, what must not be shown.
    """

    def __init__(self, config: Config, secrets: tuple[str, ...] = ()) -> None:
        self.config = config
        self._secrets = [config.admin_token, config.api_key, *secrets]
        self._session = requests.Session()
        # A proxy of the environment cannot reach this machine's gateway.
        self._session.trust_env = not config.is_local

    def close(self) -> None:
        """Let its connections go."""
        self._session.close()

    def keep_secret(self, *values: str) -> None:
        """Never show these, wherever they come back from."""
        self._secrets.extend(values)

    def get(self, path: str, **query: object) -> Any:
        """What the admin API says at a path."""
        return self.ask("GET", path, query=query)

    def get_all(self, path: str, name: str, **query: object) -> dict[str, Any]:
        """A list with all its pages in one."""
        found: dict[str, Any] = self.get(path, limit=PAGE, **query)
        rows = found.get(name) or []
        while rows and len(rows) < (found.get("total") or 0):
            more = self.get(path, limit=PAGE, offset=len(rows), **query).get(name)
            if not more:
                break
            rows += more
        return {**found, name: rows}

    def ask(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        query: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """One call to the admin API; its JSON, or text if it is none.

        Raises:
            Refused: it answered with an error.
            Unanswered: it did not answer.
        """
        sent = {"body": body, "query": query, "headers": headers or {}}
        response = self.send(method, f"/admin/v1/{path}", **sent)
        self.check(response)
        return parse(response)

    def send(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        query: Mapping[str, object] | None = None,
        **options: Any,
    ) -> requests.Response:
        """One call to any path, whatever it answers.

        Args:
            options: `token` instead of the admin token, `headers`, `stream`, `timeout`.

        Raises:
            Unanswered: no answer.
        """
        token = options.pop("token", self.config.admin_token)
        headers = {"Accept": "application/json", **options.pop("headers", {})}
        asked = {name: value for name, value in (query or {}).items() if value not in (None, "")}
        url = f"{self.config.url}{path}" + (f"?{urlencode(asked, doseq=True)}" if asked else "")
        try:
            return self._session.request(
                method, url, json=body, headers=headers, auth=_Bearer(token),
                timeout=options.pop("timeout", TIMEOUT_SECS), allow_redirects=False, **options,
            )  # fmt: skip
        except (requests.RequestException, UnicodeError) as error:
            raise self._unanswered(method, path, error) from None

    @contextmanager
    def streaming(self, method: str, path: str, **options: Any) -> Iterator[requests.Response]:
        """A call whose answer comes bit by bit; a break of it is Unanswered."""
        idle = options.pop("idle_secs", STREAM_IDLE_SECS)
        response = self.send(method, path, stream=True, timeout=(TIMEOUT_SECS, idle), **options)
        try:
            yield response
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise self._unanswered(method, path, error) from None
        finally:
            response.close()

    def check(self, response: requests.Response) -> None:
        """Raises: Refused: it is an error, or leads elsewhere."""
        if response.status_code >= 300:
            raise self._refused(response)

    def redact(self, text: str) -> str:
        """The text without our secrets."""
        for secret in self._secrets:
            if len(secret) >= SECRET_CHARS_MIN:
                text = text.replace(secret, "[secret]").replace(quote(secret, safe=""), "[secret]")
        return text

    def _refused(self, response: requests.Response) -> Refused:
        said = parse(response)
        error = said.get("error") if isinstance(said, dict) else None
        error = error if isinstance(error, dict) else {"message": _words(said) or "no text"}
        status, code = response.status_code, str(error.get("code") or "")
        told = _text_of(error.get("message"))
        facts = [f"code {code}"] if code else []
        facts += [f"field {error['param']}"] if error.get("param") else []
        facts += [f"its revision is {error['revision']}"] if error.get("revision") else []
        request_id = response.headers.get("X-Request-Id", "")
        facts += [f"request {request_id}"] if request_id else []
        wait = response.headers.get("Retry-After", "")
        facts += [f"retry after {wait} s"] if wait else []
        asked = f"{response.request.method} {(response.request.url or '').partition('?')[0]}"
        proxy = proxy_of(response)
        facts += [f"said by {proxy}, not by the gateway"] if proxy else []
        remedy = REMEDIES.get(code) or remedy_of(response)
        lines = [
            f"HTTP {status}: {told}" + (f" ({', '.join(facts)})" if facts else ""),
            f"  asked: {asked}",
        ]
        lines += [f"  to do: {remedy}"] if remedy else []
        text = "\n".join(clean(self.redact(line)) for line in lines)
        refused = Refused(text, status=status, code=code, body=said)
        refused.remedy, refused.proxy = remedy, proxy
        return refused

    def _unanswered(self, method: str, path: str, error: Exception) -> Unanswered:
        """No answer, in our words: what the libraries say repeats addresses and objects."""
        why = "no connection"
        if isinstance(error, requests.exceptions.SSLError):
            why = "its certificate is not trusted, or it speaks no TLS"
        elif isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError):
            why = "no answer in time"
        elif isinstance(error, UnicodeError | ValueError):
            why = "the call cannot be written down: is there a character in a token that is none?"
        elif not isinstance(error, requests.ConnectionError):
            why = "the answer broke off, or is not HTTP"
        text = (
            f"no answer from {self.config.url}: {why}\n  asked: {method} {path}\n"
            "  to do: Is the gateway running, and is TOKENHUB_URL its address?"
        )
        return Unanswered(clean_lines(self.redact(text)))


class _Bearer(requests.auth.AuthBase):
    """Our token and none of ~/.netrc's."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._token:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def parse(response: requests.Response) -> Any:
    """The JSON of an answer, or its text if it is none."""
    try:
        return json.loads(response.content)
    except ValueError:
        return response.content.decode("utf-8", "replace")


def proxy_of(response: requests.Response) -> str:
    """Who else has answered, for the gateway has not: its own answers have its name, or an id."""
    server = response.headers.get("Server", "")
    if server == OURS or "X-Request-Id" in response.headers:
        return ""
    return server or "a proxy"


def remedy_of(response: requests.Response) -> str:
    """What to do about an error whose code says nothing; "" = nobody knows."""
    status = response.status_code
    if 300 <= status < 400:
        return "It leads elsewhere: set TOKENHUB_URL to the gateway's own address."
    by_proxy = BY_PROXY.get(status, "") if proxy_of(response) else ""
    return by_proxy or BY_STATUS.get(status, "")


def segment(text: str) -> str:
    """An id as a part of a path, whatever is in it.

    Raises:
        click.UsageError: nothing can have such an id.
    """
    if text in ("", ".", ".."):
        raise click.UsageError("an id is needed")
    return quote(text, safe="")


def _words(said: Any) -> Any:
    """Of a page, such as proxies' errors are, its title."""
    found = _TITLE.search(said) if isinstance(said, str) else None
    return found[1] if found else said


def _text_of(message: Any) -> str:
    text = message if isinstance(message, str) else json.dumps(message)
    return text.strip()[:BODY_CHARS_MAX]
