"""The command line's frame: wrong use is one line on stderr and exit status 2."""

from __future__ import annotations

import sys
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from typer.core import TyperGroup

from saddlescope.provenance import __version__


class _Commands(TyperGroup):
    """Turns wrong use and a missing extra, wherever noticed, into one line on stderr and exit status 2."""

    def main(self, *args: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        if not standalone_mode:
            return super().main(*args, standalone_mode=False, **extra)
        try:
            status = super().main(*args, standalone_mode=False, **extra)
        except ValueError as error:
            _wrong_use(str(error))
        except ModuleNotFoundError as error:
            if "pip install" not in str(error):  # not one of ours, which name the extra
                raise
            _wrong_use(str(error))
        except KeyboardInterrupt:
            sys.exit(130)
        except Exception as error:
            # The exceptions of the option parser, which its own printer would spread over a box of lines.
            if not hasattr(error, "format_message"):
                raise
            _wrong_use(error.format_message())  # type: ignore[attr-defined]
        sys.exit(status if isinstance(status, int) else 0)


def _wrong_use(message: str) -> NoReturn:
    print(f"saddlescope: {message}", file=sys.stderr)
    sys.exit(2)


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    help="Find out whether SAM is stuck at a saddle, why, and what to change.",
    pretty_exceptions_enable=False,
)
stdout = Console()


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"saddlescope {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    """Find out whether SAM is stuck at a saddle, why, and what to change."""
