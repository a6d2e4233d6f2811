"""Alembic migrations of the database: every earlier schema is upgraded to the current one.

How to add a revision:

1. Change the tables in ``server/database.py``.
2. Write ``versions/r<number>_<what>.py`` beside the others: ``revision`` is its own number, ``down_revision`` the
   previous one, and ``upgrade`` changes the tables with Alembic's ``op``. It names columns and types itself and imports
   nothing from ``database``, which will change later. There is no downgrade: to go back, restore a backup.
3. All revisions run in one transaction, on SQLite and PostgreSQL, and are rolled back if one fails. A new column
   that may not be NULL needs a ``server_default`` for existing rows. Changes that SQLite cannot make in place use
   ``op.batch_alter_table``, which recreates the table and loses its triggers.
4. Lines of the audit log can be changed, and its table altered by batch, only between
   ``audit_protection.unprotect_audit_log()`` and ``audit_protection.protect_audit_log()``.
5. ``tests/server/test_migrations.py`` compares every upgrade path with the tables in ``database.py``; add a case to it
   if the new revision converts data.
"""
