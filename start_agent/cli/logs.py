"""Sets up logging. The packages write to ``logging``; only commands add handlers to the root logger."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from start_agent.errors import ConfigError

_OURS = ("start_agent", "sandbox", "hints")
_DETAIL = (logging.NOTSET, logging.INFO, logging.DEBUG)  # by the number of --verbose flags


@contextmanager
def logging_to(options: argparse.Namespace) -> Iterator[None]:
    """Send messages to stderr, and to ``--log-file`` if it is given.

    Raises:
        ConfigError: the file cannot be written.
    """
    console = logging.StreamHandler()
    console.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    handlers: list[logging.Handler] = [console]
    path = getattr(options, "log_file", None)
    if path is not None:
        try:
            file = logging.FileHandler(path, encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"--log-file: cannot write {path}: {error.strerror}") from error
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        handlers.append(file)
    root = logging.getLogger()
    levels = {root: root.level} | {logger: logger.level for logger in map(logging.getLogger, _OURS)}
    root.setLevel(getattr(options, "log_level", "warning").upper())
    detail = _DETAIL[min(getattr(options, "verbose", 0), len(_DETAIL) - 1)]
    for name in _OURS:
        logging.getLogger(name).setLevel(detail)
    for handler in handlers:
        root.addHandler(handler)
    try:
        yield
    finally:
        for handler in handlers:
            root.removeHandler(handler)
            handler.close()
        for logger, level in levels.items():
            logger.setLevel(level)
