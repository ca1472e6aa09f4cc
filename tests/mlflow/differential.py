"""Plays one generated sequence of calls against two MLflow servers and compares every answer.

    python tests/mlflow/differential.py --ours http://127.0.0.1:7600 --stock http://127.0.0.1:5000 --seed 1 --calls 2000

What a server chooses itself (ids, page tokens, its own times, names that it makes up) is replaced by what it stands for before answers are
compared; an id that an answer gave is used in later calls to the same server. `KNOWN` lists the differences that are meant.
"""

import argparse
import http.client
import json
import random
import re
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from urllib.parse import quote, urlencode, urlsplit

API, BROWSERS = "/api/2.0/mlflow/", "/ajax-api/2.0/mlflow/"
# Times that a server sets by its own clock.
CLOCK = {
    "creation_time", "last_update_time", "creation_timestamp", "last_updated_timestamp", "creation_timestamp_ms", "last_updated_timestamp_ms",
}  # fmt: skip
# What no version may be made of.
ODD_SOURCES = ("/etc", "file:///etc", "mlflow-artifacts:/../x", "", "models:/nope/1", "runs:/none/model")
MADE_UP_NAME = re.compile(r"^[a-z]+-[a-z]+-\d+$")
TOKEN = "next_page_token"
# What some of its refusals end with, and others of the same kind don't.
SEE = " See the API docs for more information about request parameters."
# What only stock's errors have; no client reads it.
EXTRA = {"sqlstate", "error_class"}


@dataclass(frozen=True)
class Ref:
    """Something that a server made: each server has its own."""

    name: str


@dataclass
class Call:
    """One call, and what of its answer gets a name: name → path into the answer."""

    method: str
    path: str
    body: dict = field(default_factory=dict)
    keep: dict = field(default_factory=dict)
    # Whether the order of the answer's list is not promised by MLflow.
    unordered: bool = False

    def __str__(self):
        return f"{self.method} {self.path} {json.dumps(self.body, default=lambda r: f'<{r.name}>')[:1500]}"


