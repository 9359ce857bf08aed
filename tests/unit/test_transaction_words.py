from __future__ import annotations

import pytest

from headgate.testing.joined import transaction_word


@pytest.mark.parametrize(
    ("statement", "word"),
    [
        ("BEGIN", "begin"),
        ("begin immediate", "begin"),
        (" \n START TRANSACTION READ ONLY", "begin"),
        ("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY", "begin"),
        ("COMMIT", "commit"),
        ("end;", "commit"),
        ("COMMIT AND CHAIN", "commit"),
        ("ROLLBACK", "rollback"),
        ("abort", "rollback"),
        ("ROLLBACK TO SAVEPOINT a", None),
        ("ROLLBACK WORK TO a", None),
        ("ROLLBACK TRANSACTION TO SAVEPOINT a", None),
        ("COMMIT PREPARED 'a'", None),
        ("SAVEPOINT begin", None),
        ("SELECT 1 -- COMMIT", None),
        ("endpoint", None),
        ("SET search_path TO a", None),
        (b"COMMIT", None),
    ],
)
def test_a_text_that_begins_or_ends_a_transaction_is_recognized(statement: object, word: str | None) -> None:
    assert transaction_word(statement) == word
