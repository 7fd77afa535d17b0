"""Prefix caching of the transformers engine: common prefixes of finished and open traces are computed once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from start_agent.engines.base import Turn
from start_agent.engines.testing import EngineContract
from start_agent.engines.transformers import TransformersEngine, TransformersOptions, batch
from start_agent.engines.transformers.rows import LEAST_SHARED, Row, common_prefix, longest_shared
from tests.support.tiny_architectures import CONTEXT, VOCABULARY, architecture

pytestmark = pytest.mark.slow

_ask = EngineContract().request
_PROMPT = [3 + 7 * place % 900 for place in range(60)]


def _open(**options: Any) -> TransformersEngine:
    return TransformersEngine("pocket", TransformersOptions(device="cpu", context_length=400, **options))


@pytest_asyncio.fixture
async def engine() -> AsyncIterator[TransformersEngine]:
    async with _open() as engine:
        yield engine


async def _trace(engine: TransformersEngine, name: str, ids: list[int], length: int = 10) -> Turn:
    """One turn of a trace that ends with it."""
    turn = await engine.generate(_ask(engine, ids, length, trace_id=name))
    await engine.release(name)
    return turn


async def _rows(engine: TransformersEngine) -> int:
    """How many rows hold something, once the engine has done all that it was asked to."""
    loop, found = asyncio.get_running_loop(), asyncio.Queue[int]()

    def look() -> None:
        loop.call_soon_threadsafe(found.put_nowait, len(engine._batch.rows))

    engine._inbox.put(look)
    return await found.get()


def _other(number: int) -> list[int]:
    """A prompt that has nothing in common with those of other numbers."""
    return [100 + number, *_PROMPT]


async def test_a_conversation_continues_from_the_ended_trace(engine: TransformersEngine) -> None:
    first = await _trace(engine, "first", _PROMPT, 20)
    ids = [*_PROMPT, *first.token_ids, 40, 41, 42]
    second = await _trace(engine, "second", ids)
    assert first.usage.cached_tokens == 0
    assert second.usage.cached_tokens == len(_PROMPT) + 19  # the last token was sampled and never fed
    assert second.usage.cached_tokens + second.usage.computed_tokens == len(ids) + 9
    assert await _rows(engine) == 1  # the slot went over
    async with _open(prefix_caching=False) as plain:
        assert (await _trace(plain, "second", ids)).token_ids == second.token_ids


async def test_the_same_prompt_is_fed_its_last_token_alone(engine: TransformersEngine) -> None:
    first = await _trace(engine, "same", _PROMPT)
    again = await _trace(engine, "same", _PROMPT)
    assert again.token_ids == first.token_ids
    assert (again.usage.cached_tokens, again.usage.computed_tokens) == (len(_PROMPT) - 1, 1 + 9)


async def test_a_beginning_is_copied_where_the_rest_may_be_of_use_yet(engine: TransformersEngine) -> None:
    first = await _trace(engine, "first", _PROMPT, 200)
    other = await _trace(engine, "other", [*_PROMPT[:30], 7, 8, 9])
    assert other.usage.cached_tokens == 30
    again = await _trace(engine, "again", [*_PROMPT, *first.token_ids, 5])
    assert again.usage.cached_tokens == len(_PROMPT) + 199


@pytest.mark.parametrize("length", [LEAST_SHARED - 1, LEAST_SHARED])
async def test_only_what_is_worth_it_is_shared(engine: TransformersEngine, length: int) -> None:
    await _trace(engine, "first", _PROMPT)
    turn = await _trace(engine, "second", [*_PROMPT[:length], 1, 2, 3])
    assert turn.usage.cached_tokens == (length if length >= LEAST_SHARED else 0)


async def test_a_trace_that_is_too_short_is_not_kept(engine: TransformersEngine) -> None:
    await _trace(engine, "short", _PROMPT[:5], 2)
    assert await _rows(engine) == 0


async def test_it_can_be_switched_off() -> None:
    async with _open(prefix_caching=False) as engine:
        for _ in range(2):
            assert (await _trace(engine, "same", _PROMPT)).usage.cached_tokens == 0
        assert await _rows(engine) == 0


async def test_samples_of_one_prompt_compute_it_once(engine: TransformersEngine) -> None:
    """Also where they come at the same moment, and none has computed anything yet."""
    turns = await asyncio.gather(
        *(engine.generate(_ask(engine, _PROMPT, 10, trace_id=f"sample {number}")) for number in range(8))
    )
    assert len({turn.token_ids for turn in turns}) == 1
    assert sorted(turn.usage.cached_tokens for turn in turns) == [0] + [len(_PROMPT) - 1] * 7
    for number in range(8):
        await engine.release(f"sample {number}")


async def test_prompts_with_little_in_common_are_prefilled_together(engine: TransformersEngine) -> None:
    prompts = [[*_PROMPT[:20], *_other(number)] for number in range(6)]
    turns = await asyncio.gather(
        *(engine.generate(_ask(engine, ids, 5, trace_id=f"{number}")) for number, ids in enumerate(prompts))
    )
    assert {turn.usage.cached_tokens for turn in turns} <= {0, 20}
    assert sum(turn.usage.cached_tokens == 0 for turn in turns) > 1


async def test_the_least_recently_used_goes_first() -> None:
    async with _open(max_num_seqs=3) as engine:
        for number in range(3):
            await _trace(engine, f"{number}", _other(number))
        assert (await _trace(engine, "0 again", _other(0))).usage.cached_tokens > 0
        await _trace(engine, "3", _other(3))  # takes the place of 1
        found = [(await _trace(engine, f"{number} later", _other(number))).usage.cached_tokens > 0 for number in (0, 2)]
        assert found == [True, True]
        assert (await _trace(engine, "1 later", _other(1))).usage.cached_tokens == 0


async def test_a_beginning_that_is_copied_was_of_use() -> None:
    async with _open(max_num_seqs=3) as engine:
        first = await _trace(engine, "first", _PROMPT, 200)
        await _trace(engine, "0", _other(0))
        assert (await _trace(engine, "copy", [*_PROMPT[:30], 7, 8, 9])).usage.cached_tokens == 30
        await _trace(engine, "1", _other(1))  # takes the place of 0
        again = await _trace(engine, "again", [*_PROMPT, *first.token_ids, 5])
        assert again.usage.cached_tokens == len(_PROMPT) + 199


async def test_ended_traces_block_no_other_and_are_not_preempted() -> None:
    """With two rows and memory for one and a half, finished traces are evicted before open ones."""
    async with _open() as engine:
        bytes_each = engine._batch.cache.token_bytes()
    async with _open(max_num_seqs=2, kv_cache_gib=600 * bytes_each / 2**30) as engine:
        for number in range(7):
            turn = await _trace(engine, f"{number}", _other(number), 30 + 25 * number)
            assert turn.usage.preempted == 0
        cache = engine._batch.cache
        assert 0 < cache.slots * cache.capacity <= 600
        assert engine._batch.preempted == 0
        longest = await _trace(engine, "all", [5] * 300, 100)
        assert len(longest.token_ids) == 100
        assert engine._batch.preempted == 0


async def test_places_count_open_traces_alone() -> None:
    async with _open(max_num_seqs=2) as engine:
        for number in range(4):
            await _trace(engine, f"{number}", _other(number))
        names = ["one", "two"]
        await asyncio.gather(*(engine.generate(_ask(engine, _other(9), 5, trace_id=name)) for name in names))
        waiting = asyncio.create_task(engine.generate(_ask(engine, _other(8), 5, trace_id="three")))
        assert len((await engine.generate(_ask(engine, _other(9), 5, trace_id="one"))).token_ids) == 5
        assert not waiting.done()
        await engine.release("one")
        assert len((await waiting).token_ids) == 5


async def test_what_lies_idle_stays_small() -> None:
    """One trace at a time: finished traces may let the cache grow to a quarter of its budget."""
    async with _open() as engine:
        bytes_each = engine._batch.cache.token_bytes()
    tokens = 256 * 20
    async with _open(kv_cache_gib=tokens * bytes_each / 2**30) as engine:
        for number in range(30):
            await _trace(engine, f"{number}", _other(number))
            cache = engine._batch.cache
            assert cache.slots * cache.capacity <= tokens // 4
        assert await _rows(engine) == 5
        await _trace(engine, "long", [*_other(50), *[9] * 250])  # the slots get longer, and fewer
        assert cache.slots * cache.capacity <= tokens // 4


async def test_a_slot_that_is_taken_over_by_a_trace_that_is_given_up(engine: TransformersEngine) -> None:
    first = await _trace(engine, "first", _PROMPT, 20)
    ids = [*_PROMPT, *first.token_ids]
    given_up = asyncio.create_task(engine.generate(_ask(engine, ids, 300, trace_id="given up")))
    await asyncio.sleep(0)
    given_up.cancel()
    await engine.release("given up")
    again = await _trace(engine, "again", _PROMPT, 20)
    assert again.token_ids == first.token_ids


_STORIES = ["llama", "qwen2 with some layers sliding", "gemma3", "gpt-oss", "deepseek v3"]


@pytest.fixture(scope="module", params=_STORIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return architecture(tmp_path_factory.mktemp("model"), request.param)


@pytest.mark.parametrize("tokens", [None, 900])
async def test_traces_are_the_same_whatever_they_share(
    folder: Path, tokens: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Traces in random trees of beginnings, some side by side, some ended; longer than the windows, in little room."""
    monkeypatch.setattr(batch, "_MARGIN", 16)
    chance = random.Random(5)
    texts = [[chance.randrange(3, VOCABULARY) for _ in range(chance.choice((20, 40, 70)))] for _ in range(4)]
    stories: list[list[int]] = []
    for _ in range(36):
        if stories and chance.random() < 0.7:
            known = chance.choice(stories)
            beginning = known[: chance.randrange(LEAST_SHARED, len(known) + 1)]
        else:
            beginning = list(chance.choice(texts))
        more = [chance.randrange(3, VOCABULARY) for _ in range(chance.choice((0, 1, 9, 30)))]
        stories.append([*beginning, *more][: CONTEXT - 60])
    lengths = [chance.choice((1, 8, 25)) for _ in stories]
    options: dict[str, Any] = {"device": "cpu", "max_num_seqs": 6}
    async with TransformersEngine(str(folder), {**options, "prefix_caching": False}) as plain:
        expected = [
            (await _trace(plain, f"{number}", ids, lengths[number])).token_ids for number, ids in enumerate(stories)
        ]
        each = plain._batch.cache.token_bytes()
    if tokens is not None:
        options["kv_cache_gib"] = tokens * each / 2**30
    async with TransformersEngine(str(folder), options) as engine:
        places = asyncio.Semaphore(4)

        async def one(number: int) -> Turn:
            async with places:
                return await _trace(engine, f"{number}", stories[number], lengths[number])

        turns = await asyncio.gather(*map(one, range(len(stories))))
        assert [turn.token_ids for turn in turns] == expected
        assert sum(turn.usage.cached_tokens > 0 for turn in turns) > 10
        for turn, ids in zip(turns, stories, strict=True):
            usage = turn.usage
            fed = usage.cached_tokens + usage.computed_tokens - usage.recomputed_tokens
            assert fed == len(ids) + len(turn.token_ids) - 1
        cache = engine._batch.cache
        assert cache.budget is not None and cache.slots * cache.capacity <= cache.budget


def _row(*cached: int) -> Row:
    return Row(0, cached=list(cached))


def test_the_longest_beginning_wins_and_the_last_token_is_always_fed() -> None:
    ids = list(range(30))
    rows = [_row(*range(20)), _row(*range(25), 99), _row(1, *range(1, 30)), _row(*range(10))]
    found = longest_shared(rows, ids)
    assert found is not None and (found.row, found.length) == (rows[1], 25)
    found = longest_shared([_row(*ids, 30, 31)], ids)
    assert found is not None and found.length == 29
    assert longest_shared(rows, ids[:LEAST_SHARED]) is None
    assert longest_shared([], ids) is None


@pytest.mark.parametrize("seed", range(20))
def test_the_common_beginning_is_found(seed: int) -> None:
    chance = random.Random(seed)
    one = [chance.randrange(3) for _ in range(chance.randrange(40))]
    other = one[: chance.randrange(len(one) + 1)] + [chance.randrange(3) for _ in range(chance.randrange(9))]
    length = common_prefix(one, tuple(other))
    assert one[:length] == other[:length]
    assert length == min(len(one), len(other)) or one[length] != other[length]
