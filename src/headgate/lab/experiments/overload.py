"""What happens above capacity?

Requests arrive as they do in production, whether anybody is answered or not: at capacity, at twice, five and ten times
of it. The question is that of «Asynchronous IO and Back Pressure», which published no figures.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import create_engine, insert
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool

from headgate.lab.apps.overload import ROW, Base, Counter
from headgate.lab.experiment import Experiment, Plan, Value
from headgate.lab.experiments.overload_answer import judge_overload
from headgate.lab.experiments.overload_cases import plan_overload
from headgate.lab.experiments.overload_course import run_overload

SOURCE = "Asynchronous IO and Back Pressure (asks the question; no figures were published)"


def prepare_overload(plan: Plan, url: URL | None) -> Mapping[str, Value]:
    """Make the row that everybody changes."""
    assert url is not None
    engine = create_engine(url.set(drivername="postgresql+psycopg"), poolclass=NullPool)
    with engine.begin() as connection:
        Base.metadata.create_all(connection)
        connection.execute(insert(Counter).values(id=ROW, value=0))
    return {"url": url.render_as_string(hide_password=False)}


EXPLANATION = (
    "Fifteen connections that each are held 50 ms serve three hundred requests a second. What if more arrive? Stock "
    "lets every request wait for a connection for up to 30 s. A queue that grows with every second makes each answer "
    "later than the one before, until all come too late: the database is as busy as before, for clients that are "
    "gone.\n\n"
    "A request is good if its correct answer arrives within one second of the moment it was due. Capacity is the "
    "highest goodput of stock itself, measured in the same run just below what Little's law allows; then every arm "
    "meets the same arrivals at multiples of it, with /ping, which needs no database, twenty times a second beside "
    "them. The rivals are tuned for this very load: their one option is swept at twice the capacity, and their best is "
    "shown.\n\n"
    "Generator and service have a core each and the server the others; with two cores it runs on both, as its "
    "processes mostly sleep, and for the CPU-bound query it has one core alone. What was used up stands beside each "
    "point.\n\n"
    "--full measures stock, the best pool_timeout and Headgate three times at twice and ten times the capacity of "
    "pg_sleep, and shows the run with the median goodput and how far apart the three were; every other point is "
    "measured once.\n\n"
    "--quick has fewer arms, points, kinds of work and seconds, and does not sweep."
)

EXPERIMENT = Experiment(
    name="overload",
    question="What happens above capacity?",
    source=SOURCE,
    explanation=EXPLANATION,
    factory="headgate.lab.apps.overload:create_app",
    needs_postgres=True,
    plan=plan_overload,
    prepare=prepare_overload,
    judge=judge_overload,
    course=run_overload,
)
