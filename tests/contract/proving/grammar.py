"""Random statements: templates with holes that are filled with templates, so that nearly all of them run.

``{int}`` in a template is a hole for any expression of that kind. Every query reads from something named ``x`` that has
the columns of table ``a``, so that what stands in a hole fits wherever the hole is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from random import Random
from typing import Any

from hypothesis import strategies as st

Draw = Callable[[st.SearchStrategy[Any]], Any]
Choose = Callable[[list[str]], str]
Grammar = Mapping[str, list[str]]
"""Kind of text → its templates, those without holes first."""

MAX_DEPTH = 4
HOLE = re.compile(r"\{([a-z_]{3,})\}")
TOKEN = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|[\w.]+|::|[^\w\s'\"]+")
GAPS = [" ", " ", " ", "\n", "\t ", " /* a ' \" ; ( */ ", " -- it's\n", "/**/"]


def fill(choose: Choose, grammar: Grammar, text: str, depth: int = 0) -> str:
    """``text`` with everything in its holes that its grammar has for them."""

    def filling(hole: re.Match[str]) -> str:
        templates = grammar[hole[1]]
        if depth >= MAX_DEPTH:
            templates = [template for template in templates if "{" not in template] or templates
        return fill(choose, grammar, choose(templates), depth + 1)

    return HOLE.sub(filling, text)


def endanger(choose: Choose, grammar: Grammar, kind: str, danger: str) -> str:
    """A statement that would run, with the danger in one of its holes."""
    filled = fill(choose, grammar, danger, MAX_DEPTH - 1)
    if kind == "statement":
        return filled
    frame = choose([text for text in grammar["statement"] if f"{{{kind}}}" in text])
    before, *others = frame.split(f"{{{kind}}}")
    place = int(choose([str(place) for place, _ in enumerate(others)]))
    others[place] = "\0" + others[place]
    marked = f"{{{kind}}}".join([before, *others]).replace(f"{{{kind}}}\0", "\0")
    return fill(choose, grammar, marked, MAX_DEPTH - 1).replace("\0", filled)


def disguise(chance: Random, sql: str) -> str:
    """The same statement with other spaces, cases and comments."""
    return "".join(_in_any_case(chance.random(), token) + chance.choice(GAPS) for token in TOKEN.findall(sql))


def _in_any_case(chance: float, token: str) -> str:
    if token[0] in "'\"" or chance < 0.5:
        return token
    return token.upper() if chance < 0.75 else token.title()


def traps(chance: Random, grammar: Grammar, dangers: Grammar) -> Iterator[str]:
    """Each danger once, in a statement of its own, sometimes disguised."""
    for kind, texts in dangers.items():
        for danger in texts:
            sql = endanger(chance.choice, grammar, kind, danger)
            yield disguise(chance, sql) if chance.random() < 0.3 else sql


@st.composite
def statements(draw: Draw, grammar: Grammar) -> str:
    """A random statement."""
    return fill(lambda texts: draw(st.sampled_from(texts)), grammar, "{statement}")


@st.composite
def endangered(draw: Draw, grammar: Grammar, dangers: Grammar) -> str:
    """A random statement with a danger in it."""
    kind, danger = draw(st.sampled_from([(kind, danger) for kind in dangers for danger in dangers[kind]]))
    return endanger(lambda texts: draw(st.sampled_from(texts)), grammar, kind, danger)


@st.composite
def disguised(draw: Draw, texts: st.SearchStrategy[str]) -> str:
    """One of these statements in another guise."""
    return disguise(Random(draw(st.integers(0, 2**32))), draw(texts))


@st.composite
def mutated(draw: Draw, texts: st.SearchStrategy[str], fragments: list[str]) -> str:
    """One of these statements with some tokens taken out, doubled, or replaced by other things."""
    tokens = TOKEN.findall(draw(texts))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(tokens)))
        put = draw(st.lists(st.sampled_from([*fragments, *tokens]), max_size=2))
        tokens[at : at + draw(st.integers(0, 2))] = put
    return draw(st.sampled_from([" ", " ", "\n", "/**/"])).join(tokens)
