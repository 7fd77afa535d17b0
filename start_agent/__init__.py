"""start-agent: long thoughts that call Python.

A question goes in, a trace comes out. Importing this package imports neither torch nor an engine.
"""

from __future__ import annotations

from importlib import metadata

__version__ = metadata.version("start-agent")
