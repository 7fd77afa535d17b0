"""Runs the code blocks of the README and the site's pages, and compares the output that they show."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from tests.support.documentation import Block, Reader, blocks_of, commands_of, missing_output
from tests.support.waiting import wait_for_exits

ROOT = Path(__file__).parents[2]
PAGES = [page for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))] if blocks_of(page.read_text())]


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=pytest.mark.xdist_group(page.name), id=str(page.relative_to(ROOT))) for page in PAGES],
)
def test_a_page_does_what_it_says(page: Path, tmp_path: Path) -> None:
    with closing(Reader(tmp_path)) as reader:
        for block in blocks_of(page.read_text(encoding="utf-8")):
            if block.skip is None:
                reader.run(block, timeout=600)


def test_what_a_page_leaves_running_is_ended(tmp_path: Path) -> None:
    with closing(Reader(tmp_path)) as reader:
        (block,) = blocks_of("```sh\nsleep 1000 > /dev/null 2>&1 & echo $! > pid\n```\n")
        reader.run(block, timeout=60)
        number = int((tmp_path / "pid").read_text())
        assert Path(f"/proc/{number}").exists()
    wait_for_exits(lambda: [number] if Path(f"/proc/{number}").exists() else [])


def test_the_readme_is_run() -> None:
    blocks = blocks_of((ROOT / "README.md").read_text(encoding="utf-8"))
    assert {block.language for block in blocks if block.skip is None} >= {"console", "python"}


def test_every_block_left_out_has_a_reason() -> None:
    for page in PAGES:
        assert all(block.skip != "" for block in blocks_of(page.read_text(encoding="utf-8"))), page


PAGE = """Text.

```console
$ echo one   # a comment
one
$ printf '%s\\n' a b \\
      c d
a
...
d
```

<!-- skip: needs a GPU -->
```console
$ false
```

````text
```python
no block
```
````

<!-- file: one.py -->
```python
print(1)
```

```sh
python one.py
```
"""


def test_blocks_are_found() -> None:
    first, skipped, program, shell = blocks_of(PAGE)
    assert (first.language, first.line, first.skip) == ("console", 3, None)
    assert [command.shown for command in commands_of(first)] == [("one",), ("a", "...", "d")]
    assert (skipped.skip, program.file, program.text) == ("needs a GPU", "one.py", "print(1)\n")
    assert [command.text for command in commands_of(shell)] == ["python one.py\n"]


def test_blocks_are_run(tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    first, skipped, program, shell = blocks_of(PAGE)
    reader.run(first, 60)
    reader.run(program, 60)
    reader.run(shell, 60)
    for block in (skipped, Block("console", "$ echo one\ntwo\n", 1), Block("python", "1/0\n", 1)):
        with pytest.raises(AssertionError):
            reader.run(block, 60)


@pytest.mark.parametrize(
    ("shown", "missing"),
    [
        ((), []),
        (("a", "b"), []),
        (("a", "...", "d"), []),
        (("...", "d"), []),
        (("a", "c"), ["a", "c"]),
        (("d", "...", "a"), ["a"]),
        (("e",), ["e"]),
    ],
)
def test_output_is_compared(shown: tuple[str, ...], missing: list[str]) -> None:
    assert missing_output(shown, "a\nb  \nc\nd\n") == missing
