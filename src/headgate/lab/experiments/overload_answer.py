"""What the results of the experiment ``overload`` say, held against fixed targets; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from headgate.config import GateOptions
from headgate.lab.experiment import Answer, Parameters, Results
from headgate.lab.points import Middle, find_middles
from headgate.lab.report.words import format_figure, format_seconds
from headgate.lab.results import ArmResult, Distribution, Figure, Finding

STOCK, TUNED, HEADGATE = "stock", "tuned", "headgate"
SLEEP, THREE_READS = "sleep", "three-reads"

GOODPUT_TARGETS: Mapping[float, float] = {1: 0.97, 2: 0.95, 5: 0.92, 10: 0.85}
"""Least goodput ÷ capacity at each multiple of capacity."""

COLLAPSED = 0.6
"""A goodput at twice the capacity below which a service has collapsed."""

SETTLED = 5
"""A load that is shorter than this many times the wanted time ends before stock's queue has grown that long, and soon
after Headgate's gate has told it from a burst, which waits."""

P50_FACTOR = 2.0
REFUSAL_P99_S = 0.02
PING_P99_S = 0.02
RECOVERED_S = 1.0
FROZEN_BYTES_MIB = 32.0
FROZEN_SLACK_S = 0.05
THAWED_S = 2.0

GOOD_AGAIN, NOT_GOOD_AGAIN = "good again after", "not good again within"
FIRST_REFUSAL, NO_REFUSAL = "first refusal after", "no refusal within"
MEMORY_GROWTH = "memory growth"
HELD_AFTER = "connections still in use when all were answered"

Curve = Mapping[float, Middle]
"""What became of an arm at each multiple of capacity."""


def judge_overload(parameters: Parameters, results: Results) -> Answer:
    """Return what the arms show; a target that this mode has no measurement for is left out."""
    return Answer(tuple(_find_all(parameters, results)), _conclude(results))


def curve_of(results: Results, case: str, kind: str) -> Curve:
    """Return an arm's points by their multiple, empty if it was not measured."""
    arm = results.get(f"{case}-{kind}")
    return {middle.point.multiple: middle for middle in find_middles(arm.points)} if arm else {}


def _find_all(parameters: Parameters, results: Results) -> Iterator[Finding]:
    settles = float(parameters["point_s"] or 0) >= SETTLED * float(parameters["wanted_s"] or 0)
    if settles:
        yield _find_collapse(curve_of(results, STOCK, SLEEP))
    for kind in (SLEEP, THREE_READS):
        if curve := curve_of(results, HEADGATE, kind):
            yield _find_goodput(kind, curve)
    curve = curve_of(results, HEADGATE, SLEEP)
    yield from _find_refusals(curve)
    yield from _find_ping(curve)
    if settles:
        yield from _find_latency(curve, results[f"{STOCK}-{SLEEP}"])
        yield from _find_rival(results)
    yield from _find_recovery(results)
    yield from _find_frozen(results)


def _find_collapse(curve: Curve) -> Finding:
    return Finding(
        statement="Above capacity stock answers fewer than at capacity: at twice the load less than "
        f"{COLLAPSED:.0%} of what it could",
        holds=curve[2].share < COLLAPSED,
        evidence=_goodputs(curve),
    )


def _find_goodput(kind: str, curve: Curve) -> Finding:
    targets = {multiple: share for multiple, share in GOODPUT_TARGETS.items() if multiple in curve}
    wanted = " / ".join(f"{share:.0%}" for share in targets.values())
    return Finding(
        statement=f"Headgate’s goodput, {kind}: at least {wanted} of capacity at "
        f"{' / '.join(f'{multiple:g}×' for multiple in targets)}",
        holds=all(curve[multiple].share >= share for multiple, share in targets.items()),
        evidence=_goodputs(curve),
    )


def _goodputs(curve: Curve) -> str:
    return "; ".join(
        f"{multiple:g}×: {middle.point.goodput:.0f}/s, {middle.share:.0%}{_spread(middle)}, n {middle.point.requests:,}"
        for multiple, middle in curve.items()
    )


def _spread(middle: Middle) -> str:
    if middle.runs == 1:
        return ""
    capacity = middle.point.capacity
    return f" (median of {middle.runs}: {middle.lowest / capacity:.0%} to {middle.highest / capacity:.0%})"


def _find_latency(curve: Curve, stock: ArmResult) -> Iterator[Finding]:
    alone = next((figure for figure in stock.figures if " alone" in figure.name), None)
    if 2 not in curve or alone is None:
        return
    answered = curve[2].point.answered
    yield Finding(
        statement=f"At 2×, half of Headgate’s answers come within {P50_FACTOR:g} times what one takes alone",
        holds=0 < answered.p50 <= P50_FACTOR * alone.value,
        evidence=f"{_halves(answered)}; alone {format_seconds(alone.value)}",
    )


def _halves(latency: Distribution) -> str:
    return f"p50 {format_seconds(latency.p50)}, p99 {format_seconds(latency.p99)}, n {latency.count:,}"


