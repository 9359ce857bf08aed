"""What happened to one request, and the file format that keeps it.

A run records into flat arrays (some 45 bytes a request, no objects for the garbage collector to walk) and
shows them as a sequence of ``Sample`` values that are built when they are looked at.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, overload

from headgate.errors import LoadError
from headgate.load.pacer import Schedule

FORMAT = "headgate-samples"
FORMAT_VERSION = 1
"""1: first form. Raise it with every change of a field or its meaning."""

_NOT_ENDED = -1


@dataclass(frozen=True, slots=True)
class Sample:
    """One request; every time is in nanoseconds after the start of the run.

    :ivar intended_ns: when it was due; latency counts from here.
    :ivar started_ns: when it was really handed to a socket, to a new connection or to the client's own queue.
    :ivar ended_ns: when the last byte of the answer was read, or the failure noticed.
    :ivar status: HTTP status; 0 if no answer came.
    :ivar error: one short word; empty if a whole answer came.
    :ivar bytes_in: bytes of the answer's body.
    """

    target: str
    intended_ns: int
    started_ns: int
    ended_ns: int
    status: int
    error: str
    bytes_in: int

    @property
    def success(self) -> bool:
        """A whole answer with a status of 200 to 399."""
        return 200 <= self.status < 400 and not self.error

    @property
    def latency_ns(self) -> int:
        return self.ended_ns - self.intended_ns

    @property
    def lateness_ns(self) -> int:
        """How long the generator itself kept the request waiting."""
        return self.started_ns - self.intended_ns


class Recording(Sequence[Sample]):
    """The samples of one run, in the order of the schedule; requests that never ended are left out."""

    def __init__(self, labels: Sequence[str], schedule: Schedule) -> None:
        count = len(schedule)
        self._labels = labels
        self._schedule = schedule
        self._started_ns = array("q", bytes(8 * count))
        self._ended_ns = array("q", [_NOT_ENDED]) * count
        self._bytes_in = array("q", bytes(8 * count))
        self._status = array("H", bytes(2 * count))
        self._error = array("B", bytes(count))
        self._words = [""]
        self.finished = 0
        self.failed = 0

    def record(self, index: int, started_ns: int, ended_ns: int, status: int, error: str, bytes_in: int) -> None:
        """Keep what happened to request ``index`` of the schedule."""
        self.finished += 1
        self._started_ns[index] = started_ns
        self._ended_ns[index] = ended_ns
        self._status[index] = status
        self._bytes_in[index] = bytes_in
        if error:
            self._error[index] = self._word(error)
        if error or not 200 <= status < 400:
            self.failed += 1

    def _word(self, error: str) -> int:
        if error not in self._words:
            self._words.append(error)
        return self._words.index(error)

    def _ended(self) -> Sequence[int]:
        count = len(self._schedule)
        if self.finished == count:
            return range(count)
        return [i for i in range(count) if self._ended_ns[i] != _NOT_ENDED]

    def _sample(self, index: int) -> Sample:
        return Sample(
            target=self._labels[self._schedule.targets[index]],
            intended_ns=self._schedule.offsets_ns[index],
            started_ns=self._started_ns[index],
            ended_ns=self._ended_ns[index],
            status=self._status[index],
            error=self._words[self._error[index]],
            bytes_in=self._bytes_in[index],
        )

    def __len__(self) -> int:
        return self.finished

    def __iter__(self) -> Iterator[Sample]:
        return map(self._sample, self._ended())

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | Sequence[Sample]:
        chosen = self._ended()[index]
        return self._sample(chosen) if isinstance(chosen, int) else [self._sample(i) for i in chosen]


def encode_samples(samples: Iterable[Sample]) -> Iterator[str]:
    """JSON lines, each with its line end: first the format and its version, then one object a sample."""
    yield json.dumps({"format": FORMAT, "version": FORMAT_VERSION}) + "\n"
    for sample in samples:
        yield json.dumps(asdict(sample), ensure_ascii=False, separators=(",", ":")) + "\n"


def decode_samples(lines: Iterable[str]) -> Iterator[Sample]:
    """Read what ``encode_samples`` wrote.

    :raises LoadError: if a line is not of this format and version; the message names the line.
    """
    numbered = enumerate(lines, start=1)
    _, first = next(numbered, (1, ""))
    header = _parse(1, first)
    if header != {"format": FORMAT, "version": FORMAT_VERSION}:
        raise LoadError(f"line 1 is not the header of {FORMAT} version {FORMAT_VERSION}; write the file anew")
    for number, line in numbered:
        yield _sample_of(number, _parse(number, line))


def _parse(number: int, line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise LoadError(f"line {number} is not JSON; was the file cut short?") from error
    if not isinstance(value, dict):
        raise LoadError(f"line {number} is not a JSON object; was the file made by `headgate load --output`?")
    return value


def _sample_of(number: int, value: dict[str, Any]) -> Sample:
    kinds = Sample.__annotations__
    if value.keys() != kinds.keys():
        raise LoadError(f"line {number} has not the fields of a sample: {', '.join(kinds)}")
    wrong = [name for name, kind in kinds.items() if type(value[name]).__name__ != kind]
    if wrong:
        raise LoadError(f"line {number} has a wrong type in {', '.join(wrong)}")
    return Sample(**value)
