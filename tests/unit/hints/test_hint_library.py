"""Selecting, choosing, and a user's own files."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from hints import Domain, DuplicateHintError, Function, Hint, HintLibrary, NoHintError, Placement, Template

ENTRY = """\
  - id: {id}
    domain: math
    function: logic_check
    placement: connective
    text: |
      {text}
      ```python
"""


def write(path: Path, *ids: str, head: str = "version: 1\n", text: str = "let me try.") -> Path:
    path.write_text(head + "hints:\n" + "".join(ENTRY.format(id=i, text=text) for i in ids), encoding="utf-8")
    return path


def test_choice_is_seeded() -> None:
    def draw(library: HintLibrary, seed: int) -> list[str]:
        rng = random.Random(seed)
        return [library.choose(rng, Domain.MATH, Placement.CONNECTIVE).id for _ in range(20)]

    library = HintLibrary.builtin()
    shuffled = list(library)
    random.Random(5).shuffle(shuffled)
    assert draw(library, 1) == draw(library, 1) == draw(HintLibrary(shuffled), 1)
    assert draw(library, 1) != draw(library, 2)


def test_choice_reaches_every_hint_that_fits() -> None:
    library = HintLibrary.builtin()
    rng = random.Random(0)
    fitting = library.select(Domain.MATH, Placement.END_OF_THINK)
    chosen = {library.choose(rng, Domain.MATH, Placement.END_OF_THINK) for _ in range(1000)}
    assert chosen == set(fitting)


def test_choice_draws_once() -> None:
    rng, mirror = random.Random(3), random.Random(3)
    library = HintLibrary.builtin()
    fitting = library.select(Domain.CODE, Placement.CONNECTIVE, template=Template.STDIN)
    assert library.choose(rng, Domain.CODE, Placement.CONNECTIVE, template=Template.STDIN) in fitting
    mirror.choice(fitting)
    assert rng.getstate() == mirror.getstate()


def test_selection_narrows() -> None:
    library = HintLibrary.builtin()
    selected = library.select(Domain.CODE, Placement.CONNECTIVE, Function.DEBUG, Template.CLASS)
    assert selected
    assert {(h.domain, h.placement, h.function, h.template) for h in selected} == {
        (Domain.CODE, Placement.CONNECTIVE, Function.DEBUG, Template.CLASS)
    }
    assert [h.id for h in selected] == sorted(h.id for h in selected)
    assert library.select(Domain.CODE, Placement.CONNECTIVE, Function.LOGIC_CHECK) == ()


def test_nothing_to_choose_from_is_an_error_that_says_what() -> None:
    with pytest.raises(NoHintError, match="math, connective, deep_thinking"):
        HintLibrary([]).choose(random.Random(0), Domain.MATH, Placement.CONNECTIVE, Function.DEEP_THINKING)
    with pytest.raises(NoHintError, match="`nowhere`"):
        HintLibrary.builtin()["nowhere"]


def test_two_hints_of_one_id_are_refused() -> None:
    hint = next(iter(HintLibrary.builtin()))
    with pytest.raises(DuplicateHintError, match=hint.id):
        HintLibrary([hint, hint])


def test_loading_no_file_gives_the_builtin_hints() -> None:
    assert tuple(HintLibrary.load()) == tuple(HintLibrary.builtin())


def test_a_file_extends(tmp_path: Path) -> None:
    library = HintLibrary.load(write(tmp_path / "a.yaml", "mine.1"))
    assert len(library) == len(HintLibrary.builtin()) + 1
    assert library["mine.1"] == Hint(
        id="mine.1",
        version=1,
        domain=Domain.MATH,
        function=Function.LOGIC_CHECK,
        placement=Placement.CONNECTIVE,
        text="let me try.\n```python\n",
        source="user",
    )


def test_the_same_id_replaces_the_earlier_hint(tmp_path: Path) -> None:
    builtin = HintLibrary.builtin().select(Domain.MATH, Placement.CONNECTIVE)[0]
    first = write(tmp_path / "a.yaml", builtin.id, "mine.1")
    second = write(tmp_path / "b.yaml", "mine.1", head="version: 1\nmode: extend\n", text="I can do it.")
    library = HintLibrary.load(first, str(second))
    assert len(library) == len(HintLibrary.builtin()) + 1
    assert library[builtin.id].text == "let me try.\n```python\n"
    assert library["mine.1"].text == "I can do it.\n```python\n"
    assert HintLibrary.builtin()[builtin.id] == builtin


def test_replace_mode_discards_what_came_before(tmp_path: Path) -> None:
    first = write(tmp_path / "a.yaml", "mine.1")
    second = write(tmp_path / "b.yaml", "mine.2", head="version: 1\nmode: replace\n")
    third = write(tmp_path / "c.yaml", "mine.3")
    assert [hint.id for hint in HintLibrary.load(first, second, third)] == ["mine.2", "mine.3"]


def test_a_byte_order_mark_and_windows_line_breaks_are_fine(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", "mine.1")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert HintLibrary.load(path)["mine.1"].text == "let me try.\n```python\n"
