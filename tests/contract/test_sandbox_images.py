"""Figures and other images that a cell displays, as in a notebook."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from sandbox import Outcome, Result, Sandbox

pytestmark = pytest.mark.asyncio(loop_scope="module")

pytest.importorskip("matplotlib")
pillow = pytest.importorskip("PIL.Image")

PLOT = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\n"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def box() -> AsyncIterator[Sandbox]:
    async with Sandbox(size=2, preload=("matplotlib.pyplot", "PIL.Image", "sympy")) as sandbox:
        yield sandbox


async def run(box: Sandbox, *cells: str) -> list[Result]:
    """The results of the last cell, without and with images."""
    results = []
    for images in (False, True):
        async with box.session() as session:
            for cell in cells[:-1]:
                await session.execute(cell)
            results.append(await session.execute(cells[-1], images=images))
    assert results[0].images == () and results[0].text == results[1].text
    return results


async def shown(box: Sandbox, *cells: str) -> tuple[str, list[tuple[int, int]]]:
    """The text of the last cell, which is the same with and without images, and the sizes of its images."""
    _, result = await run(box, *cells)
    assert not result.truncated
    sizes = []
    for image in result.images:
        with pillow.open(io.BytesIO(image.data)) as opened:
            opened.load()
            assert opened.get_format_mimetype() == image.mime
            sizes.append(opened.size)
    return result.text, sizes


@pytest.mark.parametrize(
    ("cell", "text", "count"),
    [
        (f"{PLOT}plt.show()", "", 1),
        (f"{PLOT}None", "", 1),
        (f"{PLOT}plt.show()\nplt.title('t')\nplt.show()", "", 2),
        (f"{PLOT}plt.show()\nplt.show()", "", 1),
        (f"{PLOT}plt.close()", "", 0),
        (f"{PLOT}plt.savefig('a.png')\nplt.close()", "", 0),
        (f"{PLOT}plt.figure()\nplt.plot([3])\nNone", "", 2),
        (f"{PLOT}plt.gcf().show()\nplt.close()", "", 1),
        (f"{PLOT}plt.gcf()", "<Figure size 640x480 with 1 Axes>", 1),
        (f"{PLOT}display(plt.gcf())", "<Figure size 640x480 with 1 Axes>", 1),
        ("import matplotlib.pyplot as plt\nplt.figure()\nNone", "", 0),
        (f"%matplotlib inline\n{PLOT}plt.show()", "<Figure size 640x480 with 1 Axes>", 1),
        (f"%matplotlib inline\n{PLOT}plt.show()\nplt.plot([3]);", "<Figure size 640x480 with 1 Axes>\n" * 2, 2),
        (f"{PLOT}plt.title('\u3042')\nprint(1)", "1", 1),
    ],
)
async def test_figures(box: Sandbox, cell: str, text: str, count: int) -> None:
    """Each is returned once, whether shown, displayed or left open; warnings of the rendering are dropped."""
    found, sizes = await shown(box, cell)
    assert (found, len(sizes)) == (text.rstrip("\n"), count)
    assert all(width > 300 and height > 300 for width, height in sizes)


async def test_figures_of_a_cell_that_fails(box: Sandbox) -> None:
    _, result = await run(box, f"{PLOT}1 / 0")
    assert (result.outcome, len(result.images)) == (Outcome.ERROR, 1)


async def test_pictures(box: Sandbox) -> None:
    """The last value and displayed objects."""
    assert await shown(box, "from PIL import Image\ndisplay(Image.new('L', (9, 5)))\nImage.new('RGB', (7, 3))") == (
        "<PIL.Image.Image image mode=L size=9x5>\n<PIL.Image.Image image mode=RGB size=7x3>",
        [(9, 5), (7, 3)],
    )
    made = "import io\nfrom IPython.display import Image\nfrom PIL import Image as P\nbuffer = io.BytesIO()\n"
    for kind in ("PNG", "JPEG"):
        save = f"{made}P.new('RGB', (8, 6)).save(buffer, '{kind}')\n"
        assert await shown(box, f"{save}Image(buffer.getvalue())") == ("<IPython.core.display.Image object>", [(8, 6)])
    assert await shown(box, "from PIL import Image\nImage.new('RGB', (7, 3));") == ("", [])


async def test_a_figure_of_an_earlier_cell(box: Sandbox) -> None:
    """It is closed at the end of its cell, and can be displayed again."""
    assert await shown(box, f"{PLOT}None", "1") == ("1", [])
    text, sizes = await shown(box, f"{PLOT}figure = plt.gcf()", "figure.axes[0].set_title('t')\nfigure")
    assert (text, len(sizes)) == ("<Figure size 640x480 with 1 Axes>", 1)


async def test_formulas_are_text(box: Sandbox) -> None:
    """After `init_printing`, sympy would render them with matplotlib."""
    text, sizes = await shown(box, "import sympy\nsympy.init_printing()\nsympy.Symbol('x')")
    assert (text, sizes) == ("x", [])


async def test_nothing_is_loaded_for_images() -> None:
    """Figures also work if the cell itself imports matplotlib."""
    async with Sandbox(size=1, prestart=0) as box, box.session() as session:
        result = await session.execute("import sys\n'matplotlib' in sys.modules, 'PIL' in sys.modules", images=True)
        assert result.text == "(False, False)"
        assert len((await session.execute(f"{PLOT}plt.show()\nplt.title('t')", images=True)).images) == 2


async def test_a_fork_returns_none(box: Sandbox) -> None:
    async with box.session() as session:
        result = await session.execute(f"{PLOT}plt.show()", fork=True, images=True)
        assert (result.outcome, result.images) == (Outcome.OK, ())
        assert len((await session.execute(f"{PLOT}plt.show()", images=True)).images) == 1