def _find_refusals(curve: Curve) -> Iterator[Finding]:
    if 5 not in curve:
        return
    refusals = curve[5].point.refusals
    yield Finding(
        statement=f"At 5×, Headgate refuses within {format_seconds(REFUSAL_P99_S)}, 99 of 100 times",
        holds=refusals.count > 0 and refusals.p99 <= REFUSAL_P99_S,
        evidence=_halves(refusals),
    )


def _find_ping(curve: Curve) -> Iterator[Finding]:
    if 10 not in curve:
        return
    point = curve[10].point
    yield Finding(
        statement="At 10×, every /ping beside Headgate’s overload is answered, 99 of 100 within "
        f"{format_seconds(PING_P99_S)}",
        holds=point.pings.count == point.ping_requests and point.pings.p99 <= PING_P99_S,
        evidence=f"{point.pings.count} of {point.ping_requests} answered, p99 {format_seconds(point.pings.p99)}",
    )


def _find_rival(results: Results) -> Iterator[Finding]:
    ours, theirs = curve_of(results, HEADGATE, SLEEP), curve_of(results, TUNED, SLEEP)
    shared = [multiple for multiple in ours if multiple in theirs and multiple > 1]
    if not shared:
        return
    yield Finding(
        statement="Against stock with the best pool_timeout for this load, Headgate’s answers come sooner at every "
        "load above capacity, and no fewer of them",
        holds=all(
            ours[multiple].point.goodput >= 0.97 * theirs[multiple].point.goodput
            and 0 < ours[multiple].point.answered.p50 <= theirs[multiple].point.answered.p50
            for multiple in shared
        ),
        evidence="; ".join(
            f"{multiple:g}×: {_rival(ours[multiple])} against {_rival(theirs[multiple])}" for multiple in shared
        ),
    )


def _rival(middle: Middle) -> str:
    point = middle.point
    return f"{point.goodput:.0f}/s, p50 {format_seconds(point.answered.p50)} (n {point.answered.count:,})"


def _find_recovery(results: Results) -> Iterator[Finding]:
    arm = results.get(f"{HEADGATE}-recovery")
    if arm is None:
        return
    again_s = _figure(arm, GOOD_AGAIN)
    yield Finding(
        statement=f"After 10×, Headgate’s service is good again within {RECOVERED_S:g} s",
        holds=again_s is not None and again_s <= RECOVERED_S,
        evidence=_evidence(results, "recovery"),
    )


def _find_frozen(results: Results) -> Iterator[Finding]:
    arm = results.get(f"{HEADGATE}-frozen")
    if arm is None:
        return
    bound_s = GateOptions().max_wait + FROZEN_SLACK_S
    growth, refused_s, again_s = (_figure(arm, name) for name in (MEMORY_GROWTH, FIRST_REFUSAL, GOOD_AGAIN))
    yield Finding(
        statement=f"While PostgreSQL is frozen, Headgate’s service grows by {FROZEN_BYTES_MIB:g} MiB at most and "
        f"refuses after {bound_s:g} s at the latest; afterwards it is good again within {THAWED_S:g} s, and no "
        "connection is lost",
        holds=(
            growth is not None
            and growth <= FROZEN_BYTES_MIB
            and refused_s is not None
            and refused_s <= bound_s
            and again_s is not None
            and again_s <= THAWED_S
            and not _figure(arm, HELD_AFTER)
        ),
        evidence=_evidence(results, "frozen"),
    )


def _figure(arm: ArmResult, name: str) -> float | None:
    return next((figure.value for figure in arm.figures if figure.name == name), None)


def _evidence(results: Results, what: str) -> str:
    arms = {case: results.get(f"{case}-{what}") for case in (HEADGATE, TUNED, STOCK)}
    return "; ".join(f"{case}: {', '.join(map(_say, arm.figures))}" for case, arm in arms.items() if arm)


def _say(figure: Figure) -> str:
    return f"{figure.name} {format_figure(figure.value, figure.unit)}"


def _conclude(results: Results) -> str:
    curves = {case: curve_of(results, case, SLEEP) for case in (STOCK, TUNED, HEADGATE)}
    shown = [multiple for multiple in curves[HEADGATE] if multiple > 1]
    loads = " / ".join(f"{multiple:g}×" for multiple in shown)
    parts = [
        f"{words} {' / '.join(f'{curve[multiple].share:.0%}' for multiple in shown)}"
        for words, curve in zip(("stock", "its best pool_timeout", "Headgate"), curves.values(), strict=True)
    ]
    capacity = curves[HEADGATE][shown[0]].point.capacity
    return f"At {loads} of what it can ({capacity:.0f}/s), goodput is: {', '.join(parts)}.{_conclude_pings(curves)}"


def _conclude_pings(curves: Mapping[str, Curve]) -> str:
    last = max(curves[HEADGATE])
    answered = [
        f"{curve[last].point.pings.count / max(1, curve[last].point.ping_requests):.0%}"
        for curve in (curves[STOCK], curves[HEADGATE])
    ]
    return f" Of /ping at {last:g}×, which needs no database: {' → '.join(answered)} answered."
