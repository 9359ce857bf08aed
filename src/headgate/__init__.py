"""Back pressure and leased database connections for FastAPI + SQLAlchemy."""

from headgate.admission import lane
from headgate.config import GateOptions, LeaseOptions
from headgate.database import Database
from headgate.engines import lease
from headgate.errors import ConfigError, HeadgateError, LeaseError, Overloaded
from headgate.pool import AsyncLeasePool, LeasePool
from headgate.sessions import AsyncSession, Session
from headgate.version import __version__

__all__ = [
    "AsyncLeasePool",
    "AsyncSession",
    "ConfigError",
    "Database",
    "GateOptions",
    "HeadgateError",
    "LeaseError",
    "LeaseOptions",
    "LeasePool",
    "Overloaded",
    "Session",
    "__version__",
    "lane",
    "lease",
]
