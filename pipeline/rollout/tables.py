"""The journal's tables, and opening them: a SQLite file, or a PostgreSQL server that several people share."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Engine,
    Float,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    event,
    insert,
    make_url,
    select,
    text,
)
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from pipeline.errors import EnvironmentFault, MissingExtra, UsageError

SCHEMA = 1
# Long enough for another process to finish a transaction on a slow disk; ours take milliseconds.
_BUSY_S = 30
_LOCK = 7_351_077  # any number, the same for all of us: only one makes the tables
_DRIVERS = {"postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg", "sqlite": "sqlite"}

META = MetaData()

facts = Table(
    "journal", META, Column("key", String(32), primary_key=True), Column("value", String(128), nullable=False)
)
releases = Table(
    "releases",
    META,
    Column("id", String(64), primary_key=True),
    Column("name", Text, nullable=False),
    Column("sequence", Integer, nullable=False),
    Column("manifest", LargeBinary, nullable=False),
    Column("signature", LargeBinary, nullable=False),
    Column("bundle", Text, nullable=False),  # where this host keeps it
    Column("seen_s", Float, nullable=False),
)
rollouts = Table(
    "rollouts",
    META,
    Column("id", String(32), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("release", String(64), ForeignKey("releases.id")),  # of a rollback: NULL, each device has its own
    Column("name", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("policy", Text, nullable=False),
    Column("allow_downgrade", Boolean, nullable=False),
    Column("owner", Text, nullable=False),  # the controller that works on it
    Column("owner_until_s", Float, nullable=False),
    Column("began_s", Float, nullable=False),
    Column("ended_s", Float),
)
members = Table(
    "members",
    META,
    Column("rollout", String(32), ForeignKey("rollouts.id"), primary_key=True),
    Column("device", String(255), primary_key=True),
    Column("place", Integer, nullable=False),  # in the order of the fleet
    Column("device_class", Text, nullable=False),
    Column("group", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("wave", Integer, nullable=False),
    Column("installed", String(64), nullable=False),
    Column("code", String(64), nullable=False),
    Column("reason", Text, nullable=False),
    Column("hint", Text, nullable=False),
    Column("bytes_on_wire", Integer, nullable=False),
    Column("pairs", Text, nullable=False),
    Column("boot_id", Text, nullable=False),
    Column("since_s", Float, nullable=False),
)
steps = Table(
    "steps",
    META,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("rollout", String(32), ForeignKey("rollouts.id"), nullable=False, index=True),
    Column("device", String(255), nullable=False),
    Column("step", String(32), nullable=False),
    Column("release", String(64), nullable=False),
    Column("began_s", Float, nullable=False),
    Column("ended_s", Float),  # NULL: nobody knows how it ended, the device has to be asked
    Column("outcome", String(64), nullable=False),  # "ok", or the code of what went wrong
    Column("detail", Text, nullable=False),
)
waves = Table(
    "waves",
    META,
    Column("rollout", String(32), ForeignKey("rollouts.id"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("passed", Boolean, nullable=False),
    Column("reasons", Text, nullable=False),
    Column("notes", Text, nullable=False),
    Column("judged_s", Float, nullable=False),
)
devices = Table(
    "devices",
    META,
    Column("device", String(255), primary_key=True),
    Column("device_class", Text, nullable=False),
    Column("installed", String(64), nullable=False),  # as last seen
    Column("pending", String(64), nullable=False),
    Column("seen_s", Float),  # NULL: never
    Column("desired", String(64), nullable=False),  # "" nothing was ever asked for
    Column("pinned", Boolean, nullable=False),
    Column("why", Text, nullable=False),
    Column("since_s", Float, nullable=False),
)


class Database:
    """A journal's database, open; every transaction is one `with` block."""

    def __init__(self, engine: Engine, shown: str) -> None:
        self._engine = engine
        self.shown = shown  # without a password
        # Devices are worked on by many threads, and SQLite has one writer: waiting here is cheaper than its own tries.
        self._turn = threading.RLock()

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction, on disk when the block has ended. Raises EnvironmentFault."""
        with self._turn, self._explained(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """The same for looking only."""
        with self._explained(), self._engine.connect() as connection:
            yield connection

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as fault:
            why = str(fault.orig if isinstance(fault, DBAPIError) else fault).strip().splitlines()[0]
            hint = "look at its server, or choose another one with --journal URL"
            raise EnvironmentFault(f"the journal {self.shown} cannot be used: {why}", hint=hint) from fault


def open_database(where: str, folder: Path, *, trusted: bool = False) -> Database:
    """The database at a URL, or `journal.db` in the state folder when there is none; its tables are made when missing.

    A password in the URL is refused unless the URL is `trusted` to be secret, as one from the environment is.
    Raises UsageError for a URL that is none, MissingExtra, or EnvironmentFault.
    """
    url = _url(where, folder, trusted=trusted)
    lite = url.get_backend_name() == "sqlite"
    options = {"connect_args": {"timeout": _BUSY_S}} if lite else {"pool_pre_ping": True, "pool_size": 8}
    try:
        engine = create_engine(url, **options)
    except ModuleNotFoundError as fault:
        hint = "pip install 'edge-deploy-pipeline[postgres]'"
        raise MissingExtra(f"a PostgreSQL journal needs {fault.name}", hint=hint) from fault
    if lite:
        folder.mkdir(parents=True, exist_ok=True)
        event.listen(engine, "connect", _on_connect)
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    database = Database(engine, url.render_as_string(hide_password=True) if not lite else str(url.database))
    _prepare(database, lite=lite)
    return database


def _url(where: str, folder: Path, *, trusted: bool) -> URL:
    if not where:
        return URL.create("sqlite", database=str(folder / "journal.db"))
    hint = "write postgresql://user@host/database, or sqlite:///file"
    try:
        url = make_url(where)
    except ArgumentError:
        raise UsageError("the journal's URL is none", hint=hint) from None
    if url.drivername not in _DRIVERS:
        raise UsageError(f"no journal can be kept in {url.drivername!r}", hint=hint)
    if url.password is not None and not trusted:
        raise UsageError(
            "the journal's URL holds a password, which others can read there",
            hint="leave it out and use PGPASSFILE or PGPASSWORD, or give the whole URL in DEPLOY_JOURNAL",
        )
    return url.set(drivername=_DRIVERS[url.drivername])


def _on_connect(connection: object, _: object) -> None:
    connection.isolation_level = None  # type: ignore[attr-defined]  # transactions begin where we say so, below
    cursor = connection.cursor()  # type: ignore[attr-defined]
    # A step that is not on the disk has not been written: the power may fail while the device goes on.
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _prepare(database: Database, *, lite: bool) -> None:
    """Make what is missing, and refuse what a newer version has made."""
    import secrets

    with database.write() as connection:
        if not lite:  # two that find nothing would both make it
            connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _LOCK})
        META.create_all(connection)
        found = {row.key: row.value for row in connection.execute(select(facts.c.key, facts.c.value))}
        if not found:
            made = {"schema": str(SCHEMA), "id": secrets.token_hex(8), "made_s": f"{time.time():.0f}"}
            connection.execute(insert(facts), [{"key": key, "value": value} for key, value in made.items()])
        elif int(found["schema"]) != SCHEMA:
            raise EnvironmentFault(
                f"the journal {database.shown} has schema {found['schema']}, this version knows {SCHEMA}",
                hint="use the version that made it, or start another journal with --journal URL",
            )
