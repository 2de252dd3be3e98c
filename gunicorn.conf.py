"""gunicorn's configuration: workers, limits, and what the arbiter shares with them.

Patching comes first: anything that imports `ssl` or `socket` before it would keep the blocking ones
(and `requests` would recurse for ever).
"""

from gevent import monkey

monkey.patch_all()

import gc  # noqa: E402
import os  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402
from typing import Any  # noqa: E402

from tokenhub import host  # noqa: E402
from tokenhub.config import Settings  # noqa: E402
from tokenhub.errors import ConfigError  # noqa: E402

try:
    settings = Settings.from_env(os.environ)
except ConfigError as error:
    sys.stderr.write(f"tokenhub cannot start: {error}\n")
    sys.exit(1)

bind = str(settings.listen_addr)
workers = host.worker_count(settings)
worker_class = "tokenhub.worker.HubWorker"
http_parser = "python"
worker_connections = 10_000
backlog = 2048
keepalive = 75  # longer than nginx's 60, so that nginx closes first
graceful_timeout = settings.shutdown_drain_secs
timeout = 60
control_socket_disable = True
loglevel = {"warn": "warning"}.get(settings.log_level, settings.log_level)

GARBAGE_OBJECTS = 20_000
"""Objects made and not yet freed before the collector looks for cycles among them."""


def on_starting(server: Any) -> None:
    """Take the data directory, and lay out the shared memory before the first fork."""
    try:
        host.prepared = host.prepare(settings)
    except (ConfigError, OSError) as error:
        sys.stderr.write(f"tokenhub cannot start: {error}\n")
        sys.exit(1)
    shared = host.prepared
    if not _may_start():
        sys.exit(1)

    # None of these is an official hook of gunicorn: the version is pinned, and tests watch them.
    server.handle_hup = shared.board.ask_reload
    server.handle_usr2 = lambda: server.log.warning("USR2 is refused: restart for new code")
    more_workers = server.handle_ttin

    def handle_ttin() -> None:
        if server.num_workers < shared.board.slots:
            more_workers()
        else:
            server.log.warning("TTIN is refused: the board has no more slots")

    server.handle_ttin = handle_ttin

    end = server.stop

    def stop(*args: Any, **kwargs: Any) -> None:
        shared.board.announce_end()
        # Who asks again does not want to wait. gunicorn listens to nothing but these two by now.
        signal.signal(signal.SIGTERM, lambda *_: server.SIG_QUEUE.put_nowait(signal.SIGQUIT))
        end(*args, **kwargs)

    server.stop = stop


def pre_fork(server: Any, worker: Any) -> None:
    """Choose the new worker's slot; the arbiter forks one worker at a time."""
    # From the arbiter's own books: a worker forked a moment ago may not have sat down yet.
    taken = {each.slot for each in server.WORKERS.values()}
    worker.slot = _shared().board.free_slot(taken)
    if worker.slot is None:
        server.log.error("no free slot for a worker")


def post_fork(server: Any, worker: Any) -> None:
    """Sit down in it."""
    if worker.slot is None:
        sys.exit(1)
    _shared().board.sit_down(worker.slot)


def post_worker_init(worker: Any) -> None:
    """The app is loaded: start what runs beside the requests."""
    # What is loaded by now stays. Without this the collector would walk over all of it again and
    # again, in the middle of requests; with it, it may come less often and has little to look at.
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_OBJECTS)
    worker.wsgi.background.start()


def child_exit(server: Any, worker: Any) -> None:
    """A worker is gone, however it went."""
    _shared().board.clear_slot_of(worker.pid)


def _may_start() -> bool:
    """Ask the preflight, in a process of its own; it says by itself what is wrong."""
    command = [sys.executable, "-m", "tokenhub.preflight"]
    pid = os.posix_spawn(sys.executable, command, os.environ)
    # Not gevent's waitpid, nor its subprocess: they would have its loop reap our workers later on.
    _, status = monkey.get_original("os", "waitpid")(pid, 0)
    return status == 0


def _shared() -> host.Host:
    if host.prepared is None:
        raise RuntimeError("forked before on_starting")
    return host.prepared
