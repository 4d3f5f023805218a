"""The migrations, for alembic: one file a step in `versions/`. They are run by `../migrate.py`
inside the package, so there is neither an alembic.ini nor an env.py."""
