"""The contract tests of an engine, to inherit from. Needs pytest and pytest-asyncio.

::

    class TestMine(EngineContract):
        @pytest_asyncio.fixture
        async def engine(self):
            async with MyEngine(...) as engine:
                yield engine

The tests do not know the model's output in advance. Each test first generates freely, then sets a stop somewhere in
that text, and expects the same text up to exactly there.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing

import pytest
import pytest_asyncio

from start_agent.engines.base import Engine, Sampling, Tokens, Turn, TurnRequest
from start_agent.errors import ConfigError, PromptError
from start_agent.logprobs import MAX_LOGPROBS
from start_agent.tokens.markers import Markers, Matcher, State
from start_agent.tokens.prompts import render_prompt
from start_agent.tokens.stopping import NEVER, Repetition, StopChecker, StopConditions, StopKind

QUESTIONS = ("What is 17 + 25?", "What is 4821 * 37?", "How many divisors does 360 have?", "What is 9 * 8?")


class EngineContract:
    """Needs a fixture ``engine`` with an open engine, in float32, with a context of 300 to 4,000 tokens."""

    names: list[str] = []  # noqa: RUF012 - shared on purpose: pytest makes an instance for each test

    @pytest_asyncio.fixture(autouse=True)
    async def release(self, engine: Engine) -> AsyncIterator[None]:
        """Release the traces of a test, which may occupy places in the engine's batch."""
        yield
        while self.names:
            await engine.release(self.names.pop())

    def request(
        self,
        engine: Engine,
        token_ids: Sequence[int],
        max_tokens: int,
        *,
        conditions: StopConditions = NEVER,
        markers: Markers | None = None,
        trace_id: str | None = None,
        sampling: Sampling | None = None,
        seed: int | None = 0,
        num_logprobs: int | None = None,
        state: State | None = None,
    ) -> TurnRequest:
        """A request whose trace is released after the test."""
        matcher = Matcher(engine.tokenizer, markers)
        self.names.append(trace_id or f"fresh {len(self.names)}")
        return TurnRequest(
            self.names[-1],
            token_ids,
            sampling or Sampling(),
            seed,
            max_tokens,
            lambda: StopChecker(matcher, state or State(), conditions),
            num_logprobs,
        )

    def prompt(self, engine: Engine, question: int = 0) -> list[int]:
        """The rendered ids of one of the questions."""
        return list(render_prompt(engine.tokenizer, QUESTIONS[question]).token_ids)

    async def free(self, engine: Engine, token_ids: Sequence[int], max_tokens: int = 80) -> tuple[int, ...]:
        """What the engine generates without stop conditions."""
        turn = await engine.generate(self.request(engine, token_ids, max_tokens))
        assert (turn.stop, len(turn.token_ids)) == (StopKind.LENGTH, max_tokens)
        return turn.token_ids

    async def streamed(self, engine: Engine, request: TurnRequest) -> tuple[Tokens, Turn]:
        """The runs of a stream, joined, and its turn."""
        runs: list[Tokens] = []
        async with aclosing(engine.stream(request)) as items:
            async for item in items:
                if isinstance(item, Turn):
                    wanted = request.num_logprobs is not None
                    assert all((run.logprobs is not None) is wanted for run in runs)
                    token_ids = tuple(token_id for run in runs for token_id in run.token_ids)
                    logprobs = tuple(one for run in runs for one in run.logprobs or ())
                    return Tokens(token_ids, logprobs if wanted else None), item
                runs.append(item)
        raise AssertionError("a stream without a turn")

    async def test_greedy_is_deterministic(self, engine: Engine) -> None:
        """Greedy decoding is deterministic."""
        ids = self.prompt(engine)
        assert await self.free(engine, ids) == await self.free(engine, ids)

    async def test_a_stream_is_its_turn(self, engine: Engine) -> None:
        """The runs of a stream are the tokens of its turn."""
        ids = self.prompt(engine)
        streamed, turn = await self.streamed(engine, self.request(engine, ids, 40))
        assert streamed.token_ids == turn.token_ids == (await self.free(engine, ids, 40))
        assert streamed.logprobs is turn.logprobs is None

    async def test_a_stop_id_ends_the_turn_and_stays(self, engine: Engine) -> None:
        """A stop id ends the turn and is kept."""
        ids = self.prompt(engine)
        free = await self.free(engine, ids)
        wanted = free[len(free) // 2]
        turn = await engine.generate(
            self.request(engine, ids, 80, conditions=StopConditions(frozenset({wanted}), code=False))
        )
        assert turn.stop is StopKind.EOS
        assert turn.token_ids == free[: free.index(wanted) + 1]

    async def test_a_stop_id_that_is_replaced_is_dropped(self, engine: Engine) -> None:
        """A stop id that is replaced is dropped."""
        ids = self.prompt(engine)
        free = await self.free(engine, ids)
        wanted = free[len(free) // 2]
        conditions = StopConditions(frozenset({wanted}), code=False, replace=True)
        turn = await engine.generate(self.request(engine, ids, 80, conditions=conditions))
        assert turn.stop is StopKind.EOS
        assert turn.token_ids == free[: free.index(wanted)]

    async def test_a_connective_ends_the_turn_behind_its_word(self, engine: Engine) -> None:
        """A connective ends the turn after its word."""
        ids = self.prompt(engine)
        free = await self.free(engine, ids)
        pieces = [engine.tokenizer.bytes_of([token_id]) for token_id in free]
        text = b"".join(pieces).decode(errors="ignore")
        words = re.findall(r"(?<![A-Za-z0-9_`])[A-Za-z]{2,}(?=[^A-Za-z0-9_])", text)
        word = words[len(words) // 2]
        begin = next(re.finditer(rf"(?<![A-Za-z0-9_`]){word}(?![A-Za-z0-9_])".encode(), b"".join(pieces))).end()
        keep = next(n for n in range(len(pieces) + 1) if len(b"".join(pieces[:n])) >= begin)
        conditions = StopConditions(frozenset(), code=False, connective=0)
        turn = await engine.generate(self.request(engine, ids, 80, conditions=conditions, markers=Markers((word,))))
        assert turn.stop is StopKind.CONNECTIVE
        assert turn.token_ids == free[:keep]

    async def test_an_end_of_thinking_that_is_replaced_goes_with_its_tokens(self, engine: Engine) -> None:
        """An end of thinking that is replaced is dropped with all its tokens."""
        ids = self.prompt(engine)
        free = await self.free(engine, ids)
        text = engine.tokenizer.bytes_of(free)
        start = next(n for n in range(len(text) // 3, len(text)) if text[n : n + 7].isascii())
        marker = text[start : start + 7]
        at = text.index(marker)
        keep = max(n for n in range(len(free)) if len(engine.tokenizer.bytes_of(free[:n])) <= at)
        markers = Markers((), think_ends=(marker.decode(),))
        request = self.request(
            engine, ids, 80, conditions=StopConditions(frozenset(), code=False, replace=True), markers=markers
        )
        streamed, turn = await self.streamed(engine, request)
        assert turn.stop is StopKind.THINK_END
        assert turn.token_ids == streamed.token_ids == free[:keep]

    async def test_an_end_of_thinking_that_nobody_waits_for_does_not_stop(self, engine: Engine) -> None:
        """An end of thinking that is no stop condition does not end the turn."""
        ids = self.prompt(engine)
        free = await self.free(engine, ids)
        marker = engine.tokenizer.decode(free)[10:16]
        turn = await engine.generate(self.request(engine, ids, 80, markers=Markers((), think_ends=(marker,))))
        assert turn.token_ids == free

    async def test_a_stop_string_ends_the_answer_and_no_thinking(self, engine: Engine) -> None:
        """A stop string ends the turn with the token that completes it, in the answer but not in the thinking."""
        ids = self.prompt(engine)
        free = await self.free(engine, ids)
        text = engine.tokenizer.bytes_of(free)
        begin = next(n for n in range(len(text) // 3, len(text)) if text[n : n + 6].isascii())
        string = text[begin : begin + 6]
        keep = next(n for n in range(len(free)) if string in engine.tokenizer.bytes_of(free[:n]))
        conditions = StopConditions(frozenset(), code=False, stop=("never said", string.decode()))
        answering = self.request(engine, ids, 80, conditions=conditions, state=State(answering=True))
        streamed, turn = await self.streamed(engine, answering)
        assert turn.stop is StopKind.STOP
        assert turn.token_ids == streamed.token_ids == free[:keep]
        thinking = self.request(engine, ids, 80, conditions=conditions, markers=Markers((), ()))
        assert (await engine.generate(thinking)).token_ids == free

    async def test_a_budget_for_thinking_ends_the_turn(self, engine: Engine) -> None:
        """A thinking budget ends the turn while thinking, but not while answering."""
        ids = self.prompt(engine)
        free = await self.free(engine, ids)
        conditions = StopConditions(frozenset(), code=False, thinking_tokens=31)
        request = self.request(engine, ids, 80, conditions=conditions, markers=Markers((), ()))
        streamed, turn = await self.streamed(engine, request)
        assert turn.stop is StopKind.THINKING_BUDGET
        assert turn.token_ids == streamed.token_ids == free[:31]
        answering = self.request(engine, ids, 80, conditions=conditions, state=State(answering=True))
        assert (await engine.generate(answering)).token_ids == free

    async def test_repetition_ends_the_turn(self, engine: Engine) -> None:
        """Repetition ends the turn."""
        ids = self.prompt(engine)
        free = await self.free(engine, ids)
        rule = Repetition(max_period=1, min_repeats=2, min_tokens=1, check_every=7)
        due = next((n for n in range(7, len(free) + 1, 7) if rule.found(free[:n])), None)
        turn = await engine.generate(
            self.request(engine, ids, 80, conditions=StopConditions(frozenset(), code=False, repetition=rule))
        )
        assert turn.token_ids == free[:due]
        assert turn.stop is (StopKind.LENGTH if due is None else StopKind.REPETITION)

    async def test_a_turn_goes_on_where_the_last_one_ended(self, engine: Engine) -> None:
        """A turn continues where the last one ended."""
        ids = self.prompt(engine)
        free = await self.free(engine, ids, 60)
        first = await engine.generate(self.request(engine, ids, 25, trace_id="two turns"))
        second = await engine.generate(self.request(engine, [*ids, *first.token_ids], 35, trace_id="two turns"))
        assert first.token_ids + second.token_ids == free

    async def test_an_insertion_is_read_like_everything_else(self, engine: Engine) -> None:
        """Inserted tokens are read like all others."""
        ids = self.prompt(engine)
        inserted = engine.tokenizer.encode(" Wait, let me think about that in another way.\n")
        first = await engine.generate(self.request(engine, ids, 20, trace_id="inserted"))
        so_far = [*ids, *first.token_ids, *inserted]
        second = await engine.generate(self.request(engine, so_far, 40, trace_id="inserted"))
        assert second.token_ids == await self.free(engine, so_far, 40)

    async def test_tokens_that_were_dropped_leave_no_trace(self, engine: Engine) -> None:
        """Dropped tokens have no effect on later ones."""
        ids = self.prompt(engine)
        first = await engine.generate(self.request(engine, ids, 30, trace_id="dropped"))
        so_far = [*ids, *first.token_ids[:11]]
        second = await engine.generate(self.request(engine, so_far, 40, trace_id="dropped"))
        assert second.token_ids == await self.free(engine, so_far, 40)

    async def test_traces_side_by_side_do_not_disturb_each_other(self, engine: Engine) -> None:
        """Concurrent traces do not affect each other."""
        prompts = [self.prompt(engine, n % len(QUESTIONS)) for n in range(12)]
        alone = [await self.free(engine, ids, 40) for ids in prompts[: len(QUESTIONS)]]
        together = await asyncio.gather(*(self.free(engine, ids, 40) for ids in prompts))
        assert together == [alone[n % len(QUESTIONS)] for n in range(12)]

    async def test_a_seed_decides_a_sampled_turn(self, engine: Engine) -> None:
        """A sampled turn is determined by its seed."""
        ids = self.prompt(engine)
        warm = Sampling(temperature=1.5)

        async def sampled(seed: int) -> tuple[int, ...]:
            return (await engine.generate(self.request(engine, ids, 30, sampling=warm, seed=seed))).token_ids

        one, again, other = await sampled(1), await sampled(1), await sampled(2)
        assert one == again
        assert one != other

    async def test_a_nucleus_of_nothing_is_greedy(self, engine: Engine) -> None:
        """A nucleus of a single token is greedy."""
        ids = self.prompt(engine)
        for narrow in (Sampling(temperature=1, top_p=1e-6), Sampling(temperature=1, top_k=1)):
            turn = await engine.generate(self.request(engine, ids, 30, sampling=narrow, seed=5))
            assert turn.token_ids == await self.free(engine, ids, 30)

    async def test_what_cannot_be_run_is_refused(self, engine: Engine) -> None:
        """Requests that cannot be run are rejected."""
        ids = self.prompt(engine)
        for bad in (
            self.request(engine, [], 5),
            self.request(engine, ids, 0),
            self.request(engine, ids, engine.context_length - len(ids) + 1),
        ):
            with pytest.raises(PromptError):
                await engine.generate(bad)

    async def test_a_context_can_be_filled_to_the_last_token(self, engine: Engine) -> None:
        """A context can be filled up to its last token."""
        ids = self.prompt(engine)
        ids += ids[-1:] * (engine.context_length - len(ids) - 3)
        assert len(await self.free(engine, ids, 3)) == 3

    async def test_a_turn_given_up_leaves_the_engine_usable(self, engine: Engine) -> None:
        """A cancelled stream leaves the engine usable."""
        ids = self.prompt(engine)
        free = await self.free(engine, ids, 40)
        async with aclosing(engine.stream(self.request(engine, ids, 200, trace_id="given up"))) as items:
            async for _ in items:
                break
        await engine.release("given up")
        await engine.release("never seen")
        turn = await engine.generate(self.request(engine, ids, 40, trace_id="given up"))
        assert turn.token_ids == free

    async def test_a_task_that_is_cancelled_gives_its_turn_up(self, engine: Engine) -> None:
        """A cancelled task cancels its turn."""
        ids = self.prompt(engine)
        task = asyncio.create_task(engine.generate(self.request(engine, ids, 200, trace_id="cancelled")))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await engine.release("cancelled")
        assert len(await self.free(engine, ids, 10)) == 10

    @pytest.mark.parametrize("number", [0, 1, 5])
    async def test_log_probabilities_are_aligned_with_the_tokens(self, engine: Engine, number: int) -> None:
        """Log-probabilities, also of the likeliest tokens, are aligned with the tokens in runs and in turns."""
        ids = self.prompt(engine)
        for sampling in (Sampling(), Sampling(temperature=1.5, top_k=30)):
            request = self.request(engine, ids, 40, sampling=sampling, seed=3, num_logprobs=number)
            streamed, turn = await self.streamed(engine, request)
            assert streamed == Tokens(turn.token_ids, turn.logprobs)
            assert turn.logprobs is not None and len(turn.logprobs) == len(turn.token_ids) == 40
            plain = await engine.generate(self.request(engine, ids, 40, sampling=sampling, seed=3))
            assert (plain.token_ids, plain.logprobs) == (turn.token_ids, None)
            for token_id, (logprob, top) in zip(turn.token_ids, turn.logprobs, strict=True):
                assert logprob <= 0
                assert len(top) == len({candidate for candidate, _ in top}) == number
                values = [value for _, value in top]
                assert values == sorted(values, reverse=True)
                assert dict(top).get(token_id, logprob) == logprob
                assert sum(math.exp(value) for value in values) <= 1 + 1e-4
                if number and token_id not in dict(top):
                    assert logprob <= values[-1]
                if number and not sampling.temperature:
                    assert token_id == top[0][0] or logprob == values[0]

    async def test_log_probabilities_are_those_before_temperature_and_filters(self, engine: Engine) -> None:
        """Log-probabilities are those of the model's own distribution, whatever the sampling settings are."""
        ids = self.prompt(engine)
        plain = await engine.generate(self.request(engine, ids, 1, num_logprobs=5))
        for sampling in (Sampling(temperature=1.9), Sampling(temperature=0.6, top_p=0.5, top_k=2)):
            request = self.request(engine, ids, 1, sampling=sampling, seed=7, num_logprobs=5)
            turn = await engine.generate(request)
            assert plain.logprobs is not None and turn.logprobs is not None
            if turn.token_ids == plain.token_ids:
                assert turn.logprobs[0].logprob == pytest.approx(plain.logprobs[0].logprob, abs=1e-3)
            expected = [value for _, value in plain.logprobs[0].top]
            assert [value for _, value in turn.logprobs[0].top] == pytest.approx(expected, abs=1e-3)

    async def test_the_trim_cuts_log_probabilities_with_their_tokens(self, engine: Engine) -> None:
        """The trim cuts log-probabilities like their tokens; the remaining ones are unchanged."""
        ids = self.prompt(engine)
        free = await engine.generate(self.request(engine, ids, 80, num_logprobs=2))
        assert free.logprobs is not None
        wanted = free.token_ids[len(free.token_ids) // 2]
        at = free.token_ids.index(wanted)
        for replace in (False, True):
            conditions = StopConditions(frozenset({wanted}), code=False, replace=replace)
            request = self.request(engine, ids, 80, conditions=conditions, num_logprobs=2)
            streamed, turn = await self.streamed(engine, request)
            assert streamed == Tokens(turn.token_ids, turn.logprobs)
            request = self.request(engine, ids, 80, conditions=conditions, num_logprobs=2)
            for found in (turn, await engine.generate(request)):
                assert found.token_ids == free.token_ids[: at + (not replace)]
                assert found.logprobs is not None
                for one, other in zip(found.logprobs, free.logprobs[: len(found.token_ids)], strict=True):
                    assert one.logprob == pytest.approx(other.logprob, abs=1e-3)

    async def test_log_probabilities_of_traces_side_by_side(self, engine: Engine) -> None:
        """Each trace gets its own log-probabilities, as many as its request asks for."""
        prompts = [self.prompt(engine, n % len(QUESTIONS)) for n in range(8)]
        numbers = [None, 0, 3, 20]

        async def one(n: int) -> Turn:
            name = f"side {n}"
            await engine.generate(
                self.request(engine, prompts[n], 3 * n + 1, trace_id=name)
            )  # so that the traces are at different positions
            return await engine.generate(
                self.request(engine, prompts[n], 20, trace_id=name, num_logprobs=numbers[n // 2])
            )

        alone = [
            await engine.generate(self.request(engine, ids, 20, num_logprobs=0)) for ids in prompts[: len(QUESTIONS)]
        ]
        for n, turn in enumerate(await asyncio.gather(*map(one, range(8)))):
            expected = alone[n % len(QUESTIONS)]
            assert turn.token_ids == expected.token_ids
            number = numbers[n // 2]
            if number is None:
                assert turn.logprobs is None
                continue
            assert turn.logprobs is not None and expected.logprobs is not None
            assert {len(found.top) for found in turn.logprobs} == {number}
            for found, wanted in zip(turn.logprobs, expected.logprobs, strict=True):
                assert found.logprob == pytest.approx(wanted.logprob, abs=1e-3)

    async def test_more_log_probabilities_than_anybody_gives_are_refused(self, engine: Engine) -> None:
        """Invalid numbers of log-probabilities are rejected."""
        for number in (-1, MAX_LOGPROBS + 1):
            with pytest.raises(ConfigError):
                await engine.generate(self.request(engine, self.prompt(engine), 5, num_logprobs=number))
