"""Pure ASGI middleware: the database in the scope, opened and closed with the app, and the request's admission."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from headgate.admission import Admission, current_admission
from headgate.closing import close_sessions
from headgate.config import DeadlineOptions, RefusalOptions
from headgate.database import Database
from headgate.disconnects import Message, OpenRequest, Receive, Scope, Send, Sweep
from headgate.errors import ConfigError
from headgate.heap import freeze_heap, thaw_heap
from headgate.problems import RefusalLog, describe_refusal
from headgate.queueing import Rank
from headgate.routes import RouteMemory
from headgate.sessions import AsyncSession, Session
from headgate.threads import worker_threads

App = Callable[[Scope, Receive, Send], Awaitable[None]]

SCOPE_KEY = "headgate"
"""Where the databases of a request are: ``scope["headgate"][name]``; mounted apps inherit it."""

MOST_DIGITS: Final = 10
"""A deadline in a header has fewer, so less than 12 days, or is ignored: a client's number of any length would be a way
to make us fail."""


SESSIONS_KEY = "headgate.sessions"
"""Where the sessions are that nobody else closes at the end of a request; the innermost middleware does."""

ADMISSION_KEY = "headgate.admission"
"""Where a request's admission is for the middlewares of several databases."""


ENDS_OF_LIFE = ("lifespan.startup.failed", "lifespan.shutdown.complete", "lifespan.shutdown.failed")


class DatabaseMiddleware:
    """Makes one ``Database`` known to everything below it, and a request one admission to its gate."""

    def __init__(
        self,
        app: App,
        db: Database,
        check_on_startup: bool,
        freezes_heap: bool,
        refusals: RefusalOptions,
        deadlines: DeadlineOptions,
        log: RefusalLog,
    ) -> None:
        self.app = app
        self.db = db
        self.check_on_startup = check_on_startup
        self.freezes_heap = freezes_heap
        self.refusals = refusals
        self.deadlines = deadlines
        self.routes = RouteMemory()
        self._log = log
        self._sweep: Sweep | None = None
        self._deadline_header = (deadlines.header or "").lower().encode("latin-1")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
            return
        scope[SCOPE_KEY] = {**scope.get(SCOPE_KEY, {}), self.db.name: self.db}
        # A new list, known before anybody copies the scope: what is opened below is closed here.
        scope[SESSIONS_KEY] = sessions = list[Session | AsyncSession]()
        try:
            if scope["type"] == "http":
                await self._answer(scope, receive, send)
            else:
                await self.app(scope, receive, send)
        finally:
            if sessions:
                await close_sessions(sessions)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        gate = self.db.gate
        # Of another database's middleware around this one. Not the context's: a server may start a request that was
        # sent ahead in the context of the one before it.
        outer = scope.get(ADMISSION_KEY)
        scope[ADMISSION_KEY] = admission = outer or Admission(gate.clock(), threads=worker_threads())
        self._set_deadline(admission, scope)
        may_refuse = self.refusals.early and not admission.has_begun
        if may_refuse and gate.is_pressed and self.routes.needs(scope["method"], scope["path"]):
            if await self._refuse_early(send):
                return
            gate.expect(admission)
        request = None
        if outer is None:
            request = self._open(admission, scope, receive, send)
            receive, send = request.receive, request.send
        token = current_admission.set(admission)
        try:
            await self.app(scope, receive, send)
        finally:
            current_admission.reset(token)
            if request is not None:
                request.close()
                admission.answer()  # by the server, if the app has failed
            gate.arrive(admission)
            if "endpoint" in scope:
                asked = gate in admission.asked and admission.rank is not Rank.HIGH
                self.routes.note(scope["method"], scope["path"], scope.get("path_params", {}), asked=asked)

    def _open(self, admission: Admission, scope: Scope, receive: Receive, send: Send) -> OpenRequest:
        loop, sweep = worker_threads().loop, self._sweep
        if sweep is None or sweep.loop is not loop:
            self._sweep = sweep = Sweep(loop, self.db.gate.clock)
        is_given_up = scope["method"] in self.deadlines.stop_when_gone
        return OpenRequest(admission, scope, receive, send, sweep, is_given_up=is_given_up)

    def _set_deadline(self, admission: Admission, scope: Scope) -> None:
        if self.deadlines.seconds is not None:
            admission.shorten(self.deadlines.seconds)
        if self._deadline_header:
            for name, value in scope["headers"]:
                if name == self._deadline_header and value.isdigit() and len(value) < MOST_DIGITS:
                    admission.shorten(int(value) / 1e3)

    async def _refuse_early(self, send: Send) -> bool:
        gate = self.db.gate
        refusal = gate.refuse_early()
        if refusal is None:
            return False
        self._log.say(lambda: gate.refusal(refusal.reason, None))
        problem = describe_refusal(
            self.refusals,
            database=self.db.name,
            reason=refusal.reason,
            retry_after_s=refusal.retry_after_s,
            nothing_executed=True,
        )
        headers = {**problem.headers, "Content-Length": str(len(problem.body))}
        encoded = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": problem.status, "headers": encoded})
        await send({"type": "http.response.body", "body": problem.body})
        return True

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check the database before the app's own lifespan, which may want it, and close it after that."""
        if self.check_on_startup:
            try:
                await self.db.check()
            except ConfigError as error:
                await receive()
                await send({"type": "lifespan.startup.failed", "message": str(error)})
                return

        has_frozen = False

        async def send_and_close(message: Message) -> None:
            nonlocal has_frozen
            if message["type"] == "lifespan.startup.complete" and self.freezes_heap:
                has_frozen = freeze_heap()
            if message["type"] in ENDS_OF_LIFE:
                if has_frozen:
                    thaw_heap()
                await self.db.dispose_async()
            await send(message)

        await self.app(scope, receive, send_and_close)
