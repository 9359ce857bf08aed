"""Samples: what is recorded and how it is kept in files."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.errors import LoadError
from headgate.load.pacer import Schedule
from headgate.load.sample import Recording, Sample, decode_samples, encode_samples

TIMES = st.integers(0, 2**62)
SAMPLES = st.builds(
    Sample,
    target=st.text(),
    intended_ns=TIMES,
    started_ns=TIMES,
    ended_ns=TIMES,
    status=st.integers(0, 999),
    error=st.sampled_from(["", "timeout", "reset"]),
    bytes_in=TIMES,
)
ONE = Sample("/a", 0, 1, 2, 200, "", 3)


@given(st.lists(SAMPLES))
def test_files_give_back_what_was_written(samples: list[Sample]) -> None:
    text = "".join(encode_samples(samples))
    assert list(decode_samples(text.split("\n")[:-1])) == samples


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        pytest.param([], "line 1 is not JSON", id="empty file"),
        pytest.param(['{"format": "headgate-samples", "version": 2}'], "line 1 is not the header", id="version"),
        pytest.param(["[]"], "line 1 is not a JSON object", id="something else"),
        pytest.param([*encode_samples([]), '{"target":"/a","inte'], "line 2 is not JSON", id="cut short"),
        pytest.param([*encode_samples([]), "{}"], "line 2 has not the fields", id="no fields"),
        pytest.param(
            [line.replace('"status":200', '"status":true') for line in encode_samples([ONE])],
            "line 2 has a wrong type in status",
            id="wrong type",
        ),
    ],
)
def test_foreign_files_are_refused_by_line(lines: list[str], message: str) -> None:
    with pytest.raises(LoadError, match=message):
        list(decode_samples(lines))


@pytest.mark.parametrize(
    ("status", "error", "success"),
    [
        (199, "", False),
        (200, "", True),
        (399, "", True),
        (400, "", False),
        (0, "timeout", False),
        (200, "truncated", False),
    ],
)
def test_success_is_a_whole_answer_of_200_to_399(status: int, error: str, success: bool) -> None:
    assert Sample("/a", 0, 0, 1, status, error, 0).success is success


def test_a_recording_shows_what_ended_in_the_order_of_the_schedule() -> None:
    recording = Recording(["/a", "/b"], Schedule([0, 10, 20], [0, 1, 0]))
    recording.record(2, 21, 29, 0, "reset", 5)
    recording.record(0, 1, 9, 200, "", 7)
    first, last = Sample("/a", 0, 1, 9, 200, "", 7), Sample("/a", 20, 21, 29, 0, "reset", 5)
    assert list(recording) == [first, last]
    assert (len(recording), recording.failed, recording[-1], recording[:1]) == (2, 1, last, [first])
    recording.record(1, 11, 12, 503, "", 0)
    assert [sample.target for sample in recording] == ["/a", "/b", "/a"]
    assert (recording[1].lateness_ns, recording[1].latency_ns, recording.failed) == (1, 2, 2)
