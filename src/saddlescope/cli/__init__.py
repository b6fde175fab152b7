"""The command line: each command parses, makes one public call, and prints a table or one JSON document."""

# Importing a module adds its commands.
from saddlescope.cli import diagnose, escape, explore, local, overall, reports, sweep, train  # noqa: F401
from saddlescope.cli.app import app

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line."""
    app()
