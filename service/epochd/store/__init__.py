"""All SQL: tables, migrations' runner, and plain functions over an open ``Transaction``. No rules, no HTTP."""
