"""The database's layout, step by step: every layout that a server was ever started with is brought to this one.

How a revision is added:

1. Change the tables in ``server/records.py``.
2. Write ``versions/r<number>_<what>.py`` beside the others: ``revision`` is its own number, ``down_revision`` the
   one before, ``upgrade`` changes the tables with Alembic's ``op``. It names columns and types itself and imports
   nothing of ``records``, which will look different one day. There is no way down: whoever goes back restores a
   backup.
3. It runs in one transaction with all others, on SQLite and PostgreSQL, and is undone where it fails. A new column
   that may not be NULL needs a ``server_default`` for the rows that are there. What SQLite cannot alter in place goes
   through ``op.batch_alter_table``, which makes the table anew and loses its triggers.
4. Lines of the audit log can only be changed, and its table only be altered by batch, between
   ``guard.release_audit()`` and ``guard.guard_audit()``.
5. ``tests/server/test_migrations.py`` compares every way to the newest revision with the tables in ``records.py``;
   add a case to it where the new revision has something to convert.
"""
