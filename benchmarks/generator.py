"""How much load can the generator offer, and how punctually?

Starts a server in a process of its own and drives it open-loop at each rate; the two are pinned to different cores
where the system allows it. ``uvicorn`` is a bare ASGI app, the least a real service does; ``protocol`` is a bare
asyncio protocol, which shows the generator's own ceiling.

    python benchmarks/generator.py [--duration 10] [--server uvicorn|protocol] [--rate 10000 --rate 20000]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from fractions import Fraction
from typing import Any, cast

from headgate.load import pacer
from headgate.load.checks import check_load
from headgate.load.driver import LoadPlan, LoadResult, run
from headgate.load.sample import Sample
from headgate.load.summary import lateness, summarize
from headgate.load.target import Target

RATES = {"uvicorn": (5_000, 10_000), "protocol": (10_000, 20_000, 30_000)}
BACKLOG = 2_048
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"

Send = Callable[[dict[str, Any]], Awaitable[None]]


async def app(scope: dict[str, Any], _receive: object, send: Send) -> None:
    """The least an ASGI app can do."""
    assert scope["type"] == "http"
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"ok"})


class BareProtocol(asyncio.Protocol):
    """Answers each request, known by its blank line, without looking at it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's transports are no subclass of it

    def data_received(self, data: bytes) -> None:
        self._transport.write(ANSWER * data.count(b"\r\n\r\n"))


def serve(kind: str, descriptor: int) -> None:
    """Run in the server's process."""
    import uvicorn
    import uvloop

    listener = socket.socket(fileno=descriptor)
    if kind == "uvicorn":
        config = uvicorn.Config(
            app, loop="uvloop", http="httptools", log_level="warning", access_log=False, lifespan="off"
        )
        uvicorn.Server(config).run(sockets=[listener])
    else:
        uvloop.run(serve_bare(listener))


async def serve_bare(listener: socket.socket) -> None:
    server = await asyncio.get_running_loop().create_server(BareProtocol, sock=listener, backlog=BACKLOG)
    await server.serve_forever()


@contextlib.contextmanager
def running_server(kind: str, core: int | None) -> Iterator[int]:
    """Yields the port. The listener is made here, so the first request already finds it."""
    with socket.create_server(("127.0.0.1", 0), backlog=BACKLOG) as listener:
        port: int = listener.getsockname()[1]
        command = [sys.executable, __file__, "--serve", kind, "--descriptor", str(listener.fileno())]
        with subprocess.Popen(command, pass_fds=[listener.fileno()]) as process:
            try:
                if core is not None:
                    os.sched_setaffinity(process.pid, {core})
                offer(port, 500, 1)  # warms both up; not counted
                yield port
            finally:
                process.kill()


def offer(port: int, rate: int, duration_s: Fraction | int) -> LoadResult:
    target = Target("ping", f"http://127.0.0.1:{port}/ping")
    schedule = pacer.in_turn(pacer.constant(rate, duration_s), 1)
    return run(LoadPlan((target,), schedule, timeout_s=10))


def report(kind: str, rate: int, result: LoadResult) -> None:
    samples: list[Sample] = list(result.samples)
    figures, late = summarize("ping", samples), lateness(samples)
    checks = check_load(samples, planned=result.planned, issued=result.issued, generator_cpu=result.generator_cpu)
    failed = ", ".join(check.name for check in checks if not check.ok)
    per_request_us = result.generator_cpu * result.wall_ns / 1e3 / max(len(samples), 1)
    print(
        f"{kind:<9} {rate:>7,} {figures.achieved_rate:>9,.0f} {figures.throughput:>10,.0f} {len(samples):>9,} "
        f"{figures.success_ratio:>8.2%} {figures.latency.p50 * 1e3:>8.2f} {figures.latency.p99 * 1e3:>8.2f} "
        f"{late.p50 * 1e3:>8.2f} {late.p99 * 1e3:>8.2f} {late.max * 1e3:>8.2f} "
        f"{result.generator_cpu:>5.0%} {per_request_us:>7.1f}  {f'void: {failed}' if failed else 'valid'}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--duration", type=Fraction, default=Fraction(10), help="seconds a rate (default: 10)")
    parser.add_argument("--server", choices=tuple(RATES), action="append", help="default: both")
    parser.add_argument("--rate", type=int, action="append", help="default: a few for each server")
    parser.add_argument("--unpinned", action="store_true", help="let the system choose the cores")
    parser.add_argument("--serve", choices=tuple(RATES), help=argparse.SUPPRESS)
    parser.add_argument("--descriptor", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(args.serve, args.descriptor)
        return
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    pinned = len(cores) > 1 and not args.unpinned
    if pinned:
        os.sched_setaffinity(0, {cores[0]})
    print(f"{'latency, ms':>68} {'lateness, ms':>22}")
    print(
        "server    offered  achieved throughput  requests  success      p50      p99      p50      p99      max", end=""
    )
    print("   CPU  µs/req")
    for kind in args.server or RATES:
        with running_server(kind, cores[-1] if pinned else None) as port:
            for rate in args.rate or RATES[kind]:
                report(kind, rate, offer(port, rate, args.duration))


if __name__ == "__main__":
    main()
