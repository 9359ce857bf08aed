"""An observation is written and read again, and what is none is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.errors import XrayError
from headgate.names import PHASES
from headgate.xray.observation import (
    NOWHERE,
    Awaited,
    HoldSum,
    Observation,
    Offer,
    PoolFacts,
    ProcessFacts,
    RouteSum,
    Site,
    Stall,
    StatementSum,
    decode,
    encode,
    with_text,
)

COUNTS = st.integers(0, 2**60)
WORDS = st.text(max_size=20)
SITES = st.builds(Site, WORDS, COUNTS, WORDS, WORDS)
AWAITED = st.builds(Awaited, SITES, WORDS, st.floats(0, 1))
HOLDS = st.builds(
    HoldSum, WORDS, SITES, COUNTS, COUNTS, COUNTS, COUNTS, st.lists(AWAITED, max_size=2).map(tuple), COUNTS
)


def some(values: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(values, max_size=2).map(tuple)


def counted(keys: st.SearchStrategy[str]) -> st.SearchStrategy[dict[str, int]]:
    return st.dictionaries(keys, COUNTS, max_size=2)


ROUTES = st.builds(
    RouteSum,
    route=WORDS,
    count=COUNTS,
    times_ns=st.lists(COUNTS, min_size=len(PHASES), max_size=len(PHASES)).map(tuple),
    statuses=counted(WORDS),
    latencies_ns=some(COUNTS),
    thread_runs=COUNTS,
    thread_wait_ns=COUNTS,
    thread_run_ns=COUNTS,
    holds=some(HOLDS),
    statements=some(st.builds(StatementSum, WORDS, SITES, COUNTS, COUNTS, COUNTS, COUNTS, WORDS, WORDS)),
    holders=counted(WORDS),
    twice=COUNTS,
    second=SITES,
)
OBSERVATIONS = st.builds(
    Observation,
    process=st.builds(
        ProcessFacts, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, st.none() | COUNTS, COUNTS, COUNTS, COUNTS, COUNTS
    ),
    routes=some(ROUTES),
    pools=some(st.builds(PoolFacts, WORDS, WORDS, st.none() | COUNTS, COUNTS, COUNTS, WORDS, COUNTS, COUNTS, COUNTS)),
    stalls=some(st.builds(Stall, WORDS, SITES, WORDS, COUNTS, COUNTS, COUNTS, COUNTS, WORDS)),
    offers=some(
        st.builds(Offer, WORDS, WORDS, COUNTS, COUNTS, counted(WORDS), st.floats(0, 9), st.floats(0, 9), COUNTS)
    ),
    leaks=some(HOLDS),
    paths=st.dictionaries(WORDS, WORDS, max_size=2),
    notes=some(WORDS),
)


@given(OBSERVATIONS)
def test_what_is_written_is_read_again(observation: Observation) -> None:
    assert decode(encode(observation)) == observation


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", "null", '{"format": "headgate-xray"}', '{"format": "headgate-xray", "version": 1, "process": 1}'],
)
def test_what_is_none_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(XrayError) as caught:
        decode(text)
    assert "\n" not in str(caught.value)


def test_another_version_is_refused() -> None:
    value = json.loads(encode(Observation(ProcessFacts(1, 40, 1, 1, 1))))
    with pytest.raises(XrayError, match="version"):
        decode(json.dumps({**value, "version": 0}))


def test_what_is_written_at_each_line_is_put_beside_it() -> None:
    site = Site("app.py", 3, "read")
    hold = HoldSum("pool", site, 1, 1, 1, 0, (Awaited(site, "asyncio.sleep", 1.0), Awaited(NOWHERE, "x", 0.0)))
    told = with_text(Observation(ProcessFacts(1, 40, 1, 1, 1), leaks=(hold,)), lambda file, line: f"  {file} {line}\n")
    assert told.leaks[0].site.text == "app.py 3"
    assert [one.site.text for one in told.leaks[0].awaited] == ["app.py 3", ""]
