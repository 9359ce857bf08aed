from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headgate.lab.activity import Sample, fold_samples, next_due_ns

counts = st.integers(0, 400)
samples = st.lists(st.tuples(st.floats(0, 600), counts, counts, counts))


def test_the_maxima_are_of_each_column_and_the_mean_of_the_last() -> None:
    states = fold_samples([(0.0, 3, 1, 0), (0.1, 1, 9, 15), (0.2, 2, 2, 6)])
    assert (states.max_active, states.max_idle, states.max_idle_in_transaction) == (3, 9, 15)
    assert states.mean_idle_in_transaction == 7.0
    assert len(states.samples) == 3


def test_no_samples_are_no_connections() -> None:
    states = fold_samples([])
    assert (states.samples, states.max_active, states.mean_idle_in_transaction) == ((), 0, 0.0)


@given(samples)
def test_the_mean_lies_between_zero_and_the_maximum(rows: list[Sample]) -> None:
    states = fold_samples(rows)
    assert 0 <= states.mean_idle_in_transaction <= states.max_idle_in_transaction


@given(st.integers(0, 10**12), st.integers(0, 10**12), st.integers(1, 10**9))
def test_samples_are_due_on_a_grid_and_never_in_the_past(start: int, passed: int, interval: int) -> None:
    now = start + passed
    due = next_due_ns(now, start, interval)
    assert now < due <= now + interval
    assert (due - start) % interval == 0
