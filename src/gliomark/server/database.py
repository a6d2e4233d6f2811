"""Database tables: studies, jobs, corrections, pathology results, tokens and an append-only audit log.

SQLite by default, PostgreSQL by URL, with the same tables. Images and results are files in the data folder, see
``study_store``; the database holds their metadata, their owners and the hashes of inputs and weights.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from sqlalchemy import (
    JSON,
    ColumnElement,
    Connection,
    DateTime,
    Dialect,
    Engine,
    ForeignKey,
    LargeBinary,
    Select,
    String,
    TypeDecorator,
    cast,
    create_engine,
    event,
    func,
    insert,
    select,
    type_coerce,
    update,
)
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from gliomark.errors import ConfigurationError, InputError
from gliomark.messages import Message, from_message_record, message, to_message_record
from gliomark.server import audit_chain
from gliomark.server.migrations.upgrade import READ_ONLY_OPTION, upgrade_database

Role = Literal["reader", "admin"]
ROLES = ("reader", "admin")
JobState = Literal["queued", "running", "done", "failed", "cancelled"]
FINAL_STATES = ("done", "failed", "cancelled")
SERIES_UIDS_KEY = "series_uids"  # in ``StudyRow.about``
TOKEN_ADDED_ACTION = "token added"  # noqa: S105 - an action in the audit log, not a token
COMMAND_LINE_CALLER, DICOM_NODE_CALLER = "command line", "DICOM node"
LOCKED_S = 30.0  # longest wait for SQLite's file lock
MAX_AUDIT_LINES = 1000  # most lines of the audit log in one response
MAX_JOB_ATTEMPTS = 2  # a job whose worker crashed is retried once


class UtcDateTime(TypeDecorator[datetime]):
    """A time in UTC; SQLite stores no time zone, so it is added on reading."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Add the zone to a time from SQLite."""
        return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value


class MessageText(TypeDecorator[str]):
    """A text. Messages are stored with their code and parameters, so that they can be translated."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Encode a message as JSON; other texts are stored unchanged."""
        return (
            json.dumps(to_message_record(value), ensure_ascii=False) if isinstance(value, Message) else value
        )

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        """Decode a message; other texts, such as those of older versions, are returned unchanged."""
        try:
            record = json.loads(value or "")
            return from_message_record(record) if isinstance(record["text"], str) else value
        except (ValueError, TypeError, KeyError):
            return value


class Base(DeclarativeBase):
    """Base class of the tables."""

    type_annotation_map = {dict[str, Any]: JSON, datetime: UtcDateTime}  # noqa: RUF012


def _get_utc_now() -> datetime:
    return datetime.now(UTC)


def _create_id() -> str:
    return str(uuid.uuid4())


class StudyRow(Base):
    """An uploaded study.

    Attributes
    ----------
    about
        Metadata of the prepared images, see ``StudyResponse``.
    input_sha256
        SHA-256 of the uploaded files.
    correction
        SHA-256 of the reader's mask; empty if the model's is used.
    """

    __tablename__ = "studies"
    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=_create_id)
    patient_id: Mapped[str]
    model: Mapped[str]
    input_sha256: Mapped[str] = mapped_column(String(64))
    state: Mapped[str] = mapped_column(default="preparing")
    step: Mapped[str] = mapped_column(MessageText, default="")
    progress: Mapped[float] = mapped_column(default=0.0)
    error: Mapped[str | None] = mapped_column(MessageText, default=None)
    about: Mapped[dict[str, Any]] = mapped_column(default=dict)
    correction: Mapped[str] = mapped_column(String(64), default="")
    deleted: Mapped[bool] = mapped_column(default=False)
    owner: Mapped[str]
    created: Mapped[datetime] = mapped_column(default=_get_utc_now)

    @property
    def corrected(self) -> bool:
        """Whether the reader's mask replaces the model's."""
        return bool(self.correction)


class JobRow(Base):
    """A job of a worker: prepare, predict or explain.

    Attributes
    ----------
    request
        Options of the job.
    result
        Content of ``prediction.json``, for a prediction.
    outline_sha256
        SHA-256 of the reader's mask that is used; empty for the model's.
    """

    __tablename__ = "jobs"
    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=_create_id)
    kind: Mapped[str]
    study_id: Mapped[str] = mapped_column(ForeignKey("studies.id"))
    patient_id: Mapped[str]
    request: Mapped[dict[str, Any]] = mapped_column(default=dict)
    state: Mapped[str] = mapped_column(default="queued", index=True)
    step: Mapped[str] = mapped_column(MessageText, default="")
    progress: Mapped[float] = mapped_column(default=0.0)
    attempts: Mapped[int] = mapped_column(default=0)
    error: Mapped[str | None] = mapped_column(MessageText, default=None)
    result: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True), default=None)
    input_sha256: Mapped[str] = mapped_column(String(64), default="")
    model_sha256: Mapped[str] = mapped_column(String(64), default="")
    outline_sha256: Mapped[str] = mapped_column(String(64), default="")
    owner: Mapped[str]
    created: Mapped[datetime] = mapped_column(default=_get_utc_now, index=True)
    seconds: Mapped[float | None] = mapped_column(default=None)


