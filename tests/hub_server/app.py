"""The routes of a Hub that the unmodified huggingface_hub client talks to."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

import yaml
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.hub_server.state import (
    LFS_SUFFIXES,
    MAX_REGULAR_BYTES,
    Blob,
    Commit,
    Repository,
    State,
)

PIECE_BYTES = 1 << 16
Answer = Callable[[Request], Awaitable[Response]]


class Refusal(HTTPException):
    """An answer that is not the one asked for."""

    def __init__(self, status: int, message: str, code: str = "") -> None:
        headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        super().__init__(status, message, headers)


def make_app(state: State) -> Starlette:
    """The hub over a state that the test may look at and change."""
    hub = _Hub(state)
    repo = "{org}/{name}"
    api = f"/api/models/{repo}"
    routes: list[tuple[str, list[str], Answer]] = [
        ("/api/whoami-v2", ["GET"], hub.whoami),
        ("/api/repos/create", ["POST"], hub.create),
        ("/api/repos/delete", ["DELETE"], hub.delete),
        ("/api/repos/move", ["POST"], hub.move),
        ("/api/validate-yaml", ["POST"], hub.validate),
        ("/api/models", ["GET"], hub.models),
        (api, ["GET"], hub.model),
        (f"{api}/revision/{{rev}}", ["GET"], hub.model),
        (f"{api}/tree/{{rev}}", ["GET"], hub.tree),
        (f"{api}/tree/{{rev}}/{{path:path}}", ["GET"], hub.tree),
        (f"{api}/paths-info/{{rev}}", ["POST"], hub.paths_info),
        (f"{api}/refs", ["GET"], hub.refs),
        (f"{api}/commits/{{rev}}", ["GET"], hub.commits),
        (f"{api}/branch/{{ref}}", ["POST", "DELETE"], hub.branch),
        (f"{api}/tag/{{ref}}", ["POST", "DELETE"], hub.tag),
        (f"{api}/preupload/{{rev}}", ["POST"], hub.preupload),
        (f"{api}/commit/{{rev}}", ["POST"], hub.commit),
        (f"{api}/{{xet}}/{{rev}}", ["GET"], hub.nothing),
        (f"/{repo}.git/info/lfs/objects/batch", ["POST"], hub.batch),
        ("/lfs/{oid}", ["PUT", "POST"], hub.upload),
        ("/lfs/{oid}/{part:int}", ["PUT"], hub.upload),
        ("/lfs/{oid}/verify", ["POST"], hub.verify),
        ("/cdn/{oid}", ["GET", "HEAD"], hub.cdn),
        (f"/{repo}/resolve/{{rev}}/{{path:path}}", ["GET", "HEAD"], hub.download),
    ]
    return Starlette(
        routes=[Route(path, answer, methods=methods) for path, methods, answer in routes],
        exception_handlers={HTTPException: _refuse},
    )


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 307:  # an old name: the same request, at the new one
        return Response(status_code=307, headers=error.headers)
    return JSONResponse({"error": error.detail}, error.status_code, headers=error.headers)


class _Hub:
    def __init__(self, state: State) -> None:
        self.state = state

    def user(self, request: Request, *, needed: bool = False) -> tuple[str, tuple[str, ...]] | None:
        self.state.asked.append((request.method, request.url.path))
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if token and token not in self.state.users:
            raise Refusal(401, "Invalid credentials in Authorization header")
        if not token and needed:
            raise Refusal(401, "Invalid username or password.")
        return self.state.users.get(token)

    def owns(self, request: Request, org: str) -> bool:
        user = self.user(request)
        return user is not None and org in (user[0], *user[1])

    def repository(self, request: Request, *, write: bool = False) -> Repository:
        org, name = request.path_params["org"], request.path_params["name"]
        owner = self.owns(request, org)
        if new := self.state.moved.get(f"{org}/{name}"):
            place = request.url.path.replace(f"/{org}/{name}", f"/{new}", 1)
            query = f"?{request.url.query}" if request.url.query else ""
            raise HTTPException(307, headers={"Location": quote(place) + query})
        repository = self.state.repositories.get(f"{org}/{name}")
        if repository is None or (repository.private and not owner):
            known = "authorization" in request.headers
            raise Refusal(404 if known else 401, "Repository not found", "RepoNotFound")
        if write and not owner:
            raise Refusal(403, f"You don't have the rights to write to {org}/{name}")
        return repository

    def at(self, request: Request, repository: Repository) -> Commit:
        revision = request.path_params.get("rev", "main")
        commit = repository.resolve(revision)
        if commit is None:
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit

    async def whoami(self, request: Request) -> Response:
        user = self.user(request, needed=True)
        assert user is not None
        access = {"type": "access_token", "accessToken": {"role": "write", "displayName": "test"}}
        orgs = [{"name": org, "type": "org"} for org in user[1]]
        return JSONResponse({"type": "user", "name": user[0], "orgs": orgs, "auth": access})

    async def create(self, request: Request) -> Response:
        user = self.user(request, needed=True)
        asked = await request.json()
        assert user is not None
        org = asked.get("organization") or user[0]
        name = f"{org}/{asked['name']}"
        url = {"url": f"{request.base_url}{name}", "name": name}
        if not self.owns(request, org):
            raise Refusal(403, f"You don't have the rights to create a model under {org}")
        if name in self.state.repositories:
            return JSONResponse({"error": "You already created this model repo", **url}, 409)
        private = asked.get("visibility") == "private" or bool(asked.get("private"))
        self.state.create(name, private=private)
        return JSONResponse(url)

    async def delete(self, request: Request) -> Response:
        self.user(request, needed=True)
        asked = await request.json()
        if self.state.repositories.pop(f"{asked['organization']}/{asked['name']}", None) is None:
            raise Refusal(404, "Repository not found", "RepoNotFound")
        return JSONResponse({})

    async def move(self, request: Request) -> Response:
        self.user(request, needed=True)
        asked = await request.json()
        self.state.move(asked["fromRepo"], asked["toRepo"])
        return JSONResponse({})

    async def validate(self, request: Request) -> Response:
        asked = await request.json()
        errors, warnings = [], []
        try:
            data = _front_matter(asked["content"])
            if not data:
                warnings.append({"message": "empty or missing yaml metadata in repo card"})
            elif not isinstance(data.get("tags", []), list):
                errors.append({"message": '"tags" must be an array'})
            elif "model-index" in data and not all("results" in m for m in data["model-index"]):
                errors.append({"message": '"model-index[0].results" is required'})
        except yaml.YAMLError as error:
            errors.append({"message": f"YAML: {error}"})
        return JSONResponse({"errors": errors, "warnings": warnings}, 400 if errors else 200)

    async def models(self, request: Request) -> Response:
        query = request.query_params
        limit, start = int(query.get("limit", 100)), int(query.get("cursor", 0))
        found = []
        for name, repository in sorted(self.state.repositories.items()):
            org = name.partition("/")[0]
            info = _describe(repository, repository.commits[repository.branches["main"]])
            if (
                (not repository.private or self.owns(request, org))
                and set(query.getlist("filter")) <= set(info["tags"])
                and query.get("author", org) == org
                and query.get("search", "").lower() in name.lower()
            ):
                found.append(info)
        if expand := query.getlist("expand"):
            found = [{k: v for k, v in row.items() if k in ("_id", "id", *expand)} for row in found]
        page, more = found[start : start + limit], len(found) > start + limit
        after = request.url.include_query_params(cursor=start + limit)
        return JSONResponse(page, headers={"Link": f'<{after}>; rel="next"'} if more else {})

    async def model(self, request: Request) -> Response:
        repository = self.repository(request)
        return JSONResponse(_describe(repository, self.at(request, repository)))

    async def tree(self, request: Request) -> Response:
        commit = self.at(request, self.repository(request))
        under = request.path_params.get("path", "")
        names = [n for n in sorted(commit.files) if not under or n.startswith(f"{under}/")]
        return JSONResponse([_entry(name, commit.files[name]) for name in names])

    async def paths_info(self, request: Request) -> Response:
        commit = self.at(request, self.repository(request))
        paths = (await request.form()).getlist("paths")
        return JSONResponse(
            [_entry(str(p), commit.files[str(p)]) for p in paths if p in commit.files]
        )

    async def refs(self, request: Request) -> Response:
        repository = self.repository(request)
        kinds = {"branches": ("heads", repository.branches), "tags": ("tags", repository.tags)}
        listed = {
            kind: [
                {"name": name, "ref": f"refs/{folder}/{name}", "targetCommit": oid}
                for name, oid in refs.items()
            ]
            for kind, (folder, refs) in kinds.items()
        }
        return JSONResponse({**listed, "converts": [], "pullRequests": []})

    async def commits(self, request: Request) -> Response:
        repository = self.repository(request)
        commit, page = self.at(request, repository), int(request.query_params.get("p", 0))
        size = int(request.query_params.get("limit", 50))
        history = repository.history(commit.oid)
        rows = [
            {"id": c.oid, "title": c.title, "message": c.message, "date": c.date, "authors": []}
            for c in history[page * size : (page + 1) * size]
        ]
        after = request.url.include_query_params(p=page + 1)
        more = len(history) > (page + 1) * size
        return JSONResponse(rows, headers={"Link": f'<{after}>; rel="next"'} if more else {})

    async def branch(self, request: Request) -> Response:
        repository = self.repository(request, write=True)
        return await self._ref(request, repository, repository.branches)

    async def tag(self, request: Request) -> Response:
        repository = self.repository(request, write=True)
        return await self._ref(request, repository, repository.tags)

    async def _ref(
        self, request: Request, repository: Repository, refs: dict[str, str]
    ) -> Response:
        ref = request.path_params["ref"]
        if request.method == "DELETE":
            if refs.pop(ref, None) is None:
                raise Refusal(404, f"Invalid rev id: {ref}", "RevisionNotFound")
            return Response()
        asked = json.loads(await request.body() or b"{}")
        # A tag's path names what it is put on, a branch's path names the branch.
        name = asked.get("tag", ref)
        start = repository.resolve(ref if "tag" in asked else asked.get("startingPoint", "main"))
        if start is None:
            raise Refusal(404, "Invalid rev id", "RevisionNotFound")
        if name in refs:
            raise Refusal(409, f"Reference {name} already exists")
        refs[name] = start.oid
        return JSONResponse({})

    async def preupload(self, request: Request) -> Response:
        commit = self.at(request, self.repository(request, write=True))
        rows = []
        for file in (await request.json())["files"]:
            path, sample = file["path"], base64.b64decode(file["sample"])
            large = (
                path.endswith(LFS_SUFFIXES) or file["size"] > MAX_REGULAR_BYTES or b"\0" in sample
            )
            known = commit.files.get(path)
            oid = None if known is None else known.etag
            mode = "lfs" if large else "regular"
            rows.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return JSONResponse({"files": rows})

    async def commit(self, request: Request) -> Response:
        repository = self.repository(request, write=True)
        lines = [json.loads(line) for line in (await request.body()).splitlines()]
        branch = request.path_params["rev"]
        # Nothing below awaits, so no other request comes between the check and the commit.
        head = repository.resolve(branch)
        if head is None:
            raise Refusal(404, f"Invalid rev id: {branch}", "RevisionNotFound")
        header = next(line["value"] for line in lines if line["key"] == "header")
        if header.get("parentCommit") not in (None, head.oid):
            raise Refusal(412, "A commit has happened since. Please refresh and try again.")
        files = dict(head.files)
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = Blob(base64.b64decode(value["content"]), False)
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.state.large:
                    raise Refusal(400, f"LFS object {value['oid']} was not uploaded")
                files[value["path"]] = Blob(self.state.large[value["oid"]], True)
            elif line["key"] == "deletedFile" and files.pop(value["path"], None) is None:
                raise Refusal(404, "A file with this name doesn't exist", "EntryNotFound")
        made = repository.add(branch, files, header["summary"], header.get("description", ""))
        url = f"{request.base_url}{repository.name}/commit/{made.oid}"
        return JSONResponse({"success": True, "commitOid": made.oid, "commitUrl": url})

    async def batch(self, request: Request) -> Response:
        self.repository(request, write=True)
        asked = await request.json()
        multipart = "multipart" in asked["transfers"] and any(
            o["size"] > self.state.multipart_bytes for o in asked["objects"]
        )
        rows: list[dict[str, Any]] = []
        for wanted in asked["objects"]:
            oid, size = wanted["oid"], wanted["size"]
            row: dict[str, Any] = {"oid": oid, "size": size}
            if oid not in self.state.large:
                href = f"{request.base_url}lfs/{oid}"
                upload: dict[str, Any] = {"href": href}
                if multipart:
                    chunk = self.state.multipart_bytes
                    numbers = range(1, -(-size // chunk) + 1)
                    urls = {f"{n:05d}": f"{href}/{n}" for n in numbers}
                    upload["header"] = {"chunk_size": str(chunk), **urls}
                row["actions"] = {"upload": upload, "verify": {"href": f"{href}/verify"}}
            rows.append(row)
        transfer = "multipart" if multipart else "basic"
        return JSONResponse({"transfer": transfer, "objects": rows})

    async def upload(self, request: Request) -> Response:
        self.state.asked.append((request.method, request.url.path))
        oid, data = request.path_params["oid"], await request.body()
        parts = self.state.parts.setdefault(oid, {})
        if part := request.path_params.get("part"):
            parts[part] = data
            return Response(headers={"ETag": f'"{hashlib.md5(data).hexdigest()}"'})
        if request.method == "POST":  # the end of an upload in parts
            data = b"".join(parts[p["partNumber"]] for p in json.loads(data)["parts"])
        if hashlib.sha256(data).hexdigest() != oid:
            raise Refusal(400, "The content does not have the SHA-256 that was announced")
        self.state.large[oid] = data
        return Response()

    async def verify(self, request: Request) -> Response:
        asked = await request.json()
        data = self.state.large.get(asked["oid"])
        if data is None or len(data) != asked["size"]:
            raise Refusal(404, "Object not found")
        return Response()

    async def download(self, request: Request) -> Response:
        repository = self.repository(request)
        commit, path = self.at(request, repository), request.path_params["path"]
        known = {"X-Repo-Commit": commit.oid}
        if repository.gated:
            status = 403 if "authorization" in request.headers else 401
            raise Refusal(status, "Access to this model is restricted", "GatedRepo")
        blob = commit.files.get(path)
        if blob is None:
            error = Refusal(404, "Entry not found", "EntryNotFound")
            error.headers = {**(error.headers or {}), **known}
            raise error
        headers = {**known, "ETag": f'"{blob.etag}"', "Accept-Ranges": "bytes"}
        if blob.is_large:
            linked = {"X-Linked-Etag": f'"{blob.etag}"', "X-Linked-Size": str(len(blob.data))}
            place = {"Location": f"{self.state.files_url}/cdn/{blob.sha256}"}
            return Response(status_code=302, headers={**headers, **linked, **place})
        return _send(request, blob.data, headers)

    async def cdn(self, request: Request) -> Response:
        self.state.asked.append((request.method, request.url.path))
        data = self.state.large[request.path_params["oid"]]
        return _send(request, data, {"ETag": f'"{hashlib.md5(data).hexdigest()}"'})

    async def nothing(self, request: Request) -> Response:
        self.state.asked.append((request.method, request.url.path))
        raise Refusal(404, "Not found")


def _send(request: Request, data: bytes, headers: dict[str, str]) -> Response:
    status, size = 200, len(data)
    if wanted := request.headers.get("range"):
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        end = min(int(last), size - 1) if last else size - 1
        if int(first) >= size:
            raise Refusal(416, "Range not satisfiable")
        data, status = data[int(first) : end + 1], 206
        headers = {**headers, "Content-Range": f"bytes {first}-{end}/{size}"}
    headers = {**headers, "Content-Length": str(len(data))}
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers)
    pieces = (data[i : i + PIECE_BYTES] for i in range(0, len(data), PIECE_BYTES))
    return StreamingResponse(pieces, status, headers, "application/octet-stream")


def _entry(name: str, blob: Blob) -> dict[str, Any]:
    row: dict[str, Any] = {"type": "file", "path": name, "size": len(blob.data), "oid": blob.oid}
    if blob.is_large:
        row["lfs"] = {
            "oid": blob.sha256,
            "size": len(blob.data),
            "pointerSize": len(blob.pointer),
        }
    return row


def _front_matter(text: str) -> Any:
    parts = text.split("---\n", 2)
    return (yaml.safe_load(parts[1]) or {}) if text.startswith("---\n") and len(parts) == 3 else {}


def _describe(repository: Repository, commit: Commit) -> dict[str, Any]:
    card = commit.files.get("README.md")
    try:
        given = {} if card is None else _front_matter(card.data.decode("utf-8", "replace"))
    except yaml.YAMLError:
        given = {}
    # A card's head may be anything; a careless server hands it on, and takes a list for its tags.
    data: dict[str, Any] = given if isinstance(given, dict) else {"tags": given}
    tags = [str(tag) for tag in data.get("tags") or []]
    tags += [data[key] for key in ("library_name", "pipeline_tag") if key in data]
    if base := data.get("base_model"):
        relation = data.get("base_model_relation")
        tags += [f"base_model:{base}", *([f"base_model:{relation}:{base}"] if relation else [])]
    return {
        "_id": repository.name,
        "id": repository.name,
        "modelId": repository.name,
        "author": repository.name.partition("/")[0],
        "sha": commit.oid,
        "private": repository.private,
        "gated": "manual" if repository.gated else False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": tags,
        "pipeline_tag": data.get("pipeline_tag"),
        "library_name": data.get("library_name"),
        "lastModified": commit.date,
        "createdAt": "2026-01-01T00:00:00.000Z",
        "cardData": given,
        "siblings": [{"rfilename": name} for name in sorted(commit.files)],
    }
