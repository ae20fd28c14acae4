"""The commands ``api`` and ``api token``: the HTTP API, and who may use it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from agent.cli.daemon_command import Config, ShowConfig
from agent.cli.options import OutputOption
from agent.cli.output import Output, emit, to_json
from agent.errors import InvalidArgument

if TYPE_CHECKING:
    from rich.table import Table

    from agent.api.database import Database
    from agent.api.database.tables import TokenRow

T = TypeVar("T")

api_app = typer.Typer(
    name="api",
    help="Serve the Actions API over HTTP until a signal comes; `api token` says who may use it.",
    rich_markup_mode=None,
)
token_app = typer.Typer(
    name="token", help="Bearer tokens of the Actions API.", rich_markup_mode=None
)
api_app.add_typer(token_app)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Whose it is, for people.")]
Scopes = Annotated[
    list[str] | None,
    typer.Option(
        "--scope",
        metavar="SCOPE",
        help="read, checkpoint or restore; may be given several times. Default: all.",
    ),
]
TokenId = Annotated[str, typer.Argument(metavar="ID", help="As `api token list` shows it.")]


@api_app.callback(invoke_without_command=True)
def api(
    context: typer.Context,
    config: Config = None,
    show_config: ShowConfig = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Serve until a signal comes. Settings: [api], [nats] and [log] of the configuration file."""
    if context.invoked_subcommand is not None:
        return
    from agent.settings import load

    settings = load(config, os.environ)
    if show_config:
        print(to_json(settings))
        return
    from agent.api.server import run

    raise typer.Exit(run(settings))


@token_app.command("create")
def create(
    name: Name, scope: Scopes = None, config: Config = None, output: OutputOption = Output.TEXT
) -> None:
    """Make a token and print it. It is shown this once."""
    from agent.api.database import tokens

    scopes = scope or list(tokens.SCOPES)
    if unknown := sorted(set(scopes) - set(tokens.SCOPES)):
        known = ", ".join(tokens.SCOPES)
        raise InvalidArgument("--scope", f"{unknown[0]!r} is none of {known}")
    if not name.isprintable() or not 1 <= len(name) <= 128:
        raise InvalidArgument("NAME", "takes 1 to 128 printable characters")

    async def made(database: Database) -> str:
        async with database.write() as session:
            return await tokens.create(session, name, scopes)

    token = _with_database(config, made)
    emit({"token": token, "name": name, "scopes": scopes}, output, lambda: token)


@token_app.command("list")
def list_(config: Config = None, output: OutputOption = Output.TEXT) -> None:
    """Show all tokens; their secrets are not kept."""
    from agent.api.answers import iso
    from agent.api.database import tokens

    async def found(database: Database) -> list[TokenRow]:
        async with database.read() as session:
            return list(await tokens.all_of(session))

    rows = _with_database(config, found)
    document = [
        {
            "id": row.token_id,
            "name": row.name,
            "scopes": row.scopes.split(),
            "created": iso(row.created),
            "revoked": iso(row.revoked) if row.revoked else None,
        }
        for row in rows
    ]
    emit(document, output, lambda: _table(document))


@token_app.command("revoke")
def revoke(token_id: TokenId, config: Config = None, output: OutputOption = Output.TEXT) -> None:
    """Make a token worthless, from the next request on."""
    from agent.api.database import tokens

    async def revoked(database: Database) -> bool:
        async with database.write() as session:
            return await tokens.revoke(session, token_id)

    if not _with_database(config, revoked):
        raise InvalidArgument("ID", f"there is no token {token_id!r}")
    emit({"id": token_id, "revoked": True}, output, lambda: "Revoked.")


def _with_database(config: Config, work: Callable[[Database], Awaitable[T]]) -> T:
    """Do something with the configured database, whose tables are made if need be."""
    from agent.api.database import open_database
    from agent.settings import load

    settings = load(config, os.environ)

    async def doing() -> T:
        database = open_database(settings.api)
        try:
            await database.migrate()
            return await work(database)
        finally:
            await database.close()

    return asyncio.run(doing())


def _table(document: Sequence[Mapping[str, object]]) -> Table:
    from rich.table import Table

    table = Table("ID", "NAME", "SCOPES", "CREATED (UTC)", "REVOKED (UTC)", box=None)
    for row in document:
        scopes = row["scopes"]
        words = " ".join(scopes) if isinstance(scopes, list) else ""
        table.add_row(
            *(str(each or "") for each in (row["id"], row["name"], words, row["created"])),
            str(row["revoked"] or ""),
        )
    return table
