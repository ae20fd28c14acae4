"""The command line: arguments in, one operation, a document or a table out.

Modules are cheap to import: what an operation needs is imported when the operation is asked for, so
that ``--version``, ``--help`` and a usage error do not wait for an object store's library.
"""

from __future__ import annotations

from agent.cli.app import main

__all__ = ["main"]
