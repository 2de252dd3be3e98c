"""What is measured: the bare proxy and TokenHub, each started and made ready.

TokenHub is set up as an operator would: migrations, gunicorn, and the admin API over HTTP.
Measuring is not known here.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.database import Database
from benchmarks.processes import BenchmarkFailed, Launcher, Process, ask, free_port
from benchmarks.wire import CHAT_PATH, chat_body
from tokenhub.config import Settings

_CONNECTIONS_MAX = "4000"
_PASSED_THROUGH = "bench-model-1"
TRANSLATED_MODEL = "bench-claude"
"""At a provider of Anthropic's dialect; whoever asks for it needs a translation."""
MODELS_MIN = 2


@dataclass(frozen=True)
class Target:
    """A gateway that is ready for requests; its whole process tree is charged."""

    name: str
    pid: int
    port: int
    key: str
    model: str
    count_rows: Callable[[], int] | None = None  # rows of the request log; None keeps no log
    database_pid: int | None = None
    further_models: tuple[str, ...] = ()  # that it serves besides `model`


@dataclass(frozen=True)
class Setup:
    """What TokenHub is started with; of `models`, at least two, one is TRANSLATED_MODEL."""

    workers: int
    models: int
    database: Database


def start_mock(launcher: Launcher) -> Target:
    """The provider; as a target it shows what driver and mock reach by themselves."""
    process = launcher.start("mock", ["benchmarks.mock"], piped=True)
    assert process.popen.stdout is not None
    line = process.popen.stdout.readline()
    if not line:
        raise BenchmarkFailed(f"mock is not ready\n{process.log_tail()}")
    port = int(line)
    return Target("mock", process.pid, port, "upstream", _PASSED_THROUGH)


def start_bare(launcher: Launcher, mock: Target, workers: int, name: str = "bare") -> Target:
    """The bare proxy, with gunicorn's own Python parser as TokenHub has it."""
    port, key = free_port(), secrets.token_urlsafe(24)
    config = launcher.directory / f"{name}.conf.py"
    config.touch()  # an empty one, else gunicorn takes TokenHub's from the working directory
    process = launcher.start(
        name,
        [
            *("gunicorn", "--config", str(config)),
            *("--worker-class", "gevent", "--workers", str(workers), "--http-parser", "python"),
            *("--worker-connections", _CONNECTIONS_MAX, "--keep-alive", "5"),
            *("--bind", f"127.0.0.1:{port}", "--log-level", "warning", "--no-control-socket"),
            f"benchmarks.bare:create_app({mock.port}, '{key}')",
        ],
    )
    return _ready(process, Target(name, process.pid, port, key, _PASSED_THROUGH))


def start_tokenhub(launcher: Launcher, mock: Target, setup: Setup) -> tuple[Target, Settings]:
    """TokenHub with two providers whose keys are in the vault, `setup.models` models, one API key.

    Raises:
        BenchmarkFailed: migrations, start or admin API did not do as they should.
    """
    port, token = free_port(), secrets.token_urlsafe(24)
    data = launcher.directory / "data"
    data.mkdir(mode=0o700)
    environment = {
        "TOKENHUB_DATA_DIR": str(data),
        "TOKENHUB_LISTEN_ADDR": f"127.0.0.1:{port}",
        "TOKENHUB_WORKERS": str(setup.workers),
        "TOKENHUB_DB_DSN": setup.database.dsn,
        "TOKENHUB_ADMIN_TOKEN": token,
        "TOKENHUB_VAULT_PASSWORD": secrets.token_urlsafe(24),
        "TOKENHUB_RATE_LIMIT_RPS": "0",  # all of the load comes from one address
        "TOKENHUB_ADMIN_RATE_LIMIT_RPS": "0",
    }
    launcher.run("alembic upgrade head", ["alembic", "upgrade", "head"], environment)
    process = launcher.start(
        "tokenhub", ["gunicorn", "-c", "gunicorn.conf.py", "app:app"], environment
    )
    process.wait_for(port, "/healthz")
    key = _configure(port, token, mock, setup.models)
    target = Target(
        name="tokenhub",
        pid=process.pid,
        port=port,
        key=key,
        model=_PASSED_THROUGH,
        count_rows=setup.database.count_rows,
        database_pid=setup.database.server_pid,
        further_models=(TRANSLATED_MODEL,),
    )
    return _ready(process, target), Settings.from_env(environment)


def _configure(port: int, token: str, mock: Target, models: int) -> str:
    """Providers, models and API key through the admin API; gives the key."""

    def create(what: str, **fields: object) -> dict[str, str]:
        reply = ask(port, f"/admin/v1/{what}", fields, token)
        if reply.status != 200:
            raise BenchmarkFailed(f"POST {what} answered {reply.status}: {reply.body[:300]!r}")
        answer: dict[str, str] = reply.json()
        return answer

    base_url = f"http://127.0.0.1:{mock.port}"
    providers = {"bench": "openai", "bench-anthropic": "anthropic"}
    for provider, dialect in providers.items():
        create("providers", id=provider, type=dialect, base_url=base_url, api_key="upstream-key")
    passed_through = [f"bench-model-{number}" for number in range(1, models)]
    for number, model in enumerate([*passed_through, TRANSLATED_MODEL], start=1):
        create(
            "models",
            id=model,
            provider_id="bench-anthropic" if model == TRANSLATED_MODEL else "bench",
            capabilities=["chat"],
            weight=5,
            max_context_tokens=128_000,
            # Different prices, so that ranking has something to do.
            input_per_1k=0.0005 * number,
            output_per_1k=0.0015 * number,
            enabled=True,
        )
    return create("apikeys", name="bench")["key"]


def _ready(process: Process, target: Target) -> Target:
    """Once it answers a chat through to the mock, with each of its models."""
    for model in (target.model, *target.further_models):
        process.wait_for(target.port, CHAT_PATH, chat_body(model, stream=False), target.key)
    return target
