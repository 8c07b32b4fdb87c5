"""The commands of `vmsim`.

Guarantees: `--help` shows the default of every flag and, if it has one, its environment variable; an expected error is
one line that says what to do, with exit code 1 (2 for an invalid flag), never a traceback. That includes output that
cannot be written (controller/cli/output.py) and Ctrl-C during the imports (controller/cli/entry.py).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from controller import __version__
from controller.cli import controller, local, moving, output, parameters, scenarios
from controller.cli.exits import BAD_ARGUMENT

PLUGIN = "kubectl vmsim"

app = typer.Typer(
    name="vmsim",
    help="Simulated virtual machines on Kubernetes: rehearse scheduling, migration and rebalancing without hardware.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich's boxes cut the names of environment variables short at 80 columns
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    output.run(lambda: _run(words, program(sys.argv[0])))


def _run(words: list[str], name: str) -> None:
    if name == PLUGIN and not {"--install-completion", "--show-completion"}.isdisjoint(words):
        typer.echo("kubectl completes its plugins by itself: see kubectl completion --help")
        return
    for word in words:
        if not _is_text(word):
            typer.echo(f"error: {word!r} is not valid UTF-8", err=True)
            raise SystemExit(BAD_ARGUMENT)
    app(words, prog_name=name)


def _is_text(word: str) -> bool:
    """Whether an argument was valid UTF-8: Python represents other bytes as lone surrogates, which cannot be sent."""
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True


def complete_for_kubectl() -> NoReturn:
    """Print completions of the last argument in cobra's format, which kubectl reads from `kubectl_complete-vmsim`."""
    words = ["vmsim", *sys.argv[1:]]
    os.environ |= {"COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1), "_VMSIM_COMPLETE": "complete_bash"}
    output.run(_complete)


def _complete() -> None:
    try:
        app([], prog_name="vmsim")
    finally:
        typer.echo(":4")  # cobra's ShellCompDirectiveNoFileComp: do not complete file names


def program(path: str) -> str:
    """Return the command that the user typed to start the program at this path; kubectl finds plugins by file name."""
    return PLUGIN if Path(path).stem == "kubectl-vmsim" else "vmsim"


def _version(wanted: bool) -> None:  # noqa: FBT001 - typer's callback signature
    if wanted:
        typer.echo(f"vmsim {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    del version


app.command()(local.up)
app.command()(local.down)
app.command()(local.status)
app.command()(local.run)
app.command()(local.install)
app.command()(moving.migrate)
app.command()(moving.migrations)
app.command()(moving.drain)
app.command(cls=scenarios.LoadCommand)(scenarios.load)
app.command()(scenarios.unload)
app.command(cls=parameters.SectionedCommand)(controller.controller)
