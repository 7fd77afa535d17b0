"""Schemathesis tests the server by its OpenAPI document: no defect, no hang."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.conftest import KEY
from tests.support.ports import free_port
from tests.support.servers import serving

pytestmark = [pytest.mark.server, pytest.mark.timeout(900)]

# Left out: that all that fits the schema is taken. Strings name models and files that must be there, and a document
# cannot say that ``stream_options`` need ``stream``.
LEFT_OUT = "positive_data_acceptance"


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("log") / "log"


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory, log: Path) -> Iterator[str]:
    """A server with a key, over a scripted engine."""
    port, keys = free_port(), tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(KEY)
    options = ("--api-key-file", keys, "--containers", "4")
    with serving("tests.support.scripted_server", str(port), *options, port=port, log_file=log):
        yield f"http://127.0.0.1:{port}"
    assert "Traceback" not in log.read_text()


def schemathesis(folder: Path, url: str, *more: str) -> None:
    """Try all operations; what they are answered is that which the document says."""
    bounds = ("--request-timeout", "30", "--generation-database", "none", "--seed", "1", "--no-shrink")
    done = subprocess.run(
        [Path(sys.executable).parent / "schemathesis", "run", f"{url}/openapi.json", *bounds, *more],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,  # where it keeps what it has found
    )
    assert done.returncode == 0, done.stdout[-6000:]


def test_with_a_key(scripted: str, tmp_path: Path) -> None:
    header = ("--header", f"Authorization: Bearer {KEY}")
    schemathesis(tmp_path, scripted, *header, "--exclude-checks", LEFT_OUT, "--max-examples", "25")


def test_without_a_key(scripted: str, tmp_path: Path) -> None:
    schemathesis(
        tmp_path, scripted, "--exclude-checks", LEFT_OUT, "--max-examples", "5", "--phases", "coverage,fuzzing"
    )


def test_on_a_model(url: str, tmp_path: Path) -> None:
    header = ("--header", f"Authorization: Bearer {KEY}", "--exclude-checks", LEFT_OUT, "--max-examples", "10")
    schemathesis(tmp_path, url.removesuffix("/v1"), *header, "--phases", "fuzzing,stateful")
