"""One question: the thinking streams to the terminal, then the trace's spans are listed.

python examples/solve.py "What is 48613 * 7957?" [MODEL]
"""

import sys

import start_agent
from start_agent.decoding.events import CellFinished, ModelText, SpanAdded, TraceFinished
from start_agent.trace import SpanKind, Trace


def main(question: str, model: str = "pocket") -> Trace:
    """Stream one question; returns its trace."""
    with start_agent.open(model=model) as solver:
        for event in solver.stream(question):
            match event:
                case ModelText(text=text):
                    print(text, end="", flush=True)
                case SpanAdded(span, text) if span.kind is SpanKind.HINT:
                    print(f"[hint] {text}", end="")
                case CellFinished(result):
                    print(f"[{result.outcome}] {result.text}")
                case TraceFinished(trace):
                    break
    print("\n")
    for span in trace.spans:
        print(f"{span.kind:<12} {len(span.token_ids):>4} tokens  {span.cause}")
    print(f"answer: {trace.answer}")
    return trace


if __name__ == "__main__":
    main(*(sys.argv[1:] or ["What is 48613 * 7957?"]))
