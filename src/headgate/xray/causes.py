"""Why the ORM sends a statement: the relationship or column of an object that is loaded with it."""

from __future__ import annotations

from typing import Any, NamedTuple


class Cause(NamedTuple):
    """What is loaded, ``Order.items``, and what that is: ``collection``, ``reference``, ``deferred``, ``expired``."""

    attribute: str
    loads: str


UNKNOWN = Cause("", "")


def cause_of(context: Any) -> Cause:
    """The cause of the statement that an execution context is about to send; ``UNKNOWN`` for one of the app's own."""
    try:
        options = context.execution_options.get("_sa_orm_load_options")
        if options is None:
            return UNKNOWN
        compiling = context.invoked_statement._compile_options
        if options._refresh_state is not None:
            return _refreshing(options._refresh_state.mapper, compiling._only_load_props or ())
        if options._lazy_loaded_from is not None:
            prop = compiling._current_path.prop
            return Cause(str(prop), "collection" if prop.uselist else "reference")
    except Exception:  # SQLAlchemy's own names, which may change: a cause is a bonus
        pass
    return UNKNOWN


def _refreshing(mapper: Any, keys: Any) -> Cause:
    """An object whose columns were deferred, or forgotten by a commit."""
    names = sorted(keys)
    if names and all(getattr(mapper.attrs[name], "deferred", False) for name in names):
        return Cause(f"{mapper.class_.__name__}.{names[0]}", "deferred")
    return Cause(mapper.class_.__name__, "expired")
