"""Lending: how the physical connections of one pool come to virtual ones and back, with the gate's permits.

A lease has one owner at a time: its holder, while a statement runs or a transaction is open; the gate, while it is
warm; whoever the gate has given it to, once it was revoked.
"""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING, Any, cast

from headgate.admission import ORDINARY, UNDER_WAY, current_admission
from headgate.checkouts import check_in_plainly, check_out, is_plain, may_be_passed_on
from headgate.config import Hook, LeaseOptions
from headgate.drivers import Driver
from headgate.errors import LeaseError
from headgate.gate import Gate
from headgate.guard import GUARD_TOUCHED, raise_guard_again
from headgate.lent import Lease, Surface
from headgate.pins import PinWatch
from headgate.queueing import Kind
from headgate.standing import STANDING, ask_standing
from headgate.statements import StatementProof
from headgate.waiters import RESERVED

if TYPE_CHECKING:
    from headgate.pool import _Leasing

log = logging.getLogger("headgate.pool")

PING_AFTER_IDLE_NS = 1_000_000_000
"""With ``pool_pre_ping``, a connection that was idle for less is not pinged again: leases come once a statement."""


class Lender:
    """Lends the connections of one pool."""

    def __init__(self, pool: _Leasing, gate: Gate, driver: Driver, kind: Kind, options: LeaseOptions) -> None:
        self.pool = pool
        self.gate = gate
        self.driver = driver
        self.kind: Kind = kind
        self.options = options
        self.proof = StatementProof(driver.family, read_functions=options.read_functions)
        self.pins = PinWatch(gate.name, options.on_pin)
        self.surface: Surface | None = None
        self.is_closing = False
        """Another pool has taken over; what comes back is closed."""
        self._leases: dict[int, Lease] = {}
        self._has_told: set[str] = set()

    # acquire

    def acquire(self, *, is_under_way: bool) -> Lease:
        """A permit from the gate and a live physical connection.

        :param is_under_way: whoever asks has held a connection before, and is not turned away for newcomers.
        :raises Overloaded: the gate refused.
        """
        admission = current_admission.get()
        if admission is None:
            grant = self.pool.wait_for_permit(UNDER_WAY if is_under_way else ORDINARY)
        else:
            if admission.ended is not None:
                raise self.gate.refusal(admission.ended, admission)
            grant = self.pool.wait_for_permit(admission.ask(self.gate, is_under_way=is_under_way))
            admission.admit(self.gate)
        try:
            lease = self._take_over(grant) if isinstance(grant, Lease) else self._lend()
        except BaseException:
            self.gate.release(kind=self.kind, is_reserved=grant is RESERVED)
            raise
        lease.is_reserved = grant is RESERVED
        if self.options.on_acquire is not None:
            self._prepare(self.options.on_acquire, lease)
        return lease

    def _lend(self) -> Lease:
        for _ in range(self.gate.connections + 2):  # all that were idle, one made with the guard and one without
            lease = self._check_out()
            if lease is not None:
                self._leases[id(lease)] = lease
                return lease
        raise LeaseError(f"database {self.gate.name!r} closes every connection as soon as it is opened")

    def _check_out(self) -> Lease | None:
        """A connection of the pool, or None.

        None if the server had closed it while it was idle (a restart, a timeout), or it must be made without the guard.
        """
        record, fairy = check_out(self.pool)
        lease = Lease(self, record, fairy, self.gate.clock())
        try:
            standing = record.info.get(STANDING) or ask_standing(lease)
            if standing is not None:
                lease.standing, lease.guarded = standing, standing.guarded
            if standing is None or self._has_ended(lease):
                self._end(lease, None)
                return None
            if GUARD_TOUCHED in record.info:
                raise_guard_again(lease)
        except BaseException as error:
            self._end(lease, error)
            raise
        return lease

    def tell_once(self, fact: str) -> None:
        """Log one INFO line, the first time only."""
        if fact not in self._has_told:
            self._has_told.add(fact)
            log.info("database %r: %s", self.gate.name, fact)

    def _take_over(self, revoked: Lease) -> Lease:
        """Go on with a connection that was warm elsewhere; runs on the new holder's side, before its statement."""
        lender = revoked.lender
        try:
            may_pass_on = lender is self and self._may_pass_on(revoked)
        except BaseException as error:  # interrupted while it was asked whether it lives
            lender._leases.pop(id(revoked), None)
            lender._end(revoked, error)
            raise
        if may_pass_on:
            lease = revoked.passed_on(self.gate.clock())
            self._leases[id(lease)] = lease
            self._leases.pop(id(revoked), None)
            return lease
        try:
            lender._check_in(revoked, is_own=lender is self)
        finally:
            lender._leases.pop(id(revoked), None)
        return self._lend()

    def _may_pass_on(self, lease: Lease) -> bool:
        return (
            not self.is_closing
            and self.options.on_release is None
            and may_be_passed_on(self.pool, lease.record)
            and self._is_alive(lease)
        )

    def _is_alive(self, lease: Lease) -> bool:
        """Whether a connection that was warm can be gone on with; with pre-ping it is asked after a while."""
        if not lease.is_valid or self._has_ended(lease):
            return False
        if not self.pool._pre_ping or self.gate.clock() - lease.began_ns < PING_AFTER_IDLE_NS:
            return True
        dialect: Any = self.pool._dialect
        return bool(dialect._do_ping_w_event(lease.dbapi))

    def _has_ended(self, lease: Lease) -> bool:
        dbapi = lease.dbapi
        return self.driver.is_dead(dbapi) or (bool(lease.standing.watch()) and self.driver.has_ended(dbapi))

    # warm

    def rest(self, lease: Lease) -> None:
        """Leave the connection with its holder between two statements; from now on it belongs to whoever waits."""
        if lease.is_reserved:
            self.release(lease)
            return
        now_ns = self.gate.clock()
        use_ns = now_ns - lease.began_ns
        lease.used_ns += use_ns
        lease.began_ns = now_ns
        self.gate.rest(lease, self.kind, use_ns)
        if self.is_closing:
            self.release_warm(lease)

    def resume(self, lease: Lease) -> bool:
        """Go on with one's own warm lease; False if it was revoked, or its connection has ended meanwhile."""
        if not self.gate.resume(lease, self.kind):
            return False
        if not self._is_alive(lease):
            self.discard(lease, None)
            return False
        lease.began_ns = self.gate.clock()
        return True

    def reclaim(self, lease: Lease) -> bool:
        """Take one's own warm lease back in order to discard it; False if it was revoked."""
        return self.gate.resume(lease, self.kind)

    def release_warm(self, lease: Lease) -> None:
        """End one's own warm lease, if it has not been revoked."""
        if not self.gate.resume(lease, self.kind):
            return
        try:
            if lease.fairy is not None or self.options.on_release is not None or not is_plain(self.pool):
                self._check_in(lease)
            else:
                self._check_in_plainly(lease)
        finally:
            self._leases.pop(id(lease), None)
            self.gate.release(lease.used_ns, self.kind)

    def revoke_warm(self) -> None:
        """Check in whatever is warm."""
        for lease in list(self._leases.values()):
            self.release_warm(lease)

    # release

    def release(self, lease: Lease, *, was_reset: bool = True) -> None:
        """Check the physical connection in, then pass the permit on."""
        if lease.is_over:
            return
        try:
            self._check_in(lease, was_reset=was_reset)
        finally:
            self._take_back_permit(lease)

    def discard(self, lease: Lease, error: BaseException | None) -> None:
        """Close the physical connection for good, then pass the permit on."""
        if lease.is_over:
            return
        try:
            self._end(lease, error)
        finally:
            self._take_back_permit(lease)

    def lose(self, lease: Lease, *, is_warm: bool) -> None:
        """Its holder was forgotten by everybody; safe in a finalizer."""
        if is_warm:
            self.release_warm(lease)
            return
        if lease.is_over:
            return
        if self.options.on_release is not None and lease.fairy is None:
            # The hook cannot run here, and nobody may have the connection as it is.
            record, lease.record = lease.record, None
            self.pool.take_back_lost(record)
            self.pool.places.end(lease.dbapi)
            self._take_back_permit(lease)
            return
        # SQLAlchemy's own finalizer resets or ends the connection as soon as its fairy is let go;
        # only then may somebody else have the permit.
        is_detached, dialect = lease.is_detached, cast(Any, self.pool._dialect)
        lease.with_fairy()
        lease.record = lease.fairy = None
        if is_detached or (dialect.is_async and not dialect.has_terminate):
            self.pool.places.give(lease.dbapi)  # nobody has closed it; the driver does when it is collected
        self._take_back_permit(lease)

    def _check_in(self, lease: Lease, *, is_own: bool = True, was_reset: bool = True) -> None:
        record, is_detached = lease.record, lease.is_detached
        try:
            self._check_in_or_end(lease, is_own=is_own, was_reset=was_reset)
        except BaseException as error:
            self._end_interrupted(lease, record, is_detached=is_detached)
            if is_own or not isinstance(error, Exception):
                raise
            log.exception("database %r: a listener failed where a connection changed sides", self.gate.name)

    def _check_in_plainly(self, lease: Lease) -> None:
        record, lease.record = lease.record, None
        try:
            check_in_plainly(record)
        except BaseException:
            self._end_interrupted(lease, record, is_detached=False)
            raise

    def _end_interrupted(self, lease: Lease, record: Any, *, is_detached: bool) -> None:
        # A listener or a hook has failed, and nobody else comes back for this connection.
        if is_detached or self.pool.take_back_lost(record):
            self.pool.places.end(lease.dbapi)
        lease.record = lease.fairy = None

    def _check_in_or_end(self, lease: Lease, *, is_own: bool, was_reset: bool) -> None:
        is_dead = self.driver.is_dead(lease.dbapi)
        is_spoilt = is_dead or lease.is_suspect or not (is_own or self._has_no_listeners)
        if self.options.on_release is not None and not is_spoilt:
            is_spoilt = not self._part_from(lease, self.options.on_release, is_own=is_own)
        is_reset = is_dead or (was_reset and self.driver.is_idle(lease.dbapi))
        if lease.fairy is None and is_reset and not is_spoilt and is_plain(self.pool):
            self._check_in_plainly(lease)
            return
        fairy, is_detached = lease.with_fairy(), lease.is_detached
        lease.record = lease.fairy = None
        if fairy.is_valid and is_spoilt:
            fairy.invalidate()
        else:
            fairy._close_special(transaction_reset=is_reset)
        self._close_detached(lease, is_detached)

    @property
    def checks_in_silently(self) -> bool:
        """True if nothing of the application's runs when an idle connection is checked in."""
        return self._has_no_listeners and self.options.on_release is None

    @property
    def _has_no_listeners(self) -> bool:
        # A listener may talk to its connection, which only that connection's own kind of holder can let it.
        return is_plain(self.pool) and not self.pool.dispatch.checkin

    def _end(self, lease: Lease, error: BaseException | None) -> None:
        if lease.is_over:  # an interrupted end; whoever was interrupted comes by once more
            return
        fairy, is_detached = lease.with_fairy(), lease.is_detached
        lease.record = lease.fairy = None
        fairy.invalidate(error)
        self._close_detached(lease, is_detached)

    def _close_detached(self, lease: Lease, is_detached: bool) -> None:
        # SQLAlchemy lets go of some detached connections without closing them; they would keep their place.
        if is_detached and self.pool.places.has(lease.dbapi):
            self.pool._close_connection(lease.dbapi)

    def _take_back_permit(self, lease: Lease) -> None:
        self._leases.pop(id(lease), None)
        use_ns = lease.used_ns + self.gate.clock() - lease.began_ns
        self.gate.release(use_ns, self.kind, is_reserved=lease.is_reserved)

    # hooks of the application

    def _prepare(self, on_acquire: Hook, lease: Lease) -> None:
        try:
            self._run_hook(on_acquire, lease)
        except BaseException as error:
            self.discard(lease, error)  # a connection that could not be prepared is nobody's
            raise

    def _part_from(self, lease: Lease, on_release: Hook, *, is_own: bool) -> bool:
        """False if the hook has failed, or cannot run here, so that the connection must go."""
        if not is_own or lease.is_detached:
            return False
        try:
            if not self.driver.is_idle(lease.dbapi):
                lease.dbapi.rollback()
            self._run_hook(on_release, lease)
        except Exception:
            log.exception("database %r: on_release failed; the connection is closed", self.gate.name)
            return False
        return True

    def _run_hook(self, hook: Hook, lease: Lease) -> None:
        if lease.standing.flips:
            self.driver.enter_autocommit(lease.dbapi)
        try:
            hook(lease.dbapi)
        finally:
            if lease.standing.flips:
                self.driver.leave_autocommit(lease.dbapi)

    # what people see

    @property
    def wants_sites(self) -> bool:
        """Whether to look where in the application a connection is kept: a walk past thirty frames of SQLAlchemy.

        Only refusals tell it, and those come when most of the budget is in use.
        """
        return self.pins.is_watching or self.gate.is_half_used

    def count_held(self) -> int:
        """Leases that are not warm."""
        return sum(not self.gate.is_warm(lease, self.kind) for lease in list(self._leases.values()))

    def sites(self) -> Counter[str]:
        """Where in the application connections are held: file:line → count."""
        # list(): in one step, because other threads lease meanwhile.
        return Counter(lease.site for lease in list(self._leases.values()) if lease.site)

    def leave_to_parent(self) -> list[Any]:
        """In a forked child: let go of every lease without touching its connection."""
        kept: list[Any] = []
        for lease in self._leases.values():
            if hasattr(lease.fairy, "_finalizer"):
                lease.fairy._finalizer.detach()
            kept += [lease.record, lease.fairy, lease.dbapi]
            lease.record = lease.fairy = None
        self._leases = {}
        return kept