WatchedTable = type[StudyRow] | type[JobRow]  # tables whose rows can be followed by an event stream


class PathologyRow(Base):
    """The pathology result of a predicted marker."""

    __tablename__ = "truths"
    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=_create_id)
    prediction_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    marker: Mapped[str]
    value: Mapped[str]
    note: Mapped[str] = mapped_column(default="")
    owner: Mapped[str]
    created: Mapped[datetime] = mapped_column(default=_get_utc_now)


class TokenRow(Base):
    """The hash and owner of a token; the token itself is shown once and not stored."""

    __tablename__ = "tokens"
    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    role: Mapped[str]
    created: Mapped[datetime] = mapped_column(default=_get_utc_now)


class DeliveryRow(Base):
    """Delivery of a prediction's results to one destination.

    Attributes
    ----------
    state
        ``owed``, ``sent`` or ``given up``.
    tries
        Attempts so far.
    due
        Time of the next attempt.
    """

    __tablename__ = "deliveries"
    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=_create_id)
    prediction_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    destination: Mapped[str]
    state: Mapped[str] = mapped_column(default="owed", index=True)
    tries: Mapped[int] = mapped_column(default=0)
    due: Mapped[datetime] = mapped_column(default=_get_utc_now)


class CommitmentRow(Base):
    """A request for storage commitment that an archive has not answered yet.

    Attributes
    ----------
    archive
        Its AE title.
    objects
        Modality by SOP instance UID.
    wait_s, due
        Seconds for the report, and the time at which they are over.
    """

    __tablename__ = "commitments"
    transaction_uid: Mapped[str] = mapped_column(String(64), primary_key=True)
    prediction_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    archive: Mapped[str]
    objects: Mapped[dict[str, Any]]
    wait_s: Mapped[float]
    due: Mapped[datetime]


class AuditRow(Base):
    """A line of the audit log: caller, action, study or job, and time.

    Attributes
    ----------
    detail
        Hashes and options, never a name or an age.
    previous_sha256, sha256
        Hashes that chain the lines, see ``audit_chain``.
    """

    __tablename__ = "audit"
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    at: Mapped[datetime]
    who: Mapped[str]
    action: Mapped[str] = mapped_column(index=True)
    subject: Mapped[str]
    detail: Mapped[dict[str, Any]] = mapped_column(default=dict)
    previous_sha256: Mapped[str] = mapped_column(String(64))
    sha256: Mapped[str] = mapped_column(String(64))


class AuditHeadRow(Base):
    """Number and hash of the newest line, in a single row that every writer of the log locks."""

    __tablename__ = "audit_head"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    number: Mapped[int]
    sha256: Mapped[str] = mapped_column(String(64))


def append_audit_line(
    session: Session,
    who: str,
    action: str,
    subject: str,
    detail: Mapping[str, Any],
    recorded_at: datetime | None = None,
) -> None:
    """Append a line to the audit log in the caller's transaction.

    This is the only function that writes to the log. It locks the head until the transaction ends, so that two
    writers cannot follow the same line.

    Parameters
    ----------
    recorded_at
        Time of the line; by default now.
    """
    session.flush()  # every writer takes its other locks before that of the head, which avoids deadlocks
    recorded_at, head = recorded_at or _get_utc_now(), _read_recorded_head(session, locks_row=True)
    line = audit_chain.create_next_line(head, recorded_at, who, action, subject, detail)
    hashes = {"previous_sha256": line.previous_sha256, "sha256": line.sha256}
    row = {
        "number": line.number,
        "at": recorded_at,
        "who": who,
        "action": action,
        "subject": subject,
        "detail": line.detail,
    }
    session.execute(insert(AuditRow).values(**row, **hashes))
    session.execute(update(AuditHeadRow).values(number=line.number, sha256=line.sha256))


