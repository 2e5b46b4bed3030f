"""The composition root: everything the agent consists of is made and joined here."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Callable
from typing import Final

from p2psync import __version__
from p2psync.agent import lock, logs
from p2psync.agent.notify import Notifier
from p2psync.config import model
from p2psync.config.model import Config
from p2psync.config.places import Places
from p2psync.engine import memory
from p2psync.errors import P2PSyncError, UserError

log = logging.getLogger(__name__)

STOP_TIMEOUT_S: Final = 5.0
SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def run(places: Places, *, background: bool, verbose: bool) -> None:
    """Be the agent of this home until it is told to stop.

    Raises:
        UserError: it cannot be started, with what to do.
    """
    memory.settle()
    places.create()
    config = model.load(places.config)
    level = "debug" if verbose else config.log_level
    with lock.held(places.lock):
        if background:
            logs.to_file(places.log, level)
        else:
            logs.to_stderr(level)
        try:
            with asyncio.Runner(loop_factory=_loop_factory()) as runner:
                runner.run(run_agent(places, config))
        except (P2PSyncError, BaseExceptionGroup) as error:
            reason = reason_for(error)
            if background:
                log.error("%s", reason)
            raise reason from error


async def run_agent(places: Places, config: Config) -> None:
    """Build the agent from its parts and run it until a signal or `stop` ends it.

    The home's lock is held. A second signal, or five seconds, end it without ceremony.
    """
    # heavy: not for the commands that only talk to the agent
    from p2psync.agent.api import Api
    from p2psync.control import server
    from p2psync.engine.engine import Engine
    from p2psync.identity.keys import load_or_create
    from p2psync.store.home import Home

    notifier = Notifier(os.environ)
    identity = load_or_create(places.keys)
    home = Home.open(places.database)
    try:
        engine = Engine(identity=identity, home=home, places=places, name=config.name)
        stop = Stop(engine.stop, notifier)
        api = Api(engine, stop)
        with server.listening(places.socket) as listening:
            async with asyncio.TaskGroup() as group:
                running = group.create_task(engine.run())
                await _ready(engine.ready, running)
                memory.freeze()
                others = (
                    group.create_task(server.serve(listening, api.handle)),
                    group.create_task(notifier.stay_alive()),
                )
                notifier.ready()
                _say_hello(places)
                await asyncio.wait((running,))
                for other in others:
                    other.cancel()
        log.info("stopped")
    finally:
        home.close()


async def _ready(ready: asyncio.Event, running: asyncio.Task[None]) -> None:
    """Wait until the engine listens, or has ended instead."""
    waiting = asyncio.create_task(ready.wait())
    await asyncio.wait((waiting, running), return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()


class Stop:
    """Ends the agent: politely when first asked, at once the second time."""

    def __init__(self, stop: Callable[[], None], notifier: Notifier) -> None:
        self._stop = stop
        self._notifier = notifier
        self._asked = False
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN or number == signal.SIGTERM:
                loop.add_signal_handler(number, self._signalled, number)

    def __call__(self) -> None:
        """Let everything finish its step and end; after five seconds end anyway."""
        if self._asked:
            return
        self._asked = True
        self._notifier.stopping()
        # a thread, for it must also end what hangs after the event loop has ended
        deadline = threading.Timer(STOP_TIMEOUT_S, self._at_once, ("it took too long",))
        deadline.daemon = True
        deadline.start()
        self._stop()

    def _signalled(self, number: signal.Signals) -> None:
        if self._asked:
            self._at_once(f"a second signal ({number.name})")
        log.info("stopping: %s", number.name)
        self()

    def _at_once(self, reason: str) -> None:
        log.warning("ending at once: %s", reason)
        logging.shutdown()
        os._exit(1)


def _say_hello(places: Places) -> None:
    log.info("p2psync %s runs for the home %s", __version__, places.home)
    if os.geteuid() == 0:
        log.warning("running as root: files it makes get the owner of their folder")


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def reason_for(error: BaseException) -> BaseException:
    """Return what to tell the user of a failure: our own error, if there is one in it."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    for kind in (UserError, P2PSyncError):
        ours: BaseException | None = error.subgroup(kind)
        while isinstance(ours, BaseExceptionGroup):
            ours = ours.exceptions[0]
        if ours is not None:
            return ours
    return error
