"""The paths, a module for each part of them. They translate: into calls, and into answers."""

from agent.api.routes import actions, checkpoint, nodes, operations, page, restore, session

ROUTERS = (
    checkpoint.router,
    restore.router,
    actions.router,
    nodes.router,
    session.router,
    operations.router,
    page.router,
)

__all__ = ["ROUTERS"]
