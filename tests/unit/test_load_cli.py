"""What ``headgate load`` refuses before it asks anybody."""

from __future__ import annotations

import pytest

from headgate.cli.main import main


@pytest.mark.parametrize(
    ("args", "message"),
    [
        pytest.param(("http://h/", "--rate", "0"), "rate 0 is not above 0", id="rate zero"),
        pytest.param(("http://h/", "--rate", "-3"), "rate -3 is not above 0", id="rate negative"),
        pytest.param(("http://h/", "--rate", "1e999999999"), "--rate '1e999999999' is not a number", id="rate huge"),
        pytest.param(("http://h/", "--duration", "0"), "duration 0 is not above 0", id="duration zero"),
        pytest.param(("http://h/", "--duration", "nan"), "--duration 'nan' is not a number", id="duration nan"),
        pytest.param(("http://h/", "--requests", "0"), "requests 0 is not a positive number", id="no requests"),
        pytest.param(("http://h/", "--requests", "1.5"), "--requests '1.5' is not a whole number", id="half"),
        pytest.param(("http://h/", "--requests", "5", "--rate", "1"), "leave out --rate", id="both loads"),
        pytest.param(("http://h/", "--max-connections", "0"), "max connections 0 is below 1", id="no connections"),
        pytest.param(("http://h/", "--timeout", "0"), "timeout 0.0 is not above 0", id="no time"),
        pytest.param(("http://h/", "--method", "G T"), "method 'G T' cannot be sent", id="method"),
        pytest.param(("http://h/", "--header", "geheim"), "a --header has no colon", id="header"),
        pytest.param(("http://h/", "--body", "@/nowhere"), "cannot read --body @/nowhere", id="body"),
        pytest.param(("h:80/x",), "'h:80/x' is neither http:// nor https://", id="no URL"),
        pytest.param(("ftp://u:geheim@h/",), "'ftp://***@h/' is neither", id="scheme"),
    ],
)
def test_wrong_usage_is_one_line(capsys: pytest.CaptureFixture[str], args: tuple[str, ...], message: str) -> None:
    assert main(["load", *args]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.count("\n") == 1
    assert "geheim" not in err