def _lock_job_with_study(session: Session, job_id: str) -> JobRow | None:
    """Lock the study, then the job: the order in which a study is deleted, which avoids a deadlock."""
    study = session.scalar(select(JobRow.study_id).where(JobRow.id == job_id))
    session.execute(select(StudyRow.id).where(StudyRow.id == study).with_for_update())
    return session.get(JobRow, job_id, with_for_update=True)


@dataclass(frozen=True)
class Caller:
    """The authenticated caller: name and role of a token, or the local user."""

    name: str
    role: Role


def hash_token(token: str) -> str:
    """Return the hash of a token; a plain hash is safe because tokens hold 256 random bits."""
    return hashlib.sha256(token.encode()).hexdigest()


def connect_database(url: str) -> Engine:
    """Open the database; its tables are created or upgraded.

    Raises
    ------
    ConfigurationError
        If it cannot be reached or belongs to a newer version.
    """
    try:
        engine = create_engine(url, pool_pre_ping=True, hide_parameters=True)
        if engine.dialect.name == "sqlite":
            event.listen(engine, "connect", _configure_sqlite)
            event.listen(engine, "begin", _begin_sqlite_transaction)
        if engine.dialect.name == "postgresql":
            event.listen(engine, "do_connect", _set_client_encoding)
        upgrade_database(engine, Base.metadata)
    except (SQLAlchemyError, ImportError) as error:
        reason = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise ConfigurationError(message("database-unopened", reason=reason)) from None
    return engine


def _set_client_encoding(
    _dialect: object, _record: object, _arguments: object, connect_options: dict[str, Any]
) -> None:
    """Set the encoding: a PostgreSQL cluster created without a locale would return bytes."""
    connect_options.setdefault("client_encoding", "utf8")


def _configure_sqlite(connection: Any, _: object) -> None:
    """Configure SQLite: readers do not wait for the writer; a second writer waits instead of failing."""
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout={round(1000 * LOCKED_S)}")
    _keep_journal(connection)
    for line in ("foreign_keys=ON", "synchronous=NORMAL"):
        connection.execute(f"PRAGMA {line}")


def _keep_journal(connection: Any) -> None:
    """Switch to WAL, with retries: SQLite does not wait if two programs do this at the same time."""
    ends = time.monotonic() + LOCKED_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > ends:
                raise
            time.sleep(0.02)


def _begin_sqlite_transaction(connection: Connection) -> None:
    """Begin a writing transaction as the writer: SQLite cannot lock the rows that it reads before it writes."""
    reads = connection.get_execution_options().get(READ_ONLY_OPTION)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


@dataclass(frozen=True)
class AuditEntry:
    """A line to be written to the audit log.

    Attributes
    ----------
    at
        Time of the action; None for the time of writing.
    """

    who: str
    action: str
    subject: str
    detail: Mapping[str, Any] = field(default_factory=dict)
    at: datetime | None = None


@dataclass(frozen=True)
class AuditFilter:
    """Selection of lines of the audit log.

    Attributes
    ----------
    before
        Only smaller numbers.
    since
        Only lines written at this time or later.
    """

    before: int | None = None
    since: datetime | None = None
    who: str | None = None
    action: str | None = None
    subject: str | None = None

    @property
    def audit_detail(self) -> dict[str, Any]:
        """The selection, as recorded in the audit log when the log is read."""
        detail = {name: getattr(self, name) for name in ("who", "action", "subject") if getattr(self, name)}
        return detail | ({"since": audit_chain.format_utc_time(self.since)} if self.since else {})

    def apply_to_query(self, query: Select[AuditRow]) -> Select[AuditRow]:
        """Restrict a query to the selected lines."""
        wanted_values = {AuditRow.who: self.who, AuditRow.action: self.action, AuditRow.subject: self.subject}
        query = query.where(
            *(column == value for column, value in wanted_values.items() if value is not None)
        )
        if self.before is not None:
            query = query.where(AuditRow.number < self.before)
        return query if self.since is None else query.where(AuditRow.at >= self.since)


def _read_recorded_head(session: Session, locks_row: bool = False) -> audit_chain.ChainHead:
    """Return the head that is stored beside the log.

    Raises
    ------
    ConfigurationError
        If its row is missing.
    """
    query = select(AuditHeadRow.number, AuditHeadRow.sha256).where(AuditHeadRow.id == 1)
    row = session.execute(query.with_for_update() if locks_row else query).first()
    if row is None:
        raise InputError(message("audit-head-row-gone"))
    return audit_chain.ChainHead(*row)


