from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from sqlalchemy.engine import URL

from headgate.lab.activity import ActivityObserver
from headgate.lab.connection import connect
from headgate.lab.postgres import EmbeddedPostgres


def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def test_sees_active_idle_and_idle_in_transaction(postgres: EmbeddedPostgres, postgres_url: URL) -> None:
    with (
        ActivityObserver(postgres_url, interval_ns=10_000_000) as observer,
        connect(postgres_url) as idle,
        connect(postgres_url) as holding,
        connect(postgres_url) as failed,
        connect(postgres_url) as busy,
        connect(postgres.url()) as elsewhere,
    ):
        elsewhere.execute("SELECT 1")
        idle.execute("SELECT 1")
        holding.execute("BEGIN")
        failed.execute("BEGIN")
        with pytest.raises(Exception, match="does not exist"):
            failed.execute("SELECT * FROM missing")
        sleeper = threading.Thread(target=busy.execute, args=("SELECT pg_sleep(0.3)",))
        sleeper.start()
        assert eventually(lambda: (1, 1, 2) in {sample[1:] for sample in observer.states().samples})
        sleeper.join()
    states = observer.states()
    assert (states.max_active, states.max_idle_in_transaction) == (1, 2)
    assert 0 < states.mean_idle_in_transaction < 2
    assert [sample[0] for sample in states.samples] == sorted(sample[0] for sample in states.samples)
    assert observer.missed == 0


def test_leaves_no_connection_behind(postgres: EmbeddedPostgres, postgres_url: URL) -> None:
    with ActivityObserver(postgres_url):
        pass
    with connect(postgres.url()) as admin:
        assert eventually(
            lambda: (
                admin.execute(
                    "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'headgate-lab-observer'"
                ).fetchone()
                == (0,)
            )
        )


def test_goes_on_after_the_server_was_away() -> None:
    with EmbeddedPostgres() as server, ActivityObserver(server.url(), interval_ns=10_000_000) as observer:
        assert eventually(lambda: len(observer.states().samples) > 2)
        server.end()
        assert eventually(lambda: observer.missed > 0)
        before = len(observer.states().samples)
        server.restart()
        assert eventually(lambda: len(observer.states().samples) > before)
