"""What the proof of a statement costs: a known text, an unknown one, and texts made to be slow.

Run it by hand: ``python benchmarks/statements.py``. Every figure is the best of several runs, as the least disturbed.
"""

from __future__ import annotations

import timeit
from collections.abc import Callable
from functools import partial

from headgate.sql_words import MAX_TEXT_BYTES, MAX_TOKENS
from headgate.statements import StatementProof, classify_text

SHORT = "SELECT users.id, users.name FROM users WHERE users.id = %(pk_1)s::INTEGER"
TYPICAL = """SELECT anon_1.author_id, anon_1.author_name, book_1.id, book_1.author_id AS author_id_1, book_1.title
FROM (SELECT author.id AS author_id, author.name AS author_name, count(*) OVER (PARTITION BY author.kind) AS n
FROM author WHERE author.name LIKE %(name_1)s::VARCHAR || '%%' AND author.born > CAST(%(born_1)s AS DATE)
ORDER BY lower(author.name) DESC LIMIT %(param_1)s::INTEGER) AS anon_1 LEFT OUTER JOIN book AS book_1
ON anon_1.author_id = book_1.author_id ORDER BY lower(anon_1.author_name) DESC"""
EXPANDED = f"SELECT t.id FROM t WHERE t.id IN ({', '.join(f'%(id_1_{n})s::INTEGER' for n in range(1, 1_001))})"

HOSTILE = {
    "open parentheses": "(",
    "balanced parentheses": "()",
    "calls": "abs(",
    "brackets": "[",
    "single quotes": "'",
    "literals": "'' ",
    "double quotes": '"',
    "open comments": "/*",
    "comments": "/**/",
    "line comments": "--\n",
    "stars and slashes": "*/",
    "words": "a ",
    "columns": ",a",
    "dotted names": "a.b,",
    "commas": ",",
    "dots": ".",
    "numbers": "1.1.",
    "signs": "+",
    "signs before a percent": "+%",
    "casts": "::int",
    "placeholders": "%(a)s,",
    "percents": "%",
    "escaped percents": "%% ",
    "dollars": "$",
    "spaces": " ",
    "selects": "SELECT ",
    "common table expressions": "a AS (SELECT 1),",
    "type arguments": "a::numeric(1,",
}


def best_ns(run: Callable[[], object], number: int, repeat: int = 5) -> float:
    """Nanoseconds of one ``run``."""
    return min(timeit.repeat(run, number=number, repeat=repeat)) / number * 1e9


def hostile_texts() -> dict[str, str]:
    """Texts of exactly the greatest size that is read, each after a beginning that gets it past the first look."""
    texts = {}
    for name, part in HOSTILE.items():
        for beginning in ("SELECT 1", "WITH "):
            size = MAX_TEXT_BYTES - len(beginning)
            texts[f"{name}, after {beginning.strip()}"] = beginning + (part * size)[:size]
    for name, part, tokens in (
        ("words", " abcd", 1),
        ("calls", ",abs(a)", 5),
        ("types", ",a::int", 4),
        ("quotes", ",'%a'", 2),
    ):
        walked = "SELECT 1 --%a\n" + part * ((MAX_TOKENS - 10) // tokens)
        texts[f"as many {name} as are walked"] = walked.ljust(MAX_TEXT_BYTES)[:MAX_TEXT_BYTES]
    return texts


def classify_ns(sql: str, number: int = 1, repeat: int = 3) -> float:
    return best_ns(partial(classify_text, sql, "postgresql"), number, repeat)


def print_known() -> None:
    proof = StatementProof("postgresql")
    for name, sql in (("short", SHORT), ("typical", TYPICAL)):
        proof.classify(sql)
        print(f"  {name:<32} {len(sql):>8} bytes {best_ns(partial(proof.classify, sql), 200_000):>10.0f} ns")


def print_unknown() -> None:
    for name, sql in (("short", SHORT), ("typical", TYPICAL), ("1,000 parameters", EXPANDED)):
        found = classify_text(sql, "postgresql").name
        print(f"  {name:<32} {len(sql):>8} bytes {classify_ns(sql, number=200) / 1e3:>10.1f} µs  {found}")


def print_hostile() -> None:
    took_ns = {name: classify_ns(sql) for name, sql in hostile_texts().items()}
    for name in sorted(took_ns, key=lambda name: -took_ns[name])[:10]:
        print(f"  {name:<48} {took_ns[name] / 1e6:>8.1f} ms")


def print_growth() -> None:
    for name, part in (("calls", ", abs(a.b)"), ("literals", ", 'x'"), ("comments", ",1/**/")):
        took_ns = [classify_ns("SELECT 1" + part * times, number=3) for times in (500, 1_000, 2_000, 4_000)]
        print(f"  {name:<32} {' '.join(f'{ns / 1e6:6.2f}' for ns in took_ns)} ms for 500, 1,000, 2,000, 4,000 times")


if __name__ == "__main__":
    print("known text (memo hit)")
    print_known()
    print("unknown text (one reading)")
    print_unknown()
    print(f"hostile texts of {MAX_TEXT_BYTES // 1024} KiB, the ten slowest of {len(hostile_texts())}")
    print_hostile()
    print("growth")
    print_growth()
