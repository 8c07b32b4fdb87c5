"""Groups of flags that a command receives as one value, and shows under a heading in its help."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

from typer.core import TyperCommand

Command = Callable[..., None]


def replacing(name: str, flags: Sequence[inspect.Parameter], build: Callable[..., Any]) -> Callable[[Command], Command]:
    """Replace a command's parameter by flags, from whose values `build` makes it. Parameters are all by keyword."""

    def decorate(command: Command) -> Command:
        @wraps(command)
        def replaced(**arguments: Any) -> None:
            command(**{name: build(**{flag.name: arguments.pop(flag.name) for flag in flags})}, **arguments)

        # Typer reads the options from the function's signature.
        own = inspect.signature(command, eval_str=True)
        parameters = [
            parameter for found in own.parameters.values() for parameter in (flags if found.name == name else [found])
        ]
        replaced.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
        replaced.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return replaced

    return decorate


class SectionedCommand(TyperCommand):
    """Shows the flags of a `rich_help_panel` under that heading, without rich."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the flags, by heading."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for flag in self.get_params(ctx):
            record = flag.get_help_record(ctx)
            if record is not None:
                sections.setdefault(getattr(flag, "rich_help_panel", None) or "Options", []).append(record)
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl(records)
