"""API keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from start_agent.errors import ConfigError
from start_agent.fields import build
from start_agent.server.auth import VARIABLE, Keys, read_keys
from start_agent.server.errors import APIError
from start_agent.server.options import ServerOptions


def test_without_keys_everybody_is_the_same_client() -> None:
    assert Keys().client("") == Keys().client("Bearer anything") == ""


def test_each_key_is_a_client_and_no_client_shows_its_key() -> None:
    keys = Keys(["first-key", "second-key"])
    first, second = keys.client("Bearer first-key"), keys.client("bearer  second-key ")
    assert len({first, second, ""}) == 3 and "first-key" not in first
    assert Keys(["first-key"]).client("Bearer first-key") == first  # the same after a restart


@pytest.mark.parametrize("given", ["", "Bearer", "Bearer third-key", "Basic first-key", "first-key", "Bearer \udcff"])
def test_all_else_is_refused(given: str) -> None:
    with pytest.raises(APIError) as refused:
        Keys(["first-key"]).client(given)
    assert refused.value.status_code == 401 and "first-key" not in refused.value.message


def test_keys_come_from_a_file_and_the_environment(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("# the team\nfirst-key\n\n  second-key  \n")
    keys = read_keys(path, {"START_AGENT_API_KEY": "third-key"})
    assert all(keys.client(f"Bearer {name}-key") for name in ("first", "second", "third"))
    assert not read_keys(None, {"START_AGENT_API_KEY": " "})


@pytest.mark.parametrize(
    "content", [b"", b"# none\n", b"short\n", b"two words here\n", "schlüssel-eins\n".encode(), b"\xff"]
)
def test_a_file_that_would_leave_the_server_open_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "keys"
    path.write_bytes(content)
    with pytest.raises(ConfigError):
        read_keys(path, {})
    with pytest.raises(ConfigError):
        read_keys(tmp_path / "missing", {})


def test_a_bad_key_is_refused_with_its_source(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("long-enough\nshort\n")
    with pytest.raises(ConfigError) as of_file:
        read_keys(path, {VARIABLE: "long-enough"})
    assert "--api-key-file" in str(of_file.value) and VARIABLE not in str(of_file.value)
    with pytest.raises(ConfigError) as of_environment:
        read_keys(None, {VARIABLE: "tiny"})
    assert VARIABLE in str(of_environment.value) and "tiny" not in str(of_environment.value)


@pytest.mark.parametrize("origin", ["*", "http://localhost:3000", "https://page.example", "http://[::1]:80"])
def test_origins(origin: str) -> None:
    assert build(ServerOptions, {"cors": [origin]}).cors == (origin,)


@pytest.mark.parametrize("origin", ["nonsense", "page.example", "https://page.example/", "https://", "http://a:b", ""])
def test_what_is_no_origin_is_refused(origin: str) -> None:
    with pytest.raises(ConfigError, match="--cors"):
        build(ServerOptions, {"cors": [origin]})
