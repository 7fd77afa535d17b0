"""The contract of a session's files and images; part of `sandbox.testing`."""

from __future__ import annotations

import asyncio

import pytest

from sandbox.base import BaseSandbox
from sandbox.errors import (
    FileNameError,
    FileNotFound,
    FilesUnsupported,
    FileTooLarge,
    NotAFile,
    SandboxClosed,
)
from sandbox.result import Outcome

BAD_NAMES = (
    "",
    ".",
    "..",
    "../up",
    "down/../../up",
    "/absolute",
    "trailing/",
    "two//slashes",
    ".hidden",
    "in/.hidden",
    "nothing\0",
    "line\nfeed",
    "back\\slash",
    "turned\u202egnp.exe",
    "surrogate\ud800",
    "x" * 256,
    "/".join("x" * 200 for _ in range(3)),
    "/".join("abcdefghi"),
)
"""Names that every sandbox refuses."""

SHOWS_AN_IMAGE = """
import struct, zlib
def chunk(kind, data):
    return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
class Picture:
    def __init__(self, shade=0): self.shade = shade
    def __repr__(self): return 'a picture'
    def _repr_png_(self):
        head = chunk(b'IHDR', struct.pack('>IIBBBBB', 1, 1, 8, 0, 0, 0, 0))
        pixel = chunk(b'IDAT', zlib.compress(bytes([0, self.shade])))
        return bytes([137]) + b'PNG\\r\\n' + bytes([26]) + b'\\n' + head + pixel + chunk(b'IEND', b'')
"""
"""A cell that defines the class `Picture`, whose objects are displayed as images."""


class FilesContract:
    """Tests of file operations, for sandboxes that support them."""

    async def test_unsupported_file_operations_raise(self, box: BaseSandbox) -> None:
        """A sandbox supports them if and only if its `files` says so."""
        async with box.session() as session:
            if box.files:
                await session.write_file("a", b"")
                return
            for use in (session.write_file("a", b""), session.read_file("a"), session.remove_file("a")):
                with pytest.raises(FilesUnsupported):
                    await use
            with pytest.raises(FilesUnsupported):
                await session.list_files()

    async def test_files_are_written_read_listed_and_removed(self, box: BaseSandbox) -> None:
        """With any content, in folders, too; other sessions do not see them."""
        if not box.files:
            return
        contents = {"b.bin": bytes(range(256)) * 400, "a b.txt": "é\n".encode(), "data/x/é.csv": b"", "data/y": b"1"}
        async with box.session() as session, box.session() as other:
            assert await session.list_files() == ()
            for name, data in contents.items():
                await session.write_file(name, data)
            assert await session.list_files() == tuple(sorted((name, len(data)) for name, data in contents.items()))
            assert {name: await session.read_file(name) for name in contents} == contents
            await session.write_file("data/y", b"other")
            assert await session.read_file("data/y") == b"other"
            await session.remove_file("data/y")
            with pytest.raises(FileNotFound):
                await session.read_file("data/y")
            assert "data/y" not in [file.name for file in await session.list_files()]
            assert await other.list_files() == ()

    async def test_missing_files_and_folders_are_told_apart(self, box: BaseSandbox) -> None:
        """FileNotFound and NotAFile carry the name."""
        if not box.files:
            return
        async with box.session() as session:
            await session.write_file("folder/file", b"")
            for name in ("none", "none/none", "folder/none"):
                for use in (session.read_file, session.remove_file):
                    with pytest.raises(FileNotFound) as raised:
                        await use(name)
                    assert raised.value.name == name
            for name in ("folder", "folder/file/more"):
                with pytest.raises(NotAFile):
                    await session.write_file(name, b"")

    @pytest.mark.parametrize("name", BAD_NAMES)
    async def test_bad_names_are_refused(self, box: BaseSandbox, name: str) -> None:
        """By all operations, and nothing is created."""
        if not box.files:
            return
        async with box.session() as session:
            for use in (session.write_file(name, b""), session.read_file(name), session.remove_file(name)):
                with pytest.raises(FileNameError):
                    await use
            assert await session.list_files() == ()

    async def test_files_are_bounded(self, box: BaseSandbox) -> None:
        """A file that is too large is refused."""
        if not box.files:
            return
        async with box.session() as session:
            with pytest.raises(FileTooLarge) as raised:
                await session.write_file("large", bytes(box.limits.file_bytes + 1))
            assert (raised.value.size, raised.value.limit) == (box.limits.file_bytes + 1, box.limits.file_bytes)
            assert await session.list_files() == ()

    async def test_files_of_a_closed_session(self, box: BaseSandbox) -> None:
        """After its block, file operations raise SandboxClosed."""
        if not box.files:
            return
        async with box.session() as session:
            pass
        with pytest.raises(SandboxClosed):
            await session.list_files()

    async def test_timeout_of_a_file_operation_must_be_positive(self, box: BaseSandbox) -> None:
        """As for cells."""
        if not box.files:
            return
        async with box.session() as session:
            with pytest.raises(ValueError, match="timeout"):
                await session.write_file("a", b"", timeout=0)


