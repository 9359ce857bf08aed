"""Environment variables from a file."""

from __future__ import annotations

import pytest

from headgate.errors import XrayError
from headgate.xray.env_file import read_environment


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A=1", "1"),
        ("export A = 1 ", "1"),
        ("\ufeffA=1", "1"),
        ("# B\n\nA=1 # one", "1"),
        ("A=a#b", "a#b"),
        ("A=", ""),
        ("A='a # ${B} \\n'", "a # ${B} \\n"),
        ('A="a # b" # c', "a # b"),
        (r'A="a\n\"b\""', 'a\n"b"'),
        ("B=2\nA=x${B}y", "x2y"),
        ("A=${MISSING}-${MISSING:-3}", "-3"),
        ("A=${HOME_OF_TEST}", "set"),
        ("A=postgresql://u:p@h/d?x=y", "postgresql://u:p@h/d?x=y"),
        ("A=1\nA=2", "2"),
    ],
)
def test_a_line(text: str, expected: str) -> None:
    assert read_environment(text, {"HOME_OF_TEST": "set"})["A"] == expected


def test_what_is_set_already_stays() -> None:
    assert read_environment("A=1\nB=${A}", {"A": "0"}) == {"A": "0", "B": "0"}


@pytest.mark.parametrize("line", ["secret", "A='secret", 'A="secret" secret', "1A=secret", "A B=secret"])
def test_a_line_that_cannot_be_read_is_named_by_its_number_alone(line: str) -> None:
    with pytest.raises(XrayError, match=r"line 2 of \.env cannot be read") as raised:
        read_environment(f"X=1\n{line}", {}, source=".env")
    assert "secret" not in str(raised.value)
