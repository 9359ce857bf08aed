"""Connections that are held while something else is awaited: the line, the share, the ceiling."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import URL

from .xray_truth import Patient, get, patient

LIMIT, PAUSE_S = 5, 0.1


@pytest.fixture(scope="module")
def app(postgres_url: URL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Patient]:
    with patient("holding", postgres_url, tmp_path_factory.mktemp("holding") / "log") as served:
        served.warm_up("/sleep", "/call", "/read", "/gather")
        yield served


@pytest.mark.parametrize(
    ("path", "line", "awaited"),
    [
        ("/sleep", "await asyncio.sleep(PAUSE_S)", "asyncio.sleep"),
        ("/call", 'answer = await client.get(f"{request.base_url}elsewhere")', "httpx.AsyncClient.get"),
        ("/read", "return await run_in_threadpool(read_report)", "starlette.run_in_threadpool"),
        ("/gather", "await asyncio.gather(ask_elsewhere(), ask_elsewhere())", "asyncio.gather"),
    ],
)
def test_a_connection_held_meanwhile(app: Patient, path: str, line: str, awaited: str) -> None:
    told = app.under(get(path, 100), record=f"held{path.replace('/', '_')}")
    binding, hold, remedy = told.said(path, "connections"), told.said(path, "hold"), told.said(path, "remedy")
    assert binding.figures["limit"] == LIMIT
    assert binding.figures["rate"] == pytest.approx(told.offer(path).throughput, rel=told.tolerance), str(told)
    assert hold.site is not None
    assert (hold.site.function, hold.site.text) == (path.removeprefix("/"), line), str(told)
    assert f"the rest is {awaited} at {hold.site}" in hold.text
    assert hold.figures["held_s"] == pytest.approx(PAUSE_S, rel=0.2 + told.tolerance)
    assert hold.figures["busy_s"] < 0.2 * hold.figures["held_s"]
    assert remedy.site == hold.site
    assert remedy.figures["gain"] > 4
    assert "headgate.AsyncSession" in remedy.text
