"""Attacks with images: invalid, too many, too large, endless; and forged on the wire."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from sandbox import Outcome, Result, Sandbox
from sandbox.testing_files import SHOWS_AN_IMAGE
from tests.faults.test_hostile_wire import WIRE
from tests.support.small import LIMITS

Attack = Callable[..., Awaitable[Result]]

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("attack")]

TIERS = (1, 3)

SHOWN = f"{SHOWS_AN_IMAGE}\ngood = Picture()._repr_png_()\nx = 5\n"
FRAMES = f"""{WIRE}{SHOWN}
def begin(kind, size): return frame(b'm', struct.pack('<BI', kind, size))
def data(content): return b''.join(frame(b'd', content[n:n + 4000]) for n in range(0, len(content), 4000))
"""


@pytest.mark.parametrize(
    "made",
    [
        "b'<script>alert(1)</script>'",
        "'<svg></svg>'",
        "good[:-1]",
        "good + b'<script>'",
        "good[:16] + struct.pack('>II', 1 << 31, 1 << 31) + good[24:]",
        "good[:16] + struct.pack('>II', 1 << 15, 1 << 15) + good[24:]",
        "good[:16] + struct.pack('>II', 0, 1) + good[24:]",
        "good[:33] + bytes(2 << 20) + good[33:]",
        "'A' * (1 << 23)",
        "'\\udc80'",
        "7",
        "()",
        "1 / 0",
        "[print('noise'), __import__('warnings').warn('noise'), b''][2]",
    ],
)
async def test_invalid_images_are_dropped(box: Sandbox, made: str) -> None:
    """The text is unaffected, the cell succeeds, and the result is marked as truncated."""
    async with box.session() as session:
        await session.execute(SHOWN)
        result = await session.execute(f"Picture._repr_png_ = lambda self: {made}\nPicture()", images=True)
        assert (result.outcome, result.text) == (Outcome.OK, "a picture")
        assert (result.images, result.truncated) == ((), True)
        raw = await session.execute(f"display({{'image/png': {made}, 'text/plain': 'raw'}}, raw=True)", images=True)
        assert raw.images == () and raw.text.splitlines()[-1] != "a picture"
        assert (await session.execute("x")).text == "5"


@pytest.mark.parametrize("name", ["_repr_jpeg_", "_repr_mimebundle_"])
async def test_the_wrong_type_is_dropped(box: Sandbox, name: str) -> None:
    made = "{'image/jpeg': good}" if "bundle" in name else "good"
    async with box.session() as session:
        await session.execute(f"{SHOWN}\ndel Picture._repr_png_\nPicture.{name} = lambda self, **kwargs: {made}")
        result = await session.execute("display(Picture())", images=True)
        assert (result.outcome, result.text) == (Outcome.OK, "a picture")
        assert (result.images, result.truncated) == ((), True)


async def test_endless_rendering(box: Sandbox) -> None:
    """It counts towards the time of the cell."""
    async with box.session() as session:
        await session.execute(f"{SHOWN}\ndef endless(self):\n    while True: pass\nPicture._repr_png_ = endless")
        result = await session.execute("print(1)\nPicture()", timeout=0.5, images=True)
        assert (result.outcome, result.images, result.state_lost) == (Outcome.TIMEOUT, (), False)
        assert (await session.execute("x")).text == "5"


async def test_images_are_bounded_in_sum(box: Sandbox) -> None:
    """After an image that is too large, a smaller one may still be returned."""
    large = "large = lambda self: good[:33] + bytes(400_000) + good[33:]\n"
    large += "Picture._repr_png_, small = large, Picture._repr_png_"
    async with box.session() as session:
        await session.execute(SHOWN + large)
        show = "for _ in range(3): display(Picture())\nPicture._repr_png_ = small\nPicture()"
        result = await session.execute(show, images=True)
        assert [len(image.data) > 400_000 for image in result.images] == [True, True, False]
        assert result.truncated and sum(len(image.data) for image in result.images) <= LIMITS.image_bytes


@pytest.mark.parametrize(
    "sent",
    [
        "begin(2, 5)",
        "begin(0, 0)",
        f"begin(0, {LIMITS.image_bytes + 1})",
        "begin(0, 5) * 2",
        "data(good)",
        "frame(b'd', b'')",
        "begin(0, len(good) - 1) + data(good)",
        "begin(0, len(good)) + data(good[:-1]) + result(1)",
        "begin(1, len(good)) + data(good)",
        "begin(0, 9) + data(b'123456789')",
        f"(begin(0, len(good)) + data(good)) * {LIMITS.images + 1}",
        "frame(b'm', b'short')",
        "frame(b'n', bytes(9))",
        "frame(b'=', bytes(13))",
    ],
)
async def test_invalid_frames_end_the_kernel(box: Sandbox, sent: str) -> None:
    async with box.session() as session:
        result = await session.execute(f"{FRAMES}\nos.write(replies, {sent})\nwhile True: pass", images=True)
        assert (result.outcome, result.state_lost) == (Outcome.DIED, True)
        assert len(result.images) <= LIMITS.images


async def test_images_without_a_request_end_the_kernel(box: Sandbox) -> None:
    async with box.session() as session:
        result = await session.execute(
            f"{FRAMES}\nos.write(replies, begin(0, len(good)) + data(good))\nwhile True: pass"
        )
        assert (result.outcome, result.images) == (Outcome.DIED, ())


async def test_an_endless_image_of_single_bytes(box: Sandbox) -> None:
    send = (
        f"{FRAMES}\nos.write(replies, begin(0, {LIMITS.image_bytes}))\nwhile True: os.write(replies, frame(b'd', b'x'))"
    )
    async with box.session() as session:
        result = await session.execute(send, images=True)
        assert (result.outcome, result.state_lost) == (Outcome.OUTPUT, True)


async def test_a_forged_image_is_accepted(box: Sandbox) -> None:
    """Code may send what it could display as well."""
    sent = "begin(0, len(good)) + data(good) + result(1)"
    async with box.session() as session:
        result = await session.execute(f"{FRAMES}\nos.write(replies, {sent})\nwhile True: pass", images=True)
        assert (result.outcome, len(result.images)) == (Outcome.OK, 1)


@pytest.mark.parametrize(
    "fake",
    [
        "get_fignums = lambda: iter(int, 1)",
        "get_fignums = lambda: [1] * 10; figure = lambda number: Picture(); get_backend = lambda: 'agg'; close = print",
        "get_fignums = lambda: [1]; get_backend = lambda: 1 / 0",
    ],
)
async def test_a_replaced_pyplot(box: Sandbox, fake: str) -> None:
    """It counts towards the time of the cell."""
    plant = f"import sys\nclass pyplot:\n    {fake}\nsys.modules['matplotlib.pyplot'] = pyplot"
    async with box.session() as session:
        await session.execute(SHOWN)
        result = await session.execute(plant, images=True, timeout=0.5)
        assert result.outcome in (Outcome.OK, Outcome.TIMEOUT) and result.images == ()


async def test_replaced_modules(box: Sandbox) -> None:
    """There may be no images, but the session continues."""
    replace = "import base64, io, struct, warnings, zlib\nfor m in (base64, io, warnings): m.__dict__.clear()"
    async with box.session() as session:
        await session.execute(f"{SHOWN}{replace}")
        result = await session.execute("display(Picture())\nprint(1)", images=True)
        assert len(result.images) <= 1 and result.outcome in (Outcome.OK, Outcome.ERROR)
        assert (await session.execute("assert x == 5")).outcome is Outcome.OK
