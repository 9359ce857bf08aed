"""Attributes that are made when first asked for, and once, however many threads ask at that moment."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

ValueT = TypeVar("ValueT")


class once(cached_property[ValueT]):  # noqa: N801  # a decorator
    """As ``functools.cached_property``, which from Python 3.12 on lets each of several threads make one.

    The instance has a lock that its maker may take again, ``_making``.
    """

    if not TYPE_CHECKING:

        def __get__(self, instance: Any, owner: Any = None) -> Any:
            if instance is None:
                return self
            with instance._making:
                return super().__get__(instance, owner)
