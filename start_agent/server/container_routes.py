"""``/v1/containers``: containers (kernels) and their files."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import File, Query, Request, Response, UploadFile

from sandbox import (
    FileError,
    FileInfo,
    FileNameError,
    FileNotFound,
    FilesLost,
    FilesUnsupported,
    FileTooLarge,
)
from start_agent.server.ascii_json import JSONResponse
from start_agent.server.body import new_router
from start_agent.server.containers import Container, Containers
from start_agent.server.errors import ERRORS, APIError, unsupported
from start_agent.server.paging import Paging
from start_agent.server.response_items import JSON
from start_agent.server.responses_protocol import CreateContainer
from start_agent.server.state import client_of, state_of

router = new_router()

_STATUS: dict[type[FileError], tuple[int, str]] = {
    FileNameError: (400, "invalid_file_name"),
    FileNotFound: (404, "file_not_found"),
    FileTooLarge: (413, "file_too_large"),
    FilesLost: (409, "state_lost"),
    FilesUnsupported: (400, "unsupported"),
}
"""The status and code for a failed file operation (default: 400)."""

_CONTENT: dict[int | str, dict[str, Any]] = {
    200: {"description": "the file", "content": {"application/octet-stream": {}}},
}


class ContainerPaging(Paging):
    """Query parameters of the list of containers."""

    name: str | None = None


@router.post("/containers", responses=ERRORS)
async def create_container(request: Request, body: CreateContainer) -> Response:
    """Create a container. Its kernel starts with its first cell or file."""
    containers = _containers(request)
    ttl = None if body.expires_after is None else body.expires_after.minutes * 60.0
    if ttl is not None and ttl > containers.ttl:
        raise unsupported("expires_after.minutes", f"must be at most {containers.ttl / 60:g}")
    return JSONResponse(containers.create(client_of(request), body.name, ttl=ttl).json())


@router.get("/containers", responses=ERRORS)
async def list_containers(request: Request, paging: Annotated[ContainerPaging, Query()]) -> Response:
    """The client's containers."""
    found = _containers(request).list(client_of(request))
    return JSONResponse(paging.page([one.json() for one in found if paging.name in (None, one.name)]))


@router.get("/containers/{container_id}", responses=ERRORS)
async def get_container(request: Request, container_id: str) -> Response:
    """A container."""
    return JSONResponse(_container(request, container_id).json())


@router.delete("/containers/{container_id}", responses=ERRORS)
async def delete_container(request: Request, container_id: str) -> Response:
    """Delete a container with its variables and files."""
    await _containers(request).delete(client_of(request), container_id)
    return JSONResponse({"id": container_id, "object": "container.deleted", "deleted": True})


@router.post("/containers/{container_id}/files", responses=ERRORS)
async def upload_file(request: Request, container_id: str, file: Annotated[UploadFile, File()]) -> Response:
    """Write a file into the working folder; replaces a file of the same name."""
    names = [name for name, _ in (await request.form()).multi_items()]
    names.remove("file")
    if names:
        reason = "is given twice" if names[0] == "file" else "is not a parameter"
        raise APIError(400, f"{names[0][:64]!r} {reason}", param=names[0][:64], code="unknown_parameter")
    container, name, data = _container(request, container_id), file.filename or "", await file.read()
    try:
        await container.session.write_file(name, data)
    except FileError as error:
        raise _refusal(error) from error
    container.written[name] = container.last_active_at
    return JSONResponse(_json(container, FileInfo(name, len(data))))


@router.get("/containers/{container_id}/files", responses=ERRORS)
async def list_files(request: Request, container_id: str, paging: Annotated[Paging, Query()]) -> Response:
    """The files of the working folder, including those that code has written."""
    container = _container(request, container_id)
    return JSONResponse(paging.page([_json(container, info) for info in await _files(container)]))


@router.get("/containers/{container_id}/files/{file_id}", responses=ERRORS)
async def get_file(request: Request, container_id: str, file_id: str) -> Response:
    """A file."""
    container = _container(request, container_id)
    return JSONResponse(_json(container, await _file(container, file_id)))


@router.get("/containers/{container_id}/files/{file_id}/content", response_class=Response, responses=_CONTENT | ERRORS)
async def get_content(request: Request, container_id: str, file_id: str) -> Response:
    """The content of a file."""
    container = _container(request, container_id)
    info = await _file(container, file_id)
    try:
        data = await container.session.read_file(info.name)
    except FileError as error:
        raise _refusal(error) from error
    # Content may be hostile: a browser must not show it as a page of this server.
    headers = {
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(info.name.rpartition('/')[2], safe='')}",
        "X-Content-Type-Options": "nosniff",
    }
    return Response(data, media_type="application/octet-stream", headers=headers)


@router.delete("/containers/{container_id}/files/{file_id}", responses=ERRORS)
async def delete_file(request: Request, container_id: str, file_id: str) -> Response:
    """Remove a file."""
    container = _container(request, container_id)
    info = await _file(container, file_id)
    try:
        await container.session.remove_file(info.name)
    except FileError as error:
        raise _refusal(error) from error
    return JSONResponse({"id": file_id, "object": "container.file.deleted", "deleted": True})


def _containers(request: Request) -> Containers:
    found = state_of(request).containers
    if found is None:
        raise APIError(404, "this server runs no code: it has no containers", code="container_not_found")
    return found


def _container(request: Request, container_id: str) -> Container:
    """The client's container; marks it as used."""
    containers = _containers(request)
    found = containers.get(client_of(request), container_id)
    containers.touch(found)
    return found


async def _files(container: Container) -> tuple[FileInfo, ...]:
    try:
        return await container.session.list_files()
    except FileError as error:
        raise _refusal(error) from error


async def _file(container: Container, file_id: str) -> FileInfo:
    for info in await _files(container):
        if _file_id(container, info.name) == file_id:
            return info
    raise APIError(404, f"the container has no file {file_id[:64]!r}", code="file_not_found")


def _json(container: Container, info: FileInfo) -> JSON:
    """OpenAI's object. The creation time of files written by code is unknown: the container's is used."""
    written = container.written.get(info.name)
    return {
        "id": _file_id(container, info.name),
        "object": "container.file",
        "created_at": int(container.created_at if written is None else written),
        "container_id": container.id,
        "path": info.name,
        "bytes": info.size_bytes,
        "source": "assistant" if written is None else "user",
    }


def _file_id(container: Container, name: str) -> str:
    """An id derived from the name, since the server has no list of files written by code."""
    return f"cfile_{hashlib.sha256(f'{container.id}/{name}'.encode()).hexdigest()[:32]}"


def _refusal(error: FileError) -> APIError:
    status, code = _STATUS.get(type(error), (400, "file_refused"))
    return APIError(status, str(error), param="file" if status == 400 else None, code=code)