class PythonFilesContract:
    """Tests of files and images, for sandboxes that run code."""

    async def test_files_are_shared_with_cells(self, box: BaseSandbox) -> None:
        """Code reads what the host wrote, and the host what code wrote, also after `chdir`; variables stay."""
        if not box.files:
            return
        async with box.session() as session:
            await session.write_file("in.txt", b"6")
            await session.execute("x = int(open('in.txt').read())")
            await session.write_file("mine.py", b"y = 7")
            result = await session.execute("import os, mine\nopen('out.txt', 'w').write(str(x * mine.y));os.chdir('/')")
            assert result.outcome is Outcome.OK
            assert await session.read_file("out.txt") == b"42"
            assert [file.name for file in await session.list_files()] == ["in.txt", "mine.py", "out.txt"]
            assert (await session.execute("x")).text == "6"
            assert box.stats.faults == 0

    async def test_files_wait_for_the_cell(self, box: BaseSandbox) -> None:
        """A file written at the end of the running cell is there."""
        if not box.files:
            return
        async with box.session() as session:
            slow = "import time\ntime.sleep(0.2)\nopen('late', 'wb').write(b'x');"
            cell = asyncio.create_task(session.execute(slow))
            await asyncio.sleep(0)  # a turn of the loop: the cell is first
            assert await session.read_file("late") == b"x"
            assert (await cell).outcome is Outcome.OK

    async def test_links_and_special_files_are_refused(self, box: BaseSandbox) -> None:
        """They are not followed, and do not block."""
        if not box.files:
            return
        links = "import os\nos.symlink('/etc/hosts', 'link'); os.symlink('/etc', 'way')\n"
        make = f"{links}os.mkfifo('fifo'); os.mkdir('folder')"
        async with box.session() as session:
            assert (await session.execute(make)).outcome is Outcome.OK
            assert await session.list_files() == ()
            for name in ("link", "way/hosts", "fifo", "folder"):
                for use in (session.read_file(name), session.remove_file(name), session.write_file(name, b"x")):
                    with pytest.raises(NotAFile):
                        await use

    async def test_images_are_returned_on_request(self, box: BaseSandbox) -> None:
        """The text is the same as without, and nothing is rendered without a request."""
        shown = "display(Picture())\nprint(1)\nPicture(1)"
        async with box.session() as session:
            await session.execute(SHOWS_AN_IMAGE)
            plain = await session.execute(shown)
            assert (plain.text, plain.images) == ("a picture\n1\na picture", ())
            if not box.images:
                return
            result = await session.execute(shown, images=True)
            assert (result.text, result.truncated) == (plain.text, False)
            assert [image.mime for image in result.images] == ["image/png"] * 2
            assert all(image.data.startswith(b"\x89PNG") for image in result.images)
            assert result.images[0] != result.images[1]
            count = "drawn = []\nPicture._repr_png_ = lambda self: drawn.append(1)\nPicture()"
            assert (await session.execute(count)).text == "a picture"
            assert (await session.execute("drawn", images=True)).text == "[]"

    async def test_images_are_bounded(self, box: BaseSandbox) -> None:
        """Further ones are dropped, and the result is marked as truncated."""
        if not box.images:
            return
        async with box.session() as session:
            await session.execute(SHOWS_AN_IMAGE)
            result = await session.execute(
                f"for n in range({box.limits.images + 1}): display(Picture(n % 256))", images=True
            )
            assert (len(result.images), result.truncated) == (box.limits.images, True)
