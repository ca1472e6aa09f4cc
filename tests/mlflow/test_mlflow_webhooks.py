"""Webhooks: the stock client makes them, and a receiver gets every message, also after the server was killed."""

import base64
import hashlib
import hmac
import json
import os
import signal
import socket
import subprocess
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from conftest import PROGRAM, http, serve
from mlflow import MlflowClient, MlflowException
from mlflow.entities.webhook import WebhookEvent

JSON = {"Content-Type": "application/json"}
SECRET = "a secret that nobody sees"


class Receiver:
    """A web server that keeps what it gets; it answers with `status`."""

    def __init__(self, port=0):
        self.got, self.status, self.answers = [], 200, threading.Event()
        self.answers.set()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.got.append((receiver.status, {k.lower(): v for k, v in self.headers.items()}, body))
                receiver.answers.wait(60)
                self.send_response(receiver.status)
                self.end_headers()
                self.wfile.write(b"seen")

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def taken(self):
        return [(headers, json.loads(body)) for status, headers, body in self.got if status == 200]

    def events(self):
        return [f"{message['entity']}.{message['action']}" for _, message in self.taken()]


def wait_for(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


@pytest.fixture
def receiver():
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    yield from serve(tmp_path_factory, "--webhooks-allow-private")


@pytest.fixture
def hooks(address):
    return MlflowClient(address)


def events(*names):
    return [WebhookEvent.from_str(name) for name in names]


def test_every_change_is_told_once_in_order_and_signed(hooks, receiver, request):
    name = request.node.name
    wanted = [
        "registered_model.created", "model_version.created", "model_version_tag.set", "model_version_tag.deleted",
        "model_version_alias.created", "model_version_alias.created", "model_version_alias.deleted",
    ]  # fmt: skip
    hook = hooks.create_webhook("all", receiver.url, events(*wanted), description="d", secret=SECRET)
    hooks.create_registered_model(name, tags={"a": "b"}, description="words")
    version = hooks.create_model_version(name, "s3://bucket/x", tags={"c": "d"}).version
    hooks.set_model_version_tag(name, version, "k", "v")
    hooks.delete_model_version_tag(name, version, "k")
    hooks.set_registered_model_alias(name, "best", version)
    hooks.set_registered_model_alias(name, "best", version)  # no change, but MLflow tells of it
    hooks.delete_registered_model_alias(name, "best")
    hooks.delete_registered_model_alias(name, "best")  # there is none any more: nothing to tell
    hooks.update_registered_model(name, "other words")  # MLflow tells nothing of it
    wait_for(lambda: len(receiver.got) >= len(wanted))
    assert receiver.events() == wanted
    model, made = receiver.taken()[0][1], receiver.taken()[1][1]
    assert model["data"] == {"name": name, "tags": {"a": "b"}, "description": "words"}
    assert made["data"] == {
        "name": name, "version": "1", "source": "s3://bucket/x", "run_id": None, "tags": {"c": "d"}, "description": None,
    }  # fmt: skip
    for _, headers, body in receiver.got:
        signed = f"{headers['x-mlflow-delivery-id']}.{headers['x-mlflow-timestamp']}.{body.decode()}"
        mac = hmac.new(SECRET.encode(), signed.encode(), hashlib.sha256).digest()
        assert headers["x-mlflow-signature"] == "v1," + base64.b64encode(mac).decode()
        assert str(uuid.UUID(headers["x-mlflow-delivery-id"])) == headers["x-mlflow-delivery-id"]
        assert list(json.loads(body)) == ["entity", "action", "timestamp", "data"]
    assert list(made["data"]) == ["name", "version", "source", "run_id", "tags", "description"]
    assert len({headers["x-mlflow-delivery-id"] for _, headers, _ in receiver.got}) == len(wanted)
    hooks.delete_webhook(hook.webhook_id)
    hooks.delete_registered_model(name)


def test_webhooks_are_listed_changed_tested_and_taken_away(hooks, receiver, address):
    made = hooks.create_webhook("one", receiver.url, events("prompt.created"), secret=SECRET)
    assert (made.name, made.status, [str(e) for e in made.events]) == ("one", "ACTIVE", ["prompt.created"])
    result = hooks.test_webhook(made.webhook_id)
    assert (result.success, result.response_status, result.response_body) == (True, 200, "seen")
    receiver.status = 503
    assert (hooks.test_webhook(made.webhook_id).success, len(receiver.got)) == (False, 2), "a test is sent once"
    changed = hooks.update_webhook(made.webhook_id, name="two", status="DISABLED", events=events("model_version.created"))
    assert (changed.name, changed.status, [str(e) for e in changed.events]) == ("two", "DISABLED", ["model_version.created"])
    assert [w.name for w in hooks.list_webhooks() if w.webhook_id == made.webhook_id] == ["two"]
    every = http("GET", f"{address}/api/2.0/mlflow/webhooks")[2] + http("GET", f"{address}/api/2.0/mlflow/webhooks/{made.webhook_id}")[2]
    assert SECRET.encode() not in every
    hooks.delete_webhook(made.webhook_id)
    with pytest.raises(MlflowException, match="not found"):
        hooks.get_webhook(made.webhook_id)
    for wrong in ("-x", "a b", ""):
        with pytest.raises(MlflowException):
            hooks.create_webhook(wrong, receiver.url, events("prompt.created"))


def test_events_that_mlflow_lacks_are_told_to_who_asks_and_stock_clients_still_read_the_list(hooks, receiver, address, request):
    name = request.node.name
    own = ["model_version_stage.changed", "model_version.deleted", "registered_model.renamed", "registered_model.deleted"]
    body = json.dumps({"name": "own", "url": receiver.url, "lockgate_events": own}).encode()
    status, _, answer = http("POST", f"{address}/api/2.0/mlflow/webhooks", body, JSON)
    assert status == 200 and sorted(json.loads(answer)["webhook"]["lockgate_events"]) == sorted(own)
    shown = next(w for w in hooks.list_webhooks() if w.name == "own")
    assert [str(e) for e in shown.events] == ["budget_policy.exceeded"], "MLflow's client can't read one without events"
    hooks.create_registered_model(name)
    version = hooks.create_model_version(name, "s3://bucket/x").version
    hooks.transition_model_version_stage(name, version, "Staging")
    hooks.delete_model_version(name, version)
    hooks.rename_registered_model(name, f"{name} renamed")
    hooks.delete_registered_model(f"{name} renamed")
    wait_for(lambda: len(receiver.got) >= 4)
    assert receiver.events() == own
    assert receiver.taken()[0][1]["data"] == {"name": name, "version": "1", "from_stage": "None", "to_stage": "Staging"}
    status, _, answer = http("POST", f"{address}/api/2.0/mlflow/webhooks", body.replace(b".changed", b".eaten"), JSON)
    assert status == 400 and b"There is no event 'model_version_stage.eaten'" in answer
    listed = json.loads(http("GET", f"{address}/api/v1/webhooks/deliveries")[2])
    assert {one["state"] for one in listed if one["webhook"] == "own"} == {"delivered"}
    hook = next(w for w in hooks.list_webhooks() if w.name == "own")
    hooks.delete_webhook(hook.webhook_id)


def test_requests_are_answered_as_stock_answers_them(hooks, receiver, address):
    def call(method, path, body=None):
        status, _, answer = http(method, f"{address}/api/2.0/mlflow/webhooks{path}", body and json.dumps(body).encode(), JSON)
        return status, json.loads(answer)

    # Where private addresses are allowed, nothing is looked up before it is called.
    made = [hooks.create_webhook(name, f"https://{name}.invalid/x", events("prompt.created")) for name in ("first", "second")]
    assert [w.name for w in hooks.list_webhooks()][:2] == ["second", "first"], "the newest first"
    stranger = {"entity": "MODEL_VERSION", "action": "DELETED"}
    body = {"name": "x", "url": receiver.url, "events": [stranger]}
    one = f"/{made[0].webhook_id}"
    for method, path, body in (("POST", "", body), ("PATCH", one, {"events": [stranger]}), ("POST", f"{one}/test", {"event": stranger})):
        status, answer = call(method, path, body)
        words = "Invalid action 'deleted' for entity 'model_version'. Valid actions are: ['created']"
        assert (status, answer["message"]) == (400, words), (method, path)
    status, answer = call("GET", "?page_token=blah")
    assert status == 400 and answer["message"].startswith("Invalid page token, decoded value=b'nV\\xa1'")
    hooks.update_webhook(made[0].webhook_id, url=receiver.url, events=events("prompt_alias.deleted"))
    assert hooks.test_webhook(made[0].webhook_id).success
    assert receiver.taken()[0][1]["data"] == {"name": "example_prompt", "alias": "example_alias"}
    for webhook in made:
        hooks.delete_webhook(webhook.webhook_id)


def test_receivers_that_do_not_answer_hold_up_nobody_else(hooks, receiver, request):
    hanging = Receiver()
    hanging.answers.clear()
    made = [hooks.create_webhook(f"hanging-{i}", hanging.url, events("registered_model.created")) for i in range(20)]
    made.append(hooks.create_webhook("answers", receiver.url, events("registered_model.created")))
    for number in range(3):
        hooks.create_registered_model(f"{request.node.name} {number}")
    # The others have their first message, and keep quiet about it.
    wait_for(lambda: len(receiver.got) == 3 and len(hanging.got) == 20)
    hanging.answers.set()
    wait_for(lambda: len(hanging.got) == 60)
    for webhook in made:
        hooks.delete_webhook(webhook.webhook_id)
    hanging.close()


def test_a_webhook_that_is_switched_off_is_told_nothing_also_not_later(hooks, receiver, address, request):
    receiver.status = 503
    hook = hooks.create_webhook("off", receiver.url, events("registered_model.created"))
    hooks.create_registered_model(request.node.name)
    wait_for(lambda: receiver.got)
    hooks.update_webhook(hook.webhook_id, status="DISABLED")
    receiver.status = 200
    hooks.update_webhook(hook.webhook_id, status="ACTIVE")
    hooks.create_registered_model(f"{request.node.name} again")
    wait_for(lambda: receiver.taken())
    assert [message["data"]["name"] for _, message in receiver.taken()] == [f"{request.node.name} again"]
    hooks.delete_webhook(hook.webhook_id)


def test_a_url_that_leads_to_the_servers_own_network_is_refused(client):
    for url in ("https://127.0.0.1/x", "https://localhost/x", "https://10.0.0.1/", "https://[::1]/", "http://example.org/x", "ftp://x"):
        with pytest.raises(MlflowException) as refused:
            client.create_webhook("bad", url, events("prompt.created"))
        assert refused.value.error_code == "INVALID_PARAMETER_VALUE"
    assert client.list_webhooks() == []


def test_what_was_not_told_is_told_after_kill_9_and_what_was_not_kept_is_never_told(tmp_path):
    port, own = free(), free()
    env = {**os.environ, "RUST_LOG": "info"}

    def start():
        command = [PROGRAM, "server", "--trust-loopback", "--listen", f"127.0.0.1:{own}", "--home", str(tmp_path), "--webhooks-allow-private"]
        process = subprocess.Popen(command, stderr=open(tmp_path / "log", "ab"), env=env)
        wait_for(lambda: http("GET", f"http://127.0.0.1:{own}/health")[0] == 200)
        return process

    server = start()
    client = MlflowClient(f"http://127.0.0.1:{own}")
    client.create_webhook("late", f"http://127.0.0.1:{port}/hook", events("registered_model.created"), secret=SECRET)
    for number in range(5):
        client.create_registered_model(f"model {number}")
    with pytest.raises(MlflowException):
        client.create_registered_model("model 0")
    # Nobody listens there: it is tried, and tried again.
    deliveries = f"http://127.0.0.1:{own}/api/v1/webhooks/deliveries"
    wait_for(lambda: all(one["attempts"] > 0 for one in json.loads(http("GET", deliveries)[2])))
    server.send_signal(signal.SIGKILL)
    server.wait()
    receiver = Receiver(port)
    server = start()
    wait_for(lambda: len(receiver.got) >= 5, 60)
    time.sleep(0.5)
    assert sorted(message["data"]["name"] for _, message in receiver.taken()) == [f"model {n}" for n in range(5)]
    assert SECRET not in Path(tmp_path / "log").read_text()
    receiver.close()
    server.terminate()
    assert server.wait(30) == 0


def free():
    with socket.socket() as any_port:
        any_port.bind(("127.0.0.1", 0))
        return any_port.getsockname()[1]
