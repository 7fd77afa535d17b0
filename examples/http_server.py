"""Questions to a model on a server: vLLM, SGLang or llama.cpp. The sandbox and the hints run in this process.

    vllm serve Qwen/Qwen3-8B --enable-prompt-tokens-details
    python examples/http_server.py http://localhost:8000 Qwen/Qwen3-8B "What is 48613 * 7957?" ...

    llama-server -m model.gguf --port 8080
    python examples/http_server.py http://localhost:8080 model.gguf "What is 48613 * 7957?"

The model's name also selects its tokenizer: a hub name, a folder, or the server's GGUF file. An API key is read from
the environment variable START_AGENT_API_KEY.
"""

import asyncio
import sys

import start_agent
from start_agent.trace import Trace


async def main(base_url: str, model: str, *questions: str) -> list[Trace]:
    """Solve all questions concurrently; returns their traces in order."""
    async with start_agent.open(engine="http", base_url=base_url, model=model) as solver:
        traces = await asyncio.gather(*(solver.solve(question) for question in questions))
    for question, trace in zip(questions, traces, strict=True):
        print(f"{question}  {trace.answer}  ({trace.outcome}, {trace.tool_calls} tool calls)")
    return traces


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit("usage: http_server.py BASE_URL MODEL QUESTION ...")
    asyncio.run(main(*sys.argv[1:]))
