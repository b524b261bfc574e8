"""Models on the Hugging Face hub, here one on the loopback: pushed, described, taken back, and what is refused."""

import base64
import hashlib
import json
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from safetensors.torch import load_file
from typer.testing import CliRunner

import dualdistill as dd
from dualdistill import hub
from dualdistill.cli import app
from dualdistill.commands.options.deployment import Push
from dualdistill.commands.push import push
from dualdistill.train.loaded_detector import LoadedDetector, weights_of
from dualdistill.train.trained_weights import TrainedWeights, Wanted, evaluation_folder, find_teacher
from tests.commands.conftest import console, runs  # noqa: F401 (fixtures)

COMMIT = "0" * 40


class Server(BaseHTTPRequestHandler):
    """As much of the hub's protocol as its client needs to make a repository, commit small files and download one."""

    repositories: dict[str, dict[str, bytes]]
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        content = self.rfile.read(int(self.headers["Content-Length"]))
        path = self.path.partition("?")[0]
        if path == "/api/repos/create":
            request = json.loads(content)
            name = "/".join(filter(None, (request.get("organization"), request["name"])))
            self.repositories.setdefault(name, {})
            self.answer({"url": f"/{name}", "name": name})
        elif path == "/api/validate-yaml":
            assert json.loads(content)["content"].startswith("---\nlibrary_name: dualdistill\n")
            self.answer({"errors": [], "warnings": []})
        elif path.endswith("/preupload/main"):
            files = [file["path"] for file in json.loads(content)["files"]]
            self.answer({"files": [{"path": f, "uploadMode": "regular", "shouldIgnore": False} for f in files]})
        elif match := re.fullmatch("/api/models/(.+)/commit/main", path):
            for line in map(json.loads, content.splitlines()):
                if line["key"] == "file":
                    data = base64.b64decode(line["value"]["content"])
                    self.repositories[match[1]][line["value"]["path"]] = data
            self.answer({"commitUrl": f"/{match[1]}/commit/{COMMIT}", "commitOid": COMMIT})
        else:
            self.answer({}, 404)

    def do_GET(self):
        path = self.path.partition("?")[0]
        match = re.fullmatch("/(?:api/models/)?([^/]+/[^/]+)/(?:resolve|revision)/[^/]+/?(.*)", path)
        files = self.repositories.get(match[1], {}) if match else {}
        if path.startswith("/api/models/") and files:
            self.answer({"id": match[1], "sha": COMMIT, "siblings": [{"rfilename": name} for name in files]})
        elif match and match[2] in files:
            data = files[match[2]]
            headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha1(data).hexdigest()}"'}
            self.answer(data, headers=headers)
        else:
            self.answer({}, 404, {"X-Error-Code": "RepoNotFound"})

    do_HEAD = do_GET

    def answer(self, value, status=200, headers=None):
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def repositories(monkeypatch, tmp_path):
    """A hub on the loopback, empty; its repositories by name."""
    huggingface_hub = pytest.importorskip("huggingface_hub")
    Server.repositories = {}
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        constants = huggingface_hub.constants  # read from HF_ENDPOINT and HF_HOME when it was imported
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        yield Server.repositories
        server.shutdown()


def test_a_run_is_pushed_and_loaded_from_there(repositories, runs, console):  # noqa: F811
    push(console, Push(runs["student"], "me/my-student"))
    files = repositories["me/my-student"]
    assert {*files} == {"model.safetensors", "README.md"}
    loaded = dd.load("hf:me/my-student", device="cpu")
    want = load_file(weights_of(runs["student"], "last"))
    assert all((loaded.detector.state_dict()[name] == value).all() for name, value in want.items())
    assert "hf:me/my-student" in console.file.getvalue()


def test_a_pushed_teacher_is_named_in_the_record_of_its_student_and_found_again(repositories, runs, console):  # noqa: F811
    push(console, Push(runs["teacher"], "me/my-teacher"))
    student = LoadedDetector.load(weights_of(runs["distilled"], "last"))
    wanted = Wanted(recipe="", settings=None, learner=student.experiment, data=student.facts["data"], out=Path())
    teacher = find_teacher(Path("hf:me/my-teacher"), wanted)
    assert teacher.identity["path"] == "hf:me/my-teacher"
    assert TrainedWeights.recall(teacher.identity).path.samefile(teacher.path)
    assert evaluation_folder(teacher.path) == Path("runs/hf/me/my-teacher")
    with pytest.raises(dd.UserError, match="is a published model, so the root of its data is unknown"):
        LoadedDetector.load(teacher.path).index(None, None)


def test_no_path_of_this_machine_is_published(repositories, runs, console):  # noqa: F811
    push(console, Push(runs["distilled"], "me/my-student"))
    for name, content in repositories["me/my-student"].items():
        head = content[: 8 + int.from_bytes(content[:8], "little")] if name.endswith("safetensors") else content
        for folder in (*runs.values(), dd.load(runs["student"]).facts["data"]["root"]):
            assert str(folder).encode() not in head, name
    card = repositories["me/my-student"]["README.md"].decode()
    assert "synthetic/dualdistill-centerpoint" in card
    assert "dualdistill train" in card


def test_what_is_not_there_is_refused_with_the_reason(repositories):
    with pytest.raises(dd.UserError, match="hf:me/nothing cannot be downloaded"):
        dd.load("hf:me/nothing")


@pytest.mark.parametrize("name", ["student", "a/b/c", "/b"])
def test_a_name_that_is_no_repository_is_refused_before_anything_else(name, console, tmp_path):  # noqa: F811
    with pytest.raises(dd.UserError, match="expected owner/name"):
        push(console, Push(tmp_path / "missing", name))


def test_a_missing_extra_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(dd.UserError, match=r"pip install 'dualdistill\[hub\]'"):
        hub.resolve("hf:me/my-student")


def test_the_verb_takes_what_push_takes():
    answer = CliRunner().invoke(app, ["push", "--help"], env={"COLUMNS": "120"})
    assert answer.exit_code == 0
    assert "--private" in answer.output
