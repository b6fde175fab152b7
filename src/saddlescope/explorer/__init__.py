"""The explorer: a page in the browser on which a landscape, an optimizer and its radius can be turned by hand."""

from saddlescope.explorer.answers import Settings
from saddlescope.explorer.server import serve
from saddlescope.explorer.state import ExplorerState, read_query

__all__ = ["ExplorerState", "Settings", "read_query", "serve"]
