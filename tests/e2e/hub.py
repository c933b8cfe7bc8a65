"""A hub in the tests' process that speaks as much of Hugging Face's HTTP API as its own client needs for a snapshot.

Large files are elsewhere, as on the real one: the hub leads to a signed address, which must not see the token.
"""

import hashlib
import json
from contextlib import contextmanager
from urllib.parse import parse_qs, unquote, urlsplit

from webserver import Reply, ranged, web

TOKEN = "hf_only_for_loopback"
# Of this size on, a file is kept with LFS.
LARGE = 1 << 20
ENTRIES_PER_PAGE = 2


def commit(repo, revision):
    return hashlib.sha1(f"{repo}@{revision}".encode()).hexdigest()


def refusal(status, code="", message=""):
    return Reply(status, {"X-Error-Code": code, "X-Error-Message": message})


class Hub:
    """Repositories: {"owner/name": {"revision": {"path": content}}}; some are not for everybody."""

    def __init__(self, repositories, private=(), gated=()):
        self.repositories, self.private, self.gated = repositories, private, gated
        self.damaged = 0  # so many times, large files come with a wrong bit

    def answer(self, asked):
        parts = urlsplit(asked.path)
        segments = parts.path.strip("/").split("/")
        if segments[:2] == ["api", "models"]:
            owner, name, what, *rest = segments[2:]
        else:
            owner, name, what, *rest = segments
        repo = f"{owner}/{name}"
        token = asked.headers["Authorization"]
        if token not in (None, f"Bearer {TOKEN}"):
            return refusal(401, message="Invalid credentials in Authorization header")
        if repo not in self.repositories or (repo in self.private and not token):
            return refusal(404 if token else 401, "RepoNotFound", "Repository not found")
        revision = unquote(rest[0])
        commits = {commit(repo, revision): files for revision, files in self.repositories[repo].items()}
        if what == "revision" and revision in self.repositories[repo]:
            return self.json({"id": repo, "sha": commit(repo, revision), "siblings": []})
        if revision not in commits:
            return refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        files = commits[revision]
        if what == "tree":
            return self.tree(files, asked, parse_qs(parts.query))
        if repo in self.gated and not token:
            return refusal(401, "GatedRepo", f"Access to model {repo} is restricted.")
        return self.file(files, unquote("/".join(rest[1:])), revision, asked)

    def json(self, content, headers=None):
        return Reply(headers={"Content-Type": "application/json", **(headers or {})}, body=json.dumps(content).encode())

    def tree(self, files, asked, query):
        folders = {path.rsplit("/", 1)[0] for path in files if "/" in path}
        entries = [{"type": "directory", "oid": "0", "size": 0, "path": path} for path in sorted(folders)]
        entries += [self.entry(path, content) for path, content in files.items()]
        assert query["recursive"][0].lower() == "true"
        first = int(query.get("cursor", ["0"])[0])
        last = first + ENTRIES_PER_PAGE
        here = f"http://{asked.headers['Host']}{urlsplit(asked.path).path}"
        more = {"Link": f'<{here}?recursive=true&cursor={last}>; rel="next"'} if last < len(entries) else {}
        return self.json(entries[first:last], more)

    def entry(self, path, content):
        oid = hashlib.sha1(b"blob %d\0%s" % (len(content), content)).hexdigest()
        entry = {"type": "file", "oid": oid, "size": len(content), "path": path}
        if len(content) >= LARGE:
            sha = hashlib.sha256(content).hexdigest()
            entry["lfs"] = {"oid": sha, "size": len(content), "pointerSize": 134}
        return entry

    def file(self, files, path, revision, asked):
        if path not in files:
            return refusal(404, "EntryNotFound", "Entry not found")
        content, commit = files[path], {"X-Repo-Commit": revision}
        entry = self.entry(path, content)
        if lfs := entry.get("lfs"):
            linked = {"X-Linked-Etag": f'"{lfs["oid"]}"', "X-Linked-Size": str(lfs["size"])}
            return Reply(302, {"Location": f"{self.cdn.url}/{lfs['oid']}?Signature=s", **linked, **commit}, b"Found")
        if "/resolve/" in asked.path:  # the real one also keeps small files elsewhere, at a relative address
            return Reply(307, {"Location": asked.path.replace("/resolve/", "/resolve-cache/"), **commit})
        return ranged(asked, content, {"ETag": f'"{entry["oid"]}"', **commit})

    def blob(self, asked):
        oid = urlsplit(asked.path).path.strip("/")
        revisions = (files for repo in self.repositories.values() for files in repo.values())
        contents = (content for files in revisions for content in files.values())
        content = next(content for content in contents if hashlib.sha256(content).hexdigest() == oid)
        if self.damaged:
            self.damaged -= 1
            content = bytes([content[0] ^ 1]) + content[1:]
        return ranged(asked, content, {"ETag": f'"{oid}"'})


@contextmanager
def hub(repositories, **options):
    """A hub for the length of a `with`, and the server of its large files as its `cdn`."""
    double = Hub(repositories, **options)
    with web(double.blob) as double.cdn, web(double.answer) as server:
        server.cdn, server.double = double.cdn, double
        yield server
