"""What the API remembers: actions and their states, checkpoints by name, tokens.

SQLite for one instance, PostgreSQL for any number. Times are whole microseconds since 1970, in UTC:
the same in both, and in every index.
"""

from agent.api.database.connection import Database, open_database

__all__ = ["Database", "open_database"]
