"""The HTTP engine with servers that are busy, break off, restart, or are of another kind."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
import pytest_asyncio

from start_agent.engines.base import Turn
from start_agent.engines.http import API_KEY, HTTPEngine, HTTPOptions, client
from start_agent.engines.http.client import Failure, FailureKind, Retries
from start_agent.engines.testing import EngineContract
from start_agent.errors import ConfigError, EngineError, ModelError
from start_agent.logprobs import LOWEST
from start_agent.pocket import weights_path
from tests.support.completions import Answer, FakeServer
from tests.support.ports import free_port

POCKET = str(weights_path())
QUICK = HTTPOptions(http_retries=2, retry_pause=0.01, served_model="pocket", server_wait=60)
WHOLE = [5, 6, 7, 8, 9, 10]


@pytest_asyncio.fixture
async def fake() -> AsyncIterator[FakeServer]:
    async with FakeServer("pocket", context_length=500) as server:
        yield server


async def turn(
    fake: FakeServer, *answers: Answer, options: HTTPOptions = QUICK, num_logprobs: int | None = None
) -> tuple[Turn, list[int]]:
    """The turn of a stream over these answers, and what was received of it."""
    fake.answers = list(answers)
    received: list[int] = []
    async with HTTPEngine(fake.url, POCKET, options) as engine:
        request = EngineContract().request(engine, [1, 2, 3], 6, num_logprobs=num_logprobs)
        async with aclosing(engine.stream(request)) as items:
            async for item in items:
                if isinstance(item, Turn):
                    return item, received
                received += item.token_ids
    raise AssertionError("no turn")


async def test_everything_that_matters_is_said(fake: FakeServer) -> None:
    found, received = await turn(fake, Answer(ids=WHOLE))
    assert received == list(found.token_ids) == WHOLE
    body = fake.bodies[0]
    assert body["prompt"] == [1, 2, 3]
    assert (body["max_tokens"], body["temperature"], body["seed"]) == (6, 0.0, 0)
    assert {"top_p", "top_k", "min_p", "stop_token_ids", "return_token_ids", "ignore_eos"} <= body.keys()


@pytest.mark.parametrize("status", [429, 500, 502, 503])
async def test_a_busy_server_is_asked_again(fake: FakeServer, status: int) -> None:
    found, _ = await turn(fake, Answer(status=status), Answer(status=status), Answer(ids=WHOLE))
    assert list(found.token_ids) == WHOLE
    assert len(fake.bodies) == 3


async def test_a_server_that_keeps_failing_is_an_error(fake: FakeServer) -> None:
    with pytest.raises(EngineError, match=r"500.*tried 3 times"):
        await turn(fake, *[Answer(status=500)] * 3)


async def test_a_server_that_stays_away_is_an_error(fake: FakeServer) -> None:
    impatient = QUICK.model_copy(update={"server_wait": 0.05})
    with pytest.raises(EngineError, match="--server-wait"):
        await turn(fake, *[Answer(status=503)] * 50, options=impatient)


async def test_an_interrupted_answer_continues_after_its_last_token(fake: FakeServer) -> None:
    found, received = await turn(fake, Answer(ids=WHOLE[:3], breaks=True), Answer(ids=WHOLE[3:]))
    assert received == list(found.token_ids) == WHOLE
    assert fake.bodies[1]["prompt"] == [1, 2, 3, *WHOLE[:3]]
    assert fake.bodies[1]["max_tokens"] == 3


async def test_a_server_without_log_probabilities_is_one_line(fake: FakeServer) -> None:
    with pytest.raises(ConfigError, match="--logprobs"):
        await turn(fake, Answer(ids=WHOLE), num_logprobs=0)
    assert fake.bodies[0]["logprobs"] == 0


def _choice(ids: list[int], logprobs: object) -> bytes:
    choice = {"token_ids": ids, "logprobs": logprobs, "finish_reason": "length"}
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


def _columns(tokens: list[object], values: list[object], tops: list[object]) -> dict[str, object]:
    return {"tokens": tokens, "token_logprobs": values, "top_logprobs": tops}


@pytest.mark.parametrize(
    "logprobs",
    [
        _columns(["token_id:5"], [-1.0], [{}]),  # of fewer tokens
        _columns(["token_id:5", "token_id:7"], [-1.0, -1.0], [{}, {}]),  # of others
        _columns(["token_id:5", "so"], [-1.0, -1.0], [{}, {}]),
        _columns(["token_id:5", "token_id:6"], [-1.0, None], [{}, {}]),
        _columns(["token_id:5", "token_id:6"], [-1.0, -1.0], [{}, {"so": 1}]),
        _columns(["token_id:5", "token_id:6"], [-1.0, -1.0], [{}, {"token_id:6": []}]),
        [1, 2],
        {"tokens": 1},
    ],
)
async def test_log_probabilities_of_no_known_form_are_one_line(fake: FakeServer, logprobs: object) -> None:
    with pytest.raises(EngineError, match="not a completion"):
        await turn(fake, Answer(raw=_choice([5, 6], logprobs)), num_logprobs=1)


async def test_log_probabilities_that_are_no_numbers_stay_within_their_bounds(fake: FakeServer) -> None:
    values: list[object] = [float("nan"), float("-inf"), 3.0, -1e300, -0.5, 0]
    said = _columns([f"token_id:{one}" for one in WHOLE], values, [{}] * 6)
    found, _ = await turn(fake, Answer(raw=_choice(WHOLE, said)), num_logprobs=0)
    assert found.logprobs is not None
    assert [one.logprob for one in found.logprobs] == [LOWEST, LOWEST, 0.0, LOWEST, -0.5, 0.0]


@pytest.mark.parametrize("raw", [b"data: {no json\n\n", b"data: [1, 2]\n\n", b"<html>hello</html>\n"])
async def test_what_is_no_completion_is_one_line(fake: FakeServer, raw: bytes) -> None:
    with pytest.raises(EngineError, match=r"did not return|not a completion"):
        await turn(fake, Answer(raw=raw))
    assert len(fake.bodies) == 1


async def test_a_refusal_is_reported_and_not_retried(fake: FakeServer) -> None:
    with pytest.raises(EngineError, match=r"400: no such thing"):
        await turn(fake, Answer(status=400, raw=b'{"error": {"message": "no such thing"}}'))
    assert len(fake.bodies) == 1


async def test_a_server_of_text_is_refused_at_once_and_those_that_can_be_used_are_named() -> None:
    async with FakeServer("pocket", context_length=500, kind="text") as server:
        with pytest.raises(ConfigError, match=r"vLLM.*SGLang.*llama\.cpp"):
            await HTTPEngine(server.url, POCKET, QUICK).__aenter__()
        assert server.bodies == []


async def test_what_it_is_is_said_once(fake: FakeServer, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        await turn(fake, Answer(ids=WHOLE))
    assert [record.message for record in caplog.records if "vllm" in record.message] != []


async def test_another_kind_may_be_named(fake: FakeServer) -> None:
    with pytest.raises(ConfigError, match="404"):  # it is no such server
        await HTTPEngine(fake.url, POCKET, QUICK.model_copy(update={"server_kind": "sglang"})).__aenter__()


@pytest.mark.parametrize("form", ["seconds", "date"])
async def test_the_pause_that_the_server_wishes_is_kept(
    fake: FakeServer, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    await turn(fake, Answer(status=503, retry_after="30" if form == "seconds" else later), Answer(ids=WHOLE))
    assert max(slept) == pytest.approx(30, abs=2)


async def test_a_restarting_server_is_waited_for_and_nothing_is_lost(caplog: pytest.LogCaptureFixture) -> None:
    port_holder = FakeServer("pocket", context_length=500)
    async with port_holder as first:
        first.answers = [Answer(ids=WHOLE[:2], breaks=True)]
        engine = HTTPEngine(first.url, POCKET, QUICK)
        await engine.__aenter__()
        received: list[int] = []
        request = EngineContract().request(engine, [1, 2, 3], 6)

        async def listen() -> Turn:
            async with aclosing(engine.stream(request)) as items:
                async for item in items:
                    if isinstance(item, Turn):
                        return item
                    received.extend(item.token_ids)
                    seen.set()
            raise AssertionError("no turn")

        seen = asyncio.Event()
        task = asyncio.create_task(listen())
        await seen.wait()
        port = first._server.sockets[0].getsockname()[1]
    second = FakeServer("pocket", context_length=500)
    second.answers = [Answer(ids=WHOLE[2:])]
    second._server = await asyncio.start_server(second._serve, "127.0.0.1", port)
    try:
        found = await asyncio.wait_for(task, 30)
    finally:
        await second.__aexit__()
        await engine.__aexit__(None, None, None)
    assert received == list(found.token_ids) == WHOLE


async def test_waiting_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    waiting = client.Client(f"http://127.0.0.1:{free_port()}", QUICK)
    with caplog.at_level(logging.WARNING):
        for patience in (Retries(waiting), Retries(waiting)):
            await patience.wait(Failure(FailureKind.AWAY, "connection refused"))
    await waiting.close()
    said = [record.message for record in caplog.records]
    assert len(said) == 1 and "--server-wait" in said[0]


async def test_a_server_that_is_not_there_is_one_line() -> None:
    impatient = QUICK.model_copy(update={"server_wait": 0.05})
    with pytest.raises(EngineError, match="--server-wait"):
        await HTTPEngine(f"http://127.0.0.1:{free_port()}", POCKET, impatient).__aenter__()


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://host/v1", "http://", "http://user:secret@host/v1"])
async def test_an_address_that_is_none_is_one_line(url: str) -> None:
    with pytest.raises(ConfigError, match="--base-url") as caught:
        await HTTPEngine(url, POCKET, QUICK).__aenter__()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("key", ["se\ncret", "secret\n", " secret", "sécret"])
async def test_a_key_that_cannot_be_one_is_not_shown(
    fake: FakeServer, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv(API_KEY, key)
    with pytest.raises(ConfigError, match=API_KEY) as caught:
        await HTTPEngine(fake.url, POCKET, QUICK).__aenter__()
    assert "cret" not in str(caught.value)


async def test_certificates_that_cannot_be_read(fake: FakeServer, tmp_path: object) -> None:
    with pytest.raises(ConfigError, match="--ca-file"):
        await HTTPEngine(fake.url, POCKET, {"base_url": fake.url, "ca_file": f"{tmp_path}/none.pem"}).__aenter__()


async def test_a_model_that_is_not_served(fake: FakeServer) -> None:
    with pytest.raises(ModelError, match="does not serve 'another'"):
        await HTTPEngine(fake.url, POCKET, QUICK.model_copy(update={"served_model": "another"})).__aenter__()


async def test_a_watch_that_stops_closes_the_connection(fake: FakeServer) -> None:
    fake.answers = [Answer(ids=list(range(5, 300)), pause=0.01)]
    async with HTTPEngine(fake.url, POCKET, QUICK) as engine:
        found = await engine.generate(EngineContract().request(engine, [1], 4))
        assert len(found.token_ids) == 4
        await asyncio.wait_for(fake.hung_up.wait(), 5)
