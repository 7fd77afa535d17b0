"""Compare your own hint file with the built-in library, on the same problems.

    python examples/own_hints.py [FOLDER]

On the command line it is ``start-agent batch --hint-files examples/my_hints.yaml ...``.
"""

import sys
from pathlib import Path

import start_agent
from hints import HintLibrary
from start_agent.analysis.compare import Comparison

HINTS = Path(__file__).with_name("my_hints.yaml")
PROBLEMS = 12


def main(folder: Path) -> Comparison:
    """Run both and compare them."""
    library = HintLibrary.load(HINTS)  # raises an error with file and line if it is invalid
    print(f"{HINTS.name}: {', '.join(hint.id for hint in library)}")
    built_in = start_agent.evaluate("pocket", limit=PROBLEMS, output_dir=folder / "built-in")
    mine = start_agent.evaluate("pocket", limit=PROBLEMS, hint_files=(HINTS,), output_dir=folder / "mine")
    used = {span.cause for trace in mine.traces() for span in trace.of_kind(start_agent.SpanKind.HINT)}
    print(f"built-in: {built_in.accuracy:.1%} correct, mine: {mine.accuracy:.1%}, with {', '.join(sorted(used))}")
    return built_in.compare(mine)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/own-hints"))