class Database:
    """All database access; rows are returned detached, as they were when read."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._write_sessions = sessionmaker(engine, expire_on_commit=False)
        self._read_sessions = sessionmaker(
            engine.execution_options(**{READ_ONLY_OPTION: True}), expire_on_commit=False
        )
        self._had_tokens = False

    @contextmanager
    def write_transaction(self) -> Iterator[Session]:
        """One transaction, committed or rolled back as a whole."""
        with self._write_sessions.begin() as session:
            yield session

    @contextmanager
    def read_transaction(self) -> Iterator[Session]:
        """A read-only transaction with a consistent state; it does not wait for writers."""
        with self._read_sessions.begin() as session:
            yield session

    # ---- tokens and audit log -----------------------------------------------------------------------

    def add_token(self, name: str, role: str) -> str:
        """Create a token and return it; only its hash is stored.

        Raises
        ------
        ConfigurationError
            If the role is unknown or the name in use.
        """
        if role not in ROLES:
            raise ConfigurationError(message("token-role", role=role, known=" or ".join(ROLES)))
        token = secrets.token_urlsafe(32)
        with self.write_transaction() as session:
            if session.scalar(select(TokenRow).where(TokenRow.name == name)):
                raise ConfigurationError(message("token-name-taken", name=name))
            session.add(TokenRow(sha256=hash_token(token), name=name, role=role))
            append_audit_line(session, COMMAND_LINE_CALLER, TOKEN_ADDED_ACTION, name, {"role": role})
        return token

    def revoke_token(self, name: str) -> None:
        """Delete a token.

        Raises
        ------
        ConfigurationError
            If there is none with this name.
        """
        with self.write_transaction() as session:
            row = session.scalar(select(TokenRow).where(TokenRow.name == name))
            if row is None:
                raise ConfigurationError(message("no-such-token", name=name))
            session.delete(row)
            append_audit_line(session, COMMAND_LINE_CALLER, "token revoked", name, {})

    def list_tokens(self) -> list[TokenRow]:
        """Return all tokens, sorted by name."""
        with self.read_transaction() as session:
            return list(session.scalars(select(TokenRow).order_by(TokenRow.name)))

    def has_had_tokens(self) -> bool:
        """Whether a token was ever added, even if all have been revoked; the audit log still shows that."""
        if not self._had_tokens:
            token_added_query = select(AuditRow.number).where(AuditRow.action == TOKEN_ADDED_ACTION).limit(1)
            with self.read_transaction() as session:
                results = (
                    session.scalar(query) for query in (select(TokenRow.name).limit(1), token_added_query)
                )
                self._had_tokens = any(one is not None for one in results)
        return self._had_tokens

    def find_caller(self, token: str) -> Caller | None:
        """Return the owner of a token; None if it is unknown."""
        with self.read_transaction() as session:
            row = session.get(TokenRow, hash_token(token))
            return None if row is None else Caller(row.name, "admin" if row.role == "admin" else "reader")

    def add_audit_entry(self, who: str, action: str, subject: str, **detail: Any) -> None:
        """Add a line to the audit log."""
        with self.write_transaction() as session:
            append_audit_line(session, who, action, subject, detail)

    def add_audit_entries(self, entries: Iterable[AuditEntry]) -> None:
        """Add several lines to the audit log in one transaction."""
        with self.write_transaction() as session:
            for line in entries:
                append_audit_line(session, line.who, line.action, line.subject, line.detail, line.at)

    def list_audit_lines(
        self, audit_filter: AuditFilter = AuditFilter(), limit: int = MAX_AUDIT_LINES
    ) -> list[AuditRow]:
        """Return the newest selected lines of the audit log, newest first."""
        with self.read_transaction() as session:
            query = (
                audit_filter.apply_to_query(select(AuditRow)).order_by(AuditRow.number.desc()).limit(limit)
            )
            return list(session.scalars(query))

    def iterate_audit_pages(self, audit_filter: AuditFilter = AuditFilter()) -> Iterator[list[AuditRow]]:
        """Yield all selected lines of the audit log, oldest first, one page in memory at a time."""
        last_number = 0
        while True:
            query = audit_filter.apply_to_query(select(AuditRow)).where(AuditRow.number > last_number)
            with self.read_transaction() as session:
                page = list(session.scalars(query.order_by(AuditRow.number).limit(MAX_AUDIT_LINES)))
            if not page:
                return
            yield page
            last_number = page[-1].number

    def read_audit_head(self) -> audit_chain.ChainHead:
        """Return number, hash and time of the newest line."""
        with self.read_transaction() as session:
            head = _read_recorded_head(session)
            at = session.scalar(select(AuditRow.at).where(AuditRow.number == head.number))
            return replace(head, at=audit_chain.format_utc_time(at) if at else "")

    def verify_audit_chain(self, expected_sha256: str = "") -> audit_chain.ChainVerification:
        """Verify the whole chain as it is at this moment.

        Parameters
        ----------
        expected_sha256
            Head hash noted earlier, which must occur in the chain; empty for none.

        Raises
        ------
        InputError
            If the chain is broken, see ``audit_chain.verify_chain``.
        """
        names = ("at", "who", "action", "subject", "detail", "previous_sha256", "sha256")
        columns = (self._select_raw_column(AuditRow.__table__.c[name]) for name in names)
        query = select(AuditRow.number, *columns).order_by(AuditRow.number)
        with self.read_transaction() as session:
            if self.engine.dialect.name == "postgresql":
                session.connection(execution_options={"isolation_level": "REPEATABLE READ"})

            def read_line(number: int) -> audit_chain.AuditLine | None:
                stored_row = session.execute(query.where(AuditRow.number == number)).first()
                return audit_chain.parse_stored_line(*stored_row) if stored_row else None

            recorded = _read_recorded_head(session)
            rows = session.execute(query.execution_options(yield_per=MAX_AUDIT_LINES))
            lines = (audit_chain.parse_stored_line(*row) for row in rows)
            return audit_chain.verify_chain(lines, recorded, read_line, expected_sha256)

    def _select_raw_column(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        """Select a column without decoding.

        A damaged SQLite database may hold values that are not valid text or times.
        """
        if self.engine.dialect.name == "sqlite":
            return cast(column, LargeBinary)
        return type_coerce(column, String)

    # ---- studies ------------------------------------------------------------------------------------

    def add_study(
        self,
        study_id: str,
        patient_id: str,
        model_name: str,
        input_sha256: str,
        owner: str,
        prediction_request: Mapping[str, Any] | None = None,
        destinations: Iterable[str] = (),
        series_uids: Mapping[str, str] | None = None,
    ) -> StudyRow:
        """Add a study and the job that prepares it.

        Parameters
        ----------
        prediction_request
            A prediction to request as well; None for none.
        destinations
            Where to deliver the prediction's results.
        series_uids
            SeriesInstanceUID by sequence; None if the images are not DICOM.
        """
        row = StudyRow(
            id=study_id, patient_id=patient_id, model=model_name, input_sha256=input_sha256, owner=owner
        )
        if series_uids:
            row.about = {SERIES_UIDS_KEY: dict(series_uids)}
        job = JobRow(
            kind="prepare", study_id=study_id, patient_id=patient_id, owner=owner, input_sha256=input_sha256
        )
        with self.write_transaction() as session:
            session.add(row)
            session.flush()
            session.add(job)
            append_audit_line(session, owner, "study uploaded", study_id, {"input_sha256": input_sha256})
            if prediction_request is not None:
                prediction = self._add_job_row(session, "predict", row, prediction_request, owner)
                session.add_all(
                    DeliveryRow(prediction_id=prediction.id, destination=destination)
                    for destination in destinations
                )
        return row

    def find_study(self, study_id: str) -> StudyRow | None:
        """Return a study; None if it does not exist or was deleted."""
        with self.read_transaction() as session:
            row = session.get(StudyRow, study_id)
            return None if row is None or row.deleted else row

    def list_studies(self, patient_id: str | None, limit: int) -> list[StudyRow]:
        """Return studies that were not deleted, newest first; patient_id: a part of the id, None for all patients."""
        query = select(StudyRow).where(~StudyRow.deleted)
        if patient_id is not None:
            query = query.where(StudyRow.patient_id.icontains(patient_id, autoescape=True))
        with self.read_transaction() as session:
            return list(session.scalars(query.order_by(StudyRow.created.desc()).limit(limit)))

    def find_study_of_series(self, series_uid: str) -> StudyRow | None:
        """Return the newest study with this SeriesInstanceUID; None if there is none."""
        about = cast(StudyRow.about, String)
        query = select(StudyRow).where(~StudyRow.deleted, about.contains(f'"{series_uid}"', autoescape=True))
        with self.read_transaction() as session:
            for row in session.scalars(query.order_by(StudyRow.created.desc())):
                if series_uid in row.about.get(SERIES_UIDS_KEY, {}).values():
                    return row
        return None

    def find_latest_study(self, patient_id: str, owner: str) -> StudyRow | None:
        """Return the newest study of a patient that this owner uploaded; None if there is none."""
        query = select(StudyRow).where(
            ~StudyRow.deleted, StudyRow.patient_id == patient_id, StudyRow.owner == owner
        )
        with self.read_transaction() as session:
            return session.scalars(query.order_by(StudyRow.created.desc()).limit(1)).first()

    def list_ready_studies(self) -> list[StudyRow]:
        """Return all prepared studies, oldest first."""
        query = select(StudyRow).where(~StudyRow.deleted, StudyRow.state == "ready")
        with self.read_transaction() as session:
            return list(session.scalars(query.order_by(StudyRow.created, StudyRow.id)))

    def count_ready_studies(self) -> tuple[int, int]:
        """Count the prepared studies, and those among them that a reader has outlined."""
        query = select(func.count(), func.count().filter(StudyRow.correction != ""))
        with self.read_transaction() as session:
            total, corrected = session.execute(
                query.select_from(StudyRow).where(~StudyRow.deleted, StudyRow.state == "ready")
            ).one()
        return int(total), int(corrected)

    def set_correction(self, study_id: str, mask_sha256: str, who: str) -> None:
        """Set the reader's segmentation by its hash; an empty hash restores the model's."""
        with self.write_transaction() as session:
            session.execute(update(StudyRow).where(StudyRow.id == study_id).values(correction=mask_sha256))
            action = "outline corrected" if mask_sha256 else "correction removed"
            append_audit_line(session, who, action, study_id, {"outline_sha256": mask_sha256})

    def delete_study(self, study_id: str, who: str) -> list[str]:
        """Mark a study as deleted and cancel its open jobs; return their ids. The rows are kept."""
        with self.write_transaction() as session:
            session.execute(update(StudyRow).where(StudyRow.id == study_id).values(deleted=True))
            open_jobs = select(JobRow).where(JobRow.study_id == study_id, JobRow.state.not_in(FINAL_STATES))
            cancelled = list(session.scalars(open_jobs))
            for job in cancelled:
                job.state = "cancelled"
            append_audit_line(session, who, "study deleted", study_id, {})
            return [job.id for job in cancelled]

    # ---- jobs ---------------------------------------------------------------------------------------

    def add_job(self, kind: str, study: StudyRow, request: dict[str, Any], owner: str) -> JobRow:
        """Add a job for the workers."""
        with self.write_transaction() as session:
            # read the study again: one that failed or was deleted meanwhile will never be prepared
            current_study = session.scalars(
                select(StudyRow).where(StudyRow.id == study.id).with_for_update()
            ).one()
            return self._add_job_row(session, kind, current_study, request, owner)

    def _add_job_row(
        self, session: Session, kind: str, study: StudyRow, request: Mapping[str, Any], owner: str
    ) -> JobRow:
        job = JobRow(
            kind=kind,
            study_id=study.id,
            patient_id=study.patient_id,
            request=dict(request),
            owner=owner,
            input_sha256=study.input_sha256,
            outline_sha256=study.correction if request.get("outline") == "corrected" else "",
        )
        if study.state == "failed" or study.deleted:
            job.state, job.error = "failed", study.error or message("study-removed")
        session.add(job)
        session.flush()
        audit_detail = {k: v for k, v in request.items() if k not in ("age", "sex")}
        audit_detail |= {"outline_sha256": job.outline_sha256} if job.outline_sha256 else {}
        append_audit_line(session, owner, f"{kind} asked", job.id, audit_detail)
        return job

    def find_job(self, job_id: str) -> JobRow | None:
        """Return a job; None if it does not exist."""
        with self.read_transaction() as session:
            return session.get(JobRow, job_id)

    def find_rows(
        self, keys: Iterable[tuple[WatchedTable, str]]
    ) -> dict[tuple[WatchedTable, str], StudyRow | JobRow]:
        """Return many rows from one moment; rows that do not exist or were deleted are left out."""
        keys = list(keys)
        studies, jobs = ([id for table, id in keys if table is one] for one in (StudyRow, JobRow))
        study_query = select(StudyRow).where(StudyRow.id.in_(studies), StudyRow.deleted.is_(False))
        with self.read_transaction() as session:
            rows: dict[tuple[WatchedTable, str], StudyRow | JobRow] = {}
            rows |= {(StudyRow, row.id): row for row in session.scalars(study_query)}
            rows |= {
                (JobRow, row.id): row for row in session.scalars(select(JobRow).where(JobRow.id.in_(jobs)))
            }
        return rows

    def list_predictions(self, patient_id: str | None, limit: int = 500) -> list[JobRow]:
        """Return predictions, of one patient or all, newest first."""
        query = select(JobRow).where(JobRow.kind == "predict")
        if patient_id is not None:
            query = query.where(JobRow.patient_id == patient_id)
        with self.read_transaction() as session:
            return list(session.scalars(query.order_by(JobRow.created.desc()).limit(limit)))

    def find_latest_outlines(self, study_id: str | None = None) -> dict[str, str]:
        """Return the id of the newest finished prediction with the model's own outline, by study.

        study_id: only of this study.
        """
        query = select(JobRow.study_id, JobRow.id).where(
            JobRow.kind == "predict", JobRow.state == "done", JobRow.outline_sha256 == ""
        )
        if study_id is not None:
            query = query.where(JobRow.study_id == study_id)
        with self.read_transaction() as session:
            return {study: job for study, job in session.execute(query.order_by(JobRow.created))}

    def claim_next_job(self) -> tuple[JobRow, StudyRow] | None:
        """Mark the oldest queued job that can run as running and return it with its study.

        Predictions are claimed only after their study has been prepared.
        """
        prepared = select(StudyRow.id).where(StudyRow.state == "ready")
        waiting = select(JobRow).where(JobRow.state == "queued").order_by(JobRow.created)
        runnable = waiting.where((JobRow.kind == "prepare") | JobRow.study_id.in_(prepared))
        with self.write_transaction() as session:
            job = session.scalars(runnable.limit(1).with_for_update(skip_locked=True)).first()
            if job is None:
                return None
            job.state, job.attempts = "running", job.attempts + 1
            return job, session.get_one(StudyRow, job.study_id)

    def update_progress(self, job_id: str, step: str, progress: float) -> None:
        """Record the progress (0 to 1) of a job, and of the study that it prepares."""
        with self.write_transaction() as session:
            job = _lock_job_with_study(session, job_id)
            if job is None or job.state != "running":
                return
            job.step, job.progress = step, progress
            if job.kind == "prepare":
                study = session.get_one(StudyRow, job.study_id)
                study.step, study.progress = step, progress

    def finish_job(
        self, job_id: str, seconds: float, result: dict[str, Any] | None, model_sha256: str
    ) -> None:
        """Record the result of a job; ignored if the job was cancelled meanwhile."""
        with self.write_transaction() as session:
            job = _lock_job_with_study(session, job_id)
            if job is None or job.state in FINAL_STATES:
                return
            job.state, job.step, job.progress, job.seconds = "done", "", 1.0, seconds
            job.model_sha256 = model_sha256
            study = session.get_one(StudyRow, job.study_id)
            if job.kind == "prepare":
                study.state, study.about = "ready", study.about | (result or {})
                study.step, study.progress = "", 1.0
            else:
                job.result = result
            hashes = {"input_sha256": job.input_sha256, "model_sha256": model_sha256}
            append_audit_line(session, job.owner, f"{job.kind} done", job_id, hashes)

    def fail_job(self, job_id: str, error_message: str) -> None:
        """Mark a job as failed; if it prepares a study, the study and its queued jobs fail too."""
        with self.write_transaction() as session:
            job = _lock_job_with_study(session, job_id)
            if job is None or job.state in FINAL_STATES:
                return
            job.state, job.error = "failed", error_message
            if job.kind == "prepare":
                study = session.get_one(StudyRow, job.study_id)
                study.state, study.error = "failed", error_message
                waiting = select(JobRow).where(JobRow.study_id == study.id, JobRow.state == "queued")
                for other in session.scalars(waiting):
                    other.state, other.error = "failed", error_message
            append_audit_line(session, job.owner, f"{job.kind} failed", job_id, {})

    def requeue_job(
        self, job_id: str, is_server_stopping: bool = False, stall_timeout_s: float = 0.0
    ) -> None:
        """Requeue a job whose worker ended, or fail it after the last attempt.

        Parameters
        ----------
        is_server_stopping
            A server shutdown does not count as an attempt.
        stall_timeout_s
            Seconds without progress after which the worker was killed; 0 if it crashed.
        """
        with self.write_transaction() as session:
            job = session.get(JobRow, job_id, with_for_update=True)
            if job is None or job.state != "running":
                return
            job.attempts -= is_server_stopping
            attempts = job.attempts
            if attempts < MAX_JOB_ATTEMPTS:
                job.state, job.step, job.progress = "queued", "", 0.0
        if attempts >= MAX_JOB_ATTEMPTS:
            minutes = f"{stall_timeout_s / 60:.3g}"
            crash_message = message("worker-died", attempts=attempts)
            self.fail_job(
                job_id,
                message("worker-stuck", attempts=attempts, minutes=minutes)
                if stall_timeout_s
                else crash_message,
            )

    def cancel_job(self, job_id: str, who: str) -> JobRow | None:
        """Cancel a job; one that has ended is not changed. None if it does not exist."""
        with self.write_transaction() as session:
            job = session.get(JobRow, job_id, with_for_update=True)
            if job is not None and job.state not in FINAL_STATES:
                job.state, job.step = "cancelled", ""
                append_audit_line(session, who, f"{job.kind} cancelled", job_id, {})
            return job

    def requeue_interrupted_jobs(self) -> None:
        """After a restart, requeue the jobs that were running; the interrupted attempt does not count."""
        reset_values = {"state": "queued", "step": "", "progress": 0.0, "attempts": JobRow.attempts - 1}
        with self.write_transaction() as session:
            session.execute(update(JobRow).where(JobRow.state == "running").values(reset_values))

    # ---- deliveries and pathology -------------------------------------------------------------------

    def claim_next_delivery(self, lease_s: float) -> tuple[DeliveryRow, JobRow] | None:
        """Return the delivery longest due whose prediction has ended.

        It is postponed by ``lease_s`` seconds, so that no other sender claims it.
        """
        query = select(DeliveryRow, JobRow).join(JobRow, JobRow.id == DeliveryRow.prediction_id)
        query = query.where(
            DeliveryRow.state == "owed", DeliveryRow.due <= _get_utc_now(), JobRow.state.in_(FINAL_STATES)
        )
        query = query.order_by(DeliveryRow.due).limit(1)
        with self.write_transaction() as session:
            row = session.execute(query.with_for_update(skip_locked=True, of=DeliveryRow)).first()
            if row is None:
                return None
            delivery, job = row
            delivery.tries, delivery.due = delivery.tries + 1, _get_utc_now() + timedelta(seconds=lease_s)
            return delivery, job

    def update_delivery(self, delivery_id: str, state: str, retry_after_s: float = 0.0) -> None:
        """Set a delivery to ``sent``, ``given up``, or ``owed`` and due again after some seconds."""
        with self.write_transaction() as session:
            row = session.get_one(DeliveryRow, delivery_id)
            row.state, row.due = state, _get_utc_now() + timedelta(seconds=retry_after_s)

    def add_commitment(
        self,
        transaction_uid: str,
        prediction_id: str,
        archive: str,
        objects: Mapping[str, str],
        wait_s: float,
    ) -> None:
        """Add a request for storage commitment; see ``CommitmentRow``."""
        row = CommitmentRow(
            transaction_uid=transaction_uid,
            prediction_id=prediction_id,
            archive=archive,
            objects=dict(objects),
            wait_s=wait_s,
            due=_get_utc_now() + timedelta(seconds=wait_s),
        )
        with self.write_transaction() as session:
            session.add(row)

    def end_commitment(self, transaction_uid: str, describe: Callable[[CommitmentRow], str]) -> bool:
        """Remove a request, and record its outcome in the audit log; return whether there was one."""
        with self.write_transaction() as session:
            row = session.get(CommitmentRow, transaction_uid, with_for_update=True)
            if row is None:
                return False
            detail = {"to": row.archive, "reason": describe(row)}
            session.delete(row)
            append_audit_line(session, DICOM_NODE_CALLER, "storage commitment", row.prediction_id, detail)
            return True

    def list_overdue_commitments(self) -> list[str]:
        """List the transaction UIDs of the requests for whose report the time is over."""
        query = select(CommitmentRow.transaction_uid).where(CommitmentRow.due <= _get_utc_now())
        with self.read_transaction() as session:
            return list(session.scalars(query))

    def add_pathology(self, job: JobRow, marker: str, value: str, note: str, owner: str) -> PathologyRow:
        """Record the pathology result of a marker."""
        row = PathologyRow(prediction_id=job.id, marker=marker, value=value, note=note, owner=owner)
        with self.write_transaction() as session:
            session.add(row)
            session.flush()
            append_audit_line(session, owner, "truth told", job.id, {"marker": marker})
        return row

    def list_pathology(self, prediction_id: str) -> list[PathologyRow]:
        """Return the pathology results recorded for a prediction, newest first."""
        query = select(PathologyRow).where(PathologyRow.prediction_id == prediction_id)
        with self.read_transaction() as session:
            return list(session.scalars(query.order_by(PathologyRow.created.desc())))