class Server:
    """One of the two, and its own values of the names."""

    def __init__(self, url):
        parts = urlsplit(url)
        self.host, self.port, self.prefix = parts.hostname, parts.port, parts.path.rstrip("/")
        self.values = {}
        self.connection = None

    def put(self, value):
        """A template with this server's values."""
        if isinstance(value, Ref):
            return self.values.get(value.name, f"no-{value.name}")
        if isinstance(value, dict):
            return {key: self.put(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [self.put(inner) for inner in value]
        if isinstance(value, str):
            return re.sub(r"<<(\w+)>>", lambda m: str(self.values.get(m[1], f"no-{m[1]}")), value)
        return value

    def ask(self, call):
        body, path = self.put(call.body), self.put(call.path)
        text, headers = None, {}
        if call.method == "GET":
            pairs = [(k, v) for k, vs in body.items() for v in (vs if isinstance(vs, list) else [vs])]
            path += "?" + urlencode(pairs)
        else:
            text, headers = json.dumps(body), {"Content-Type": "application/json"}
        # Stock has some routes where browsers look only.
        place = self.prefix + (path if path.startswith("/") else API + path)
        status, content = self.send(call.method, place, text, headers)
        try:
            answer = json.loads(content)
        except ValueError:
            answer = {"": content.decode(errors="replace")}
        if status == 200:
            for name, where in call.keep.items():
                found = answer
                for step in where:
                    found = found.get(step) if isinstance(found, dict) else None
                self.values[name] = found if found is not None else ""
        return status, answer

    def send(self, method, path, text, headers):
        for attempt in range(3):
            try:
                self.connection = self.connection or http.client.HTTPConnection(self.host, self.port, timeout=60)
                self.connection.request(method, path, text, headers)
                reply = self.connection.getresponse()
                return reply.status, reply.read()
            except (OSError, http.client.HTTPException):
                self.connection = None
                if attempt == 2:
                    raise
        raise AssertionError

    def neutral(self, value, names):
        """An answer without what this server chose itself."""
        if isinstance(value, dict):
            return {
                key: "<token>" if key == TOKEN else self.neutral(inner, names)
                for key, inner in value.items()
                if key not in CLOCK | EXTRA | ({"user_id"} if "current_stage" in value else set())
            }
        if isinstance(value, list):
            return [self.neutral(inner, names) for inner in value]
        if isinstance(value, str):
            value = value.replace(SEE, "")
            if MADE_UP_NAME.match(value):
                return "<made-up>"
            return names.sub(lambda m: f"<{self.named[m[0]]}>", value) if names else value
        return value

    def answer(self, call):
        status, answer = self.ask(call)
        # Numbers of experiments and versions are too short to be found in texts; ids are long.
        self.named = {v: k for k, v in self.values.items() if isinstance(v, str) and len(v) >= 16 and k[0] != "t"}
        names = re.compile("|".join(map(re.escape, self.named))) if self.named else None
        return status, tidy(self.neutral(answer, names), call.unordered)


def tidy(value, unordered=False):
    """Lists whose order means nothing are sorted: of tags, params and metrics."""
    if isinstance(value, dict):
        return {
            key: sorted(inner, key=lambda i: json.dumps(i, sort_keys=True))
            if isinstance(inner, list) and (unordered or key in ("tags", "params", "aliases", "latest_versions", "dataset_inputs") or is_latest(key, inner))
            else inner
            for key, inner in ((k, tidy(v, unordered)) for k, v in value.items())
        }
    return [tidy(inner, unordered) for inner in value] if isinstance(value, list) else value


def is_latest(key, inner):
    """The latest values of a run's metrics: one a key, in no order. A history is a list of one key, in order."""
    keys = [i.get("key") for i in inner if isinstance(i, dict)]
    return key == "metrics" and len(set(keys)) == len(keys)


class World:
    """Makes calls up, from what was made up before."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.count = Counter()
        self.experiments, self.runs, self.models, self.versions, self.logged = [], [], [], [], []
        self.pages = []
        self.seed = seed
        self.now = 1_700_000_000_000

    def new(self, kind):
        self.count[kind] += 1
        return f"{kind}{self.count[kind]}"

    def pick(self, things, other=None):
        """Mostly one of these; now and then something that is not there."""
        if things and self.random.random() > 0.04:
            # Rather one of the latest: things then have many children.
            return self.random.choice(things[-12:])
        return other if other is not None else "0" * 32

    def some(self, *values):
        return self.random.choice(values)

    def chance(self, share):
        return self.random.random() < share

    def key(self):
        return self.some("a", "b", "c", "lr", "loss/val", "with space", "x.y-z", "a", "b")

    def odd_key(self):
        return self.some("", "../up", "/abs", "a//b", "k" * 251, "k" * 250, "semi;colon", "ünï", "a/./b", ".", "a:b", "tab\tkey")

    def any_key(self, odd=0.05):
        return self.odd_key() if self.chance(odd) else self.key()

    def word(self):
        return self.some("x", "y", "Value", "value", "va%lue", "10", "it's", 'say "hi"', "", "a_b", "ÄÖ")

    def number(self):
        return self.some(
            0, 1, -1, 0.5, self.random.uniform(-9, 9), self.random.randrange(20), "NaN", "Infinity", "-Infinity", 1e300, "2.5"
        )  # fmt: skip

    def tick(self):
        self.now += 1 + self.random.randrange(1000)
        return self.now

    def next(self):
        kinds = [
            (self.experiment, 8), (self.run, 12), (self.log, 30), (self.search_runs, 14), (self.search_experiments, 5), (self.registry, 12),
            (self.version, 12), (self.search_registry, 8), (self.logged_model, 6), (self.wrong, 8), (self.next_page, 5),
        ]  # fmt: skip
        makers, weights = zip(*kinds)
        while True:
            call = self.random.choices(makers, weights)[0]()
            if call is not None:
                return call

    # Experiments

    def experiment(self):
        act = self.some("create", "create", "get", "get-by-name", "update", "delete", "restore", "tag", "tag", "untag")
        if act == "create":
            known = [e for e in self.experiments]
            if known and self.chance(0.1):
                return Call("POST", "experiments/create", {"name": self.random.choice(known)[1]})
            if self.chance(0.1):
                return Call("POST", "experiments/create", {"name": self.some("", "n" * 501, 12, None, ["x"])})
            ref, name = self.new("e"), f"exp {self.count['e']} {self.some('alpha', 'Beta', 'gamma')}"
            self.experiments.append((Ref(ref), name))
            body = {"name": name}
            if self.chance(0.5):
                body["tags"] = [{"key": self.key(), "value": self.word()}]
            if self.chance(0.1):
                body["artifact_location"] = self.some("s3://bucket/there", "mlflow-artifacts:/elsewhere")
            return Call("POST", "experiments/create", body, {ref: ["experiment_id"]})
        experiment, name = self.pick(self.experiments, (self.some("98765", "abc", ""), "no such experiment"))
        if act == "get":
            return Call("GET", "experiments/get", {"experiment_id": experiment})
        if act == "get-by-name":
            return Call("GET", "experiments/get-by-name", {"experiment_name": name})
        if act == "update":
            return Call("POST", "experiments/update", {"experiment_id": experiment, "new_name": self.some(name, f"{name}!", "", "z" * 501)})
        if act in ("delete", "restore"):
            return Call("POST", f"experiments/{act}", {"experiment_id": experiment}) if self.chance(0.4) else None
        if act == "untag":
            return Call("POST", "experiments/delete-experiment-tag", {"experiment_id": experiment, "key": self.key()})
        return Call("POST", "experiments/set-experiment-tag", {"experiment_id": experiment, "key": self.any_key(), "value": self.word()})

    def like(self, name, values):
        """A condition on a text."""
        op = self.some("=", "!=", "LIKE", "ILIKE", "like", "=", "=")
        value = self.random.choice(values)
        if op.upper().endswith("LIKE"):
            value = self.some("%", f"{value[:2]}%", f"%{value[-2:]}", value.upper(), f"%{value[1:3]}%", "_%")
        quoted = f'"{value}"' if "'" in value or self.chance(0.3) else f"'{value}'"
        return f"{name} {op} {quoted}"

    def compare(self, name, values):
        return f"{name} {self.some('=', '!=', '>', '>=', '<', '<=')} {self.random.choice(values)}"

    def search_experiments(self):
        clauses = []
        for _ in range(self.some(0, 1, 1, 2)):
            clauses.append(
                self.some(
                    self.like(self.some("name", "attribute.name", "attributes.name"), ["exp 1 alpha", "Beta", "no"]),
                    self.like(f"tags.{self.some('a', 'lr', '`with space`')}", ["x", "Value", "10"]),
                    self.compare("creation_time", [9999999999999]),
                    self.some("tags.a IS NULL", "tags.a IS NOT NULL", "name IS NULL", "name >", "foo = 'x'", "name = x", "tags.a > 'x'"),
                )
            )
        body = {"max_results": self.some(1, 2, 5, 1000, 1000, 0, 50001)}
        if clauses:
            body["filter"] = " AND ".join(clauses)
        if self.chance(0.5):
            body["order_by"] = [self.some("name", "name DESC", "experiment_id ASC", "experiment_id", "last_update", "nope ASC")]
        if self.chance(0.5):
            body["view_type"] = self.some("ACTIVE_ONLY", "DELETED_ONLY", "ALL")
        return self.paged("POST", "experiments/search", body)

    def paged(self, method, path, body, unordered=False):
        token = self.new("t")
        self.pages.append((token, method, path, body, unordered))
        self.pages = self.pages[-10:]
        return Call(method, path, body, {token: [TOKEN]}, unordered)

    def next_page(self):
        if not self.pages:
            return None
        token, method, path, body, unordered = self.random.choice(self.pages)
        body = {**body, "page_token": self.some(Ref(token), Ref(token), Ref(token), "rubbish!")}
        return Call(method, path, body, {token: [TOKEN]}, unordered)

    # Runs

    def run(self):
        act = self.some("create", "create", "create", "get", "get", "update", "update", "delete", "restore")
        if act == "create":
            experiment, _ = self.pick(self.experiments, (self.some("98765", "abc"), ""))
            ref = self.new("r")
            body = {"experiment_id": experiment, "start_time": self.tick(), "user_id": self.some("ann", "bob")}
            # Made-up names would sort differently.
            body["run_name"] = self.some("first try", "first", "Second", "it's")
            if self.chance(0.5):
                # No key twice: stock breaks on its database's constraint.
                keys = sorted({(self.any_key(0.03) or "a")[:250] for _ in range(self.some(1, 2))})
                body["tags"] = [{"key": key, "value": self.word()} for key in keys]
            if self.chance(0.1):
                body.setdefault("tags", []).append({"key": "mlflow.runName", "value": self.some("by tag", body.get("run_name", "x"))})
            self.runs.append(Ref(ref))
            return Call("POST", "runs/create", body, {ref: ["run", "info", "run_id"]})
        run = self.pick(self.runs)
        if act == "get":
            return Call("GET", "runs/get", {self.some("run_id", "run_uuid", "run_id"): run})
        if act == "update":
            body = {"run_id": run}
            if self.chance(0.6):
                body["status"] = self.some("FINISHED", "FAILED", "RUNNING", "KILLED", "SCHEDULED", "nonsense", 3)
            if self.chance(0.5):
                body["end_time"] = self.tick()
            if self.chance(0.4):
                body["run_name"] = self.some("renamed", "", "Second")
            return Call("POST", "runs/update", body)
        return Call("POST", f"runs/{act}", {"run_id": run}) if self.chance(0.4) else None

    def log(self):
        run = self.pick(self.runs)
        act = self.some("metric", "metric", "metric", "param", "tag", "untag", "batch", "batch", "history", "inputs")
        if act == "metric":
            return Call("POST", "runs/log-metric", {"run_id": run, **self.metric()})
        if act == "param":
            value = self.word() if self.chance(0.95) else "v" * self.some(500, 6000, 6001)
            return Call("POST", "runs/log-parameter", {"run_id": run, "key": self.any_key(), "value": value})
        if act == "tag":
            value = self.word() if self.chance(0.95) else "v" * self.some(5000, 8000, 8001)
            key = "mlflow.runName" if self.chance(0.05) else self.any_key()
            return Call("POST", "runs/set-tag", {"run_id": run, "key": key, "value": value})
        if act == "untag":
            return Call("POST", "runs/delete-tag", {"run_id": run, "key": self.key()})
        if act == "history" and self.chance(0.5):
            body = {"run_ids": [self.pick(self.runs) for _ in range(self.some(1, 2, 3))], "metric_key": self.key()}
            if self.chance(0.5):
                body["max_results"] = self.some(1, 2, 3, 2500, 0, 2501)
            if self.chance(0.4):
                body.update(self.some({"start_step": 0, "end_step": 2}, {"start_step": 3, "end_step": 1}, {"end_step": 1}))
            return Call("GET", "metrics/get-history-bulk-interval", body)
        if act == "history":
            return Call("GET", "metrics/get-history", {"run_id": run, "metric_key": self.any_key()})
        if act == "inputs" and self.chance(0.4):
            experiments = [e for e, _ in self.experiments[-3:]]
            return Call("POST", f"{BROWSERS}experiments/search-datasets", {"experiment_ids": experiments}, unordered=True)
        if act == "inputs":
            dataset = {
                "name": self.some("flights", "weather"), "digest": self.some("d1", "d2"), "source_type": "local", "source": "here",
                "schema": "{}", "profile": "{}",
            }  # fmt: skip
            tags = [{"key": "mlflow.data.context", "value": self.some("train", "eval")}] if self.chance(0.7) else []
            return Call("POST", "runs/log-inputs", {"run_id": run, "datasets": [{"dataset": dataset, "tags": tags}]})
        body = {"run_id": run}
        if self.chance(0.8):
            body["metrics"] = [self.metric(0.01, odd_values=0) for _ in range(self.some(1, 2, 5))]
        if self.chance(0.5):
            body["params"] = [{"key": self.any_key(0.02), "value": self.word()} for _ in range(self.some(1, 2))]
        if self.chance(0.5):
            body["tags"] = [{"key": self.any_key(0.02), "value": self.word()} for _ in range(self.some(1, 2))]
        if self.chance(0.02):
            kind = self.some("params", "tags", "metrics")
            item = self.metric(0, odd_values=0) if kind == "metrics" else {"value": "1"}
            body[kind] = [{**item, "key": f"k{i}"} for i in range(1001 if kind == "metrics" else 101)]
        return Call("POST", "runs/log-batch", body)

    def metric(self, odd=0.05, odd_values=0.05):
        body = {"key": self.any_key(odd), "value": self.number(), "timestamp": self.now - self.random.randrange(50)}
        if self.chance(0.7):
            body["step"] = self.some(0, 1, 2, 3, -1, "4")
        if self.chance(odd_values):
            body.update(self.some({"timestamp": -1}, {"value": "many"}, {"value": None}, {"timestamp": "x"}))
        return body

    def run_clause(self):
        metric, param, tag = (f"{p}.{self.some('a', 'b', 'lr', '`with space`', '`loss/val`')}" for p in ("metrics", "params", "tags"))
        return self.some(
            self.compare(self.some(metric, metric.replace("metrics", "metric")), [0, 1, 0.5, -1, 3, 10]),
            self.like(self.some(param, param.replace("params", "parameter")), ["x", "Value", "10"]),
            self.like(self.some(tag, tag.replace("tags", "tag")), ["x", "value", "va%lue"]),
            self.like(self.some("status", "attributes.status", "run.status"), ["FINISHED", "RUNNING", "FAILED"]),
            self.like(self.some("run_name", "attributes.run_name", "attr.`Run name`", "run_name"), ["first", "Second", "first try"]),
            self.compare("start_time", [self.now - 3000, self.now, 0]),
            self.compare("attributes.end_time", [self.now - 3000, 0]),
            self.like("user_id", ["ann", "bob"]),
            self.like(self.some("dataset.name", "datasets.name"), ["flights", "weather"]),
            self.like("dataset.context", ["train", "eval"]),
            f"run_id {self.some('IN', 'NOT IN', 'in')} ('<<r1>>', '<<r{max(self.count['r'], 1)}>>')",
            f"{self.some(param, tag)} {self.some('IS NULL', 'IS NOT NULL')}",
            self.some(
                "metrics.a", "metrics.a = 'x'", "params.a = 1", "nope.a = 1", "status > 'A'", "a = 1", "metrics.a = 1 OR metrics.b = 2", "(",
                "params.a IN ('x')", "metrics.a IS NULL", "start_time = 'x'", "tags.a = x", "run_id IN ()", "metrics. = 1", "metrics.a == 1",
                "dataset.name IN ('flights', 'weather')", "status IN ('RUNNING')", "attributes.nope = 'x'", "metrics.`a = 1", "params.a = 'x",
            ),
        )  # fmt: skip

    def search_runs(self):
        experiments = [e for e, _ in self.experiments[-self.some(1, 3, 12) :]]
        body = {"experiment_ids": experiments}
        clauses = [self.run_clause() for _ in range(self.some(0, 1, 1, 1, 2, 3))]
        if clauses:
            body["filter"] = self.some(" AND ", " and ", "  AND  ").join(clauses)
        if self.chance(0.6):
            by = lambda: self.some(  # noqa: E731
                "metrics.a", "metrics.b DESC", "params.a", "params.lr DESC", "tags.a ASC", "start_time", "start_time DESC", "status",
                "attributes.end_time DESC", "run_name", "metrics.`with space`", "metric.a DESC", "attribute.Created", "nope", "metrics.a UP",
                "user_id desc",
            )  # fmt: skip
            body["order_by"] = [by() for _ in range(self.some(1, 1, 2))]
        if self.chance(0.6):
            body["max_results"] = self.some(1, 2, 3, 10, 1000, 50000, 50001, 0, -1)
        if self.chance(0.4):
            body["run_view_type"] = self.some("ACTIVE_ONLY", "DELETED_ONLY", "ALL")
        return self.paged("POST", "runs/search", body)

    # Registry

    def registry(self):
        act = self.some("create", "create", "get", "update", "rename", "delete", "tag", "tag", "untag", "alias", "alias", "by-alias", "unalias", "latest")
        if act == "create":
            if self.chance(0.15):
                return Call("POST", "registered-models/create", {"name": self.some("", " ", "a/b", "a:b", "n" * 256, 5, "..")})
            name = self.random.choice(self.models) if self.models and self.chance(0.1) else f"model {self.new('m')} {self.some('Up', 'down')}"
            if name not in self.models:
                self.models.append(name)
            body = {"name": name}
            if self.chance(0.4):
                body["description"] = self.some("", "what it is")
            if self.chance(0.4):
                body["tags"] = [{"key": self.key(), "value": self.word()}]
            return Call("POST", "registered-models/create", body)
        name = self.pick(self.models, self.some("no such model", "a/b", ""))
        if act == "get":
            return Call("GET", "registered-models/get", {"name": name})
        if act == "update":
            return Call("PATCH", "registered-models/update", {"name": name, "description": self.some("new words", "", "ü")})
        if act == "rename":
            if not self.chance(0.3):
                return None
            other = self.some(f"{name} renamed", self.pick(self.models), "", "a/b")
            if other.endswith("renamed") and name in self.models:
                self.models.append(other)
            return Call("POST", "registered-models/rename", {"name": name, "new_name": other})
        if act == "delete":
            return Call("DELETE", "registered-models/delete", {"name": name}) if self.chance(0.2) else None
        if act == "tag":
            return Call("POST", "registered-models/set-tag", {"name": name, "key": self.any_key(), "value": self.word()})
        if act == "untag":
            return Call("DELETE", "registered-models/delete-tag", {"name": name, "key": self.key()})
        if act == "latest":
            body = {"name": name}
            if self.chance(0.5):
                body["stages"] = [self.some("None", "Staging", "production", "nope")]
            return Call("POST", "registered-models/get-latest-versions", body, unordered=True)
        alias = self.some("champion", "best", "champion", "latest", "v1", "a b", "", "Champion")
        if act == "alias":
            body = {"name": name, "alias": alias, "version": self.some("1", "2", "3", 1, "99", "x")}
            return Call("POST", "registered-models/alias", body)
        return Call("GET" if act == "by-alias" else "DELETE", "registered-models/alias", {"name": name, "alias": alias})

    def version(self):
        act = self.some("create", "create", "create", "get", "get", "update", "delete", "tag", "tag", "untag", "uri", "stage", "stage")
        name = self.pick(self.models, self.some("no such model", ""))
        if act == "create":
            run = self.pick(self.runs)
            body = {"name": name, "source": self.some("s3://bucket/model", "gs://b/m", "dbfs:/x", "s3://bucket/other")}
            if self.chance(0.5):
                body["run_id"] = run
            if self.chance(0.3):
                body["description"] = self.some("", "a version")
            if self.chance(0.3):
                body["tags"] = [{"key": self.key(), "value": self.word()}]
            if self.chance(0.2):
                body["run_link"] = self.some("", "http://elsewhere")
            if self.chance(0.1):
                body["source"] = self.some(*ODD_SOURCES)
            return Call("POST", "model-versions/create", body)
        number = self.some("1", "1", "2", "2", "3", "99", "x", 1)
        at = {"name": name, "version": number}
        if act == "get":
            return Call("GET", "model-versions/get", at)
        if act == "uri":
            return Call("GET", "model-versions/get-download-uri", at)
        if act == "update":
            return Call("PATCH", "model-versions/update", {**at, "description": self.some("words", "")})
        if act == "delete":
            return Call("DELETE", "model-versions/delete", at) if self.chance(0.3) else None
        if act == "tag":
            return Call("POST", "model-versions/set-tag", {**at, "key": self.any_key(), "value": self.word()})
        if act == "stage":
            body = {**at, "stage": self.some("Staging", "Production", "production", "Archived", "None", "nope", "")}
            if self.chance(0.4):
                body["archive_existing_versions"] = self.chance(0.5)
            return Call("POST", "model-versions/transition-stage", body)
        return Call("DELETE", "model-versions/delete-tag", {**at, "key": self.key()})

    def search_registry(self):
        of_models = self.chance(0.5)
        tag = f"tags.{self.some('a', 'lr', '`with space`')}"
        clauses = []
        for _ in range(self.some(0, 1, 1, 2)):
            common = [
                self.like("name", ["model m1 Up", "down", "model"]), self.like(tag, ["x", "Value"]),
                self.some("name IN ('model m1 Up', 'model m1 down')", "name", "name > 'x'", "nope = 'x'", "tags.a IS NULL", "name = x"),
            ]  # fmt: skip
            versions = [
                self.compare("version_number", [1, 2]), self.like("source_path", ["s3://bucket/model", "gs://b/m"]),
                "run_id = '<<r1>>'", "run_id IN ('<<r1>>', '<<r2>>')", "version_number = 'x'", "version_number > 1.5",
            ]  # fmt: skip
            clauses.append(self.some(*common, *([] if of_models else versions)))
        body = {"max_results": self.some(1, 2, 3, 100, 1000, 0, 1001, 200001)}
        if clauses:
            body["filter"] = " AND ".join(clauses)
        if self.chance(0.5):
            order = ["name", "name DESC", "last_updated_timestamp", "timestamp DESC", "nope"]
            body["order_by"] = [self.some(*order, *([] if of_models else ["version_number DESC", "creation_timestamp"]))]
        return self.paged("GET", "registered-models/search" if of_models else "model-versions/search", body)

    # Logged models

    def logged_model(self):
        act = self.some("create", "create", "get", "finalize", "tags", "untag", "params", "search", "search", "delete")
        experiment, _ = self.pick(self.experiments, ("98765", ""))
        if act == "create":
            ref = self.new("l")
            body = {"experiment_id": experiment, "name": self.some("model", "other", "model", "a/b", ""), "source_run_id": self.pick(self.runs)}
            if self.chance(0.5):
                body["params"] = [{"key": self.key(), "value": self.word()}]
            if self.chance(0.5):
                body["tags"] = [{"key": self.key(), "value": self.word()}]
            if self.chance(0.5):
                body["model_type"] = self.some("Agent", "tree")
            self.logged.append(Ref(ref))
            return Call("POST", "logged-models", body, {ref: ["model", "info", "model_id"]})
        name = self.random.choice(self.logged).name if self.logged else "l1"
        if act == "search":
            body = {"experiment_ids": [e for e, _ in self.experiments[-3:]], "max_results": self.some(1, 2, 50, 100)}
            if self.chance(0.6):
                body["filter"] = self.some(
                    self.like("name", ["model", "other"]), self.like("params.a", ["x", "10"]), self.like("tags.lr", ["x"]), "status = 'READY'",
                    "status = 'PENDING'", "metrics.a > 0", "model_type = 'tree'", "nope = 'x'", "name IN ('model')", "creation_timestamp > 0",
                    self.like("source_run_id", ["<<r1>>"]), "status > 'x'",
                )  # fmt: skip
            if self.chance(0.4):
                fields = ["name", "creation_timestamp", "metrics.a", "nope"]
                body["order_by"] = [{"field_name": self.some(*fields), "ascending": self.chance(0.5)}]
            return Call("POST", "logged-models/search", body, unordered="order_by" not in body or body["order_by"][0]["field_name"] == "name")
        path, own = (f"logged-models/<<{name}>>", {"model_id": Ref(name)}) if self.chance(0.95) else ("logged-models/m-none", {"model_id": "m-none"})
        if act == "get":
            return Call("GET", path)
        if act == "delete":
            return Call("DELETE", path) if self.chance(0.2) else None
        if act == "finalize":
            # One that does not exist becomes UNSPECIFIED there, and is refused here: test_mlflow_wire.py.
            status = self.some("LOGGED_MODEL_READY", "LOGGED_MODEL_UPLOAD_FAILED", "LOGGED_MODEL_READY")
            return Call("PATCH", path, {**own, "status": status})
        if act == "tags":
            return Call("PATCH", f"{path}/tags", {**own, "tags": [{"key": self.any_key(0.02)[:250], "value": self.word()}]})
        if act == "untag":
            key = self.key()
            return Call("DELETE", f"{path}/tags/{quote(key, safe='')}", {**own, "tag_key": key})
        return Call("POST", f"{path}/params", {**own, "params": [{"key": self.key(), "value": self.word()}]})

    # Requests that are wrong in themselves

    def wrong(self):
        run = self.pick(self.runs)
        return self.some(
            Call("POST", "runs/log-metric", {"run_id": run}), Call("POST", "runs/set-tag", {"run_id": run}),
            Call("POST", "runs/log-metric", {"run_id": run, "key": 5, "value": 1, "timestamp": 1}),
            Call("POST", "runs/log-parameter", {"run_id": run, "key": "p", "value": {"a": 1}}),
            Call("POST", "runs/log-batch", {"run_id": run, "metrics": {"key": "a"}}),
            Call("POST", "runs/log-batch", {"run_id": run, "params": [{"key": "q", "value": "1"}, {"key": "q", "value": "1"}]}),
            Call("POST", "runs/log-batch", {"run_id": run, "params": [{"key": "q2", "value": "1"}, {"key": "q2", "value": "2"}]}),
            Call("POST", "runs/log-batch", {"run_id": run, "metrics": [{"key": "a"}]}), Call("POST", "runs/update", {"status": "FINISHED"}),
            Call("GET", "runs/get", {}), Call("GET", "metrics/get-history", {"run_id": run}), Call("POST", "runs/search", {}),
            Call("POST", "runs/search", {"experiment_ids": "1"}), Call("POST", "runs/search", {"experiment_ids": [], "filter": 5}),
            Call("POST", "experiments/search", {}), Call("GET", "experiments/get-by-name", {}), Call("GET", "registered-models/get", {}),
            Call("POST", "registered-models/alias", {"name": "x"}), Call("POST", "model-versions/create", {"name": self.pick(self.models)}),
            Call("GET", "model-versions/get", {"name": self.pick(self.models)}), Call("POST", "no/such/endpoint", {"a": 1}),
            Call("POST", "runs/set-tag", {"runId": run, "run_id": run, "key": "camel", "value": "1"}),
            Call("POST", "runs/set-tag", {"run_id": run, "key": "unknown field", "value": "1", "nonsense": [1]}),
            Call("POST", "logged-models", {"name": "x"}),
        )  # fmt: skip


def says(stock, *starts):
    return stock[1].get("message", "").startswith(starts)


def refused_alike(ours, stock):
    return ours[0] == stock[0] == 400 and ours[1].get("error_code") == stock[1].get("error_code")


# Differences that are meant: why, and for which calls (call, ours, stock).
KNOWN = [
    ("stock's words for a search that it refuses hold Python sets, in any order", lambda c, o, s: "search" in c.path and refused_alike(o, s)),
    ("stock crashes", lambda c, o, s: s[0] == 500),
    ("neither knows the route; stock says so in HTML", lambda c, o, s: o[0] == s[0] == 404 and c.path == "no/such/endpoint"),
    ("stock knows `like` on experiments in capitals only, and no `attributes.` there",
     lambda c, o, s: c.path == "experiments/search" and says(s, "Invalid comparator", "Invalid entity type 'attributes'")),
    ("stock quotes its database's errors", lambda c, o, s: refused_alike(o, s) and "sqlite3" in s[1].get("message", "")),
    ("a param of a logged model may be logged again with the same value; stock breaks on its database's constraint",
     lambda c, o, s: c.path.endswith("/params") and "UNIQUE constraint" in s[1].get("message", "")),
    ("our words, and our order, where a version's source is refused",
     lambda c, o, s: c.path == "model-versions/create" and c.body.get("source") in ODD_SOURCES and {o[0], s[0]} <= {400, 404}),
    ("what was deleted is not deleted again", lambda c, o, s: o[0] == 404 and c.method == "DELETE" and c.path.startswith("logged-models")),
    ("stock has no route to a tag with a slash", lambda c, o, s: "%2F" in c.path and s[0] == 404 and "" in s[1]),
    ("what was deleted is not changed any more",
     lambda c, o, s: o[0] == 404 and s[0] == 200 and c.path.startswith("logged-models/") and c.method in ("PATCH", "POST")),
    ("logged models are found by their status, as in MLflow 3.18; 3.17 finds none",
     lambda c, o, s: c.path == "logged-models/search" and c.body.get("filter", "").startswith("status ") and s == (200, {})),
    ("a page of no registered models leads to no other", lambda c, o, s: c.path == "registered-models/search" and c.body.get("max_results") == 0),
]


def known(call, ours, stock):
    return any(differs(call, ours, stock) for _, differs in KNOWN)


def play(ours, stock, seed, calls, report):
    """Plays the sequence; calls `report(number, call, ours, stock)` for each difference that is not meant. Gives the calls by path."""
    world, ours, stock, played = World(seed), Server(ours), Server(stock), Counter()
    for number in range(calls):
        call = world.next()
        ours_said = ours.answer(call)
        stock_said = stock.answer(call)
        played[re.sub(r"<<\w+>>.*", "{id}", call.path), stock_said[0]] += 1
        if ours_said != stock_said and not known(call, ours_said, stock_said):
            report(number, call, ours_said, stock_said)
        if call.method != "GET" and "search" not in call.path:
            # Orders by the server's clock are orders of time: no two things are made in one millisecond.
            time.sleep(0.002)
    return played


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--ours", required=True)
    parser.add_argument("--stock", required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--show", type=int, default=20)
    parser.add_argument("--width", type=int, default=900, help="of the shown answers")
    args = parser.parse_args()
    found = []
    played = play(args.ours, args.stock, args.seed, args.calls, lambda *difference: found.append(difference))
    kinds = Counter()
    # Where both say yes and mean something else comes first.
    for number, call, ours, stock in sorted(found, key=lambda f: (f[2][0] != 200, f[3][0] != 200)):
        kind = (call.path.split("<<")[0], ours[0], stock[0], str(stock[1].get("message", ""))[:60] if stock[0] != 200 else "")
        kinds[kind] += 1
        if kinds[kind] <= 1 and len(kinds) <= args.show:
            print(f"#{number} {call}\n  ours  {ours[0]} {json.dumps(ours[1], sort_keys=True)[: args.width]}")
            print(f"  stock {stock[0]} {json.dumps(stock[1], sort_keys=True)[: args.width]}\n")
    for kind, count in kinds.most_common():
        print(count, *kind, sep="  ")
    good = sum(count for (_, status), count in played.items() if status == 200)
    print(f"{sum(played.values())} calls, {good} of them answered 200 by stock, {len(found)} differences; seed {args.seed}")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
