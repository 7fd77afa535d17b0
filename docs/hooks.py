"""Hooks of the site's build: repository files as pages, the commands' own help, and no files from other hosts.

- A page whose front matter has ``include: FILE`` shows that file of the repository (a README, the changelog).
- A link that leaves ``docs/`` for a file of the repository leads to a page with that file's text; a link to a file that
  does not exist is a warning, and so fails a strict build.
- ``<!-- help: solve -->`` is replaced by what ``start-agent solve --help`` prints.
- The build fails where a page loads a script, a style sheet, a font or a picture from another host.
"""

from __future__ import annotations

import io
import logging
import os
import posixpath
import re
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

log = logging.getLogger("mkdocs.hooks")

_ROOT = Path(__file__).resolve().parents[1]
_LINK = re.compile(r"(!?\[[^\]]*\]\()([^)\s#]+)(#[^)\s]*)?(\))")
_CODE = re.compile(r"^(`{3,}|~{3,}).*?^\1`*\s*$|`[^`\n]+`", re.MULTILINE | re.DOTALL)
_INCLUDE = re.compile(r"\A---\n(?:.*\n)*?include: (\S+)\n(?:.*\n)*?---\n")
_HELP = re.compile(r"<!-- help: ?(.*?) -->")
_OTHER_HOST = re.compile(
    r"<(?:script|img|iframe|link)\b[^>]*?\b(?:src|href)=[\"']?((?:https?:)?//[^\"'\s>]+)", re.IGNORECASE
)
_OTHER_HOST_CSS = re.compile(r"(?:@import|url\()\s*[\"']?((?:https?:)?//[^\"')\s]+)", re.IGNORECASE)

_included: dict[str, str] = {}  # file of the repository → the page that shows it


def on_files(files: Any, config: Any) -> Any:
    """Find the pages that include files, and add a page for each repository file that a page links to."""
    _included.clear()
    texts = {}
    for file in files.documentation_pages():
        text = Path(file.abs_src_path).read_text(encoding="utf-8")
        place = f"docs/{file.src_uri}"
        if found := _INCLUDE.match(text):
            place = found[1]
            _included[place] = file.src_uri
            text = (_ROOT / place).read_text(encoding="utf-8")
        texts[place] = text
    for place, text in texts.items():
        for link in _LINK.finditer(_CODE.sub("", text)):
            target = _target(place, link[2])
            if target is None or target.startswith("docs/") or target in _included or not (_ROOT / target).is_file():
                continue
            page = _page_of(target)
            if files.get_file_from_path(page) is None:
                files.append(File.generated(config, page, content=_source_page(target)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Include, lead links to pages, and put in the commands' help."""
    place = f"docs/{page.file.src_uri}"
    if include := page.meta.get("include"):
        place, markdown = include, (_ROOT / include).read_text(encoding="utf-8")
    markdown = _HELP.sub(lambda found: _help(found[1].split()), markdown)
    codes: list[str] = []

    def keep(found: re.Match[str]) -> str:
        codes.append(found[0])
        return f"\0{len(codes) - 1}\0"

    def lead(found: re.Match[str]) -> str:
        target = _target(place, found[2])
        if target is None:
            return found[0]
        if target.startswith("docs/"):
            led = target.removeprefix("docs/")
        elif target in _included:
            led = _included[target]
        elif (_ROOT / target).is_file():
            led = _page_of(target)
        elif (_ROOT / target).is_dir():
            return re.sub(r"^\[|\]\($", "", found[1])
        else:
            log.warning("%s links to %s, which does not exist", place, target)
            return found[0]
        relative = posixpath.relpath(led, posixpath.dirname(page.file.src_uri) or ".")
        return f"{found[1]}{relative}{found[3] or ''}{found[4]}"

    # Links in code are no links; code within a link's text is put back before the links are looked at.
    hidden = _CODE.sub(lambda found: keep(found) if found[0].startswith(("```", "~~~")) else found[0], markdown)
    led = _LINK.sub(lead, hidden)
    return re.sub("\0(\\d+)\0", lambda found: codes[int(found[1])], led)


def on_post_build(config: Any) -> None:
    """Refuse a site that loads anything from another host."""
    for path in sorted(Path(config["site_dir"]).rglob("*")):
        pattern = {".html": _OTHER_HOST, ".css": _OTHER_HOST_CSS}.get(path.suffix)
        if pattern is None:
            continue
        for found in pattern.finditer(path.read_text(encoding="utf-8")):
            if 'rel="canonical"' not in found[0]:
                raise PluginError(f"{path.name} loads {found[1]} from another host")


def _target(place: str, link: str) -> str | None:
    """The repository file that a link in ``place`` names; None for addresses and anchors."""
    if re.match(r"[a-z][a-z0-9+.-]*:", link) or link.startswith(("/", "#")):
        return None
    target = posixpath.normpath(posixpath.join(posixpath.dirname(place), link))
    return None if target.startswith("..") else target


def _page_of(target: str) -> str:
    """The page that shows a repository file; pages whose names begin with a dot are left out of sites."""
    return f"source/{target.lstrip('.')}.md"


def _source_page(target: str) -> str:
    text = (_ROOT / target).read_text(encoding="utf-8")
    language = {".py": "python", ".yaml": "yaml", ".toml": "toml", ".ipynb": "json"}.get(Path(target).suffix, "text")
    return f"---\nsearch: {{exclude: true}}\n---\n# {target}\n\n~~~~~~~~{language}\n{text}\n~~~~~~~~\n"


def _help(words: list[str]) -> str:
    """A command's help, as a block of code."""
    from start_agent.cli.main import main

    os.environ["COLUMNS"] = "100"
    output = io.StringIO()
    with redirect_stdout(output), suppress(SystemExit):
        main([*words, "--help"])
    return f"```text\n$ start-agent {' '.join([*words, '--help'])}\n{output.getvalue().rstrip()}\n```"
