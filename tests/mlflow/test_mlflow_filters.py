"""Filters, orders and page tokens over HTTP: what they find, and the words in which they are refused."""

import json
import urllib.parse

import pytest
from conftest import http

API = "/api/2.0/mlflow"
TRACES = "/api/3.0/mlflow/traces/search"
LIST = "While parsing a list in the query, expected"


@pytest.fixture
def ask(server):
    def ask(path, method="POST", **fields):
        url = server + (path if path.startswith("/") else f"{API}/{path}")
        if method == "GET":
            status, _, answer = http("GET", f"{url}?{urllib.parse.urlencode(fields, doseq=True)}")
        else:
            status, _, answer = http("POST", url, json.dumps(fields).encode(), {"Content-Type": "application/json"})
        return status, json.loads(answer)

    return ask


@pytest.fixture
def search(ask, experiment):
    """A search for one kind of thing."""
    place = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": experiment.experiment_id}}
    here = {"experiment_ids": [experiment.experiment_id]}
    kinds = {
        "runs": ("runs/search", "POST", here),
        "experiments": ("experiments/search", "POST", {"max_results": 100}),
        "models": ("registered-models/search", "GET", {}),
        "versions": ("model-versions/search", "GET", {}),
        "logged": ("logged-models/search", "POST", here),
        "traces": (TRACES, "POST", {"locations": [place]}),
    }

    def search(kind, **fields):
        path, method, more = kinds[kind]
        return ask(path, method, **{**more, **fields})

    return search


def refused(answer):
    status, error = answer
    assert (status, error["error_code"]) == (400, "INVALID_PARAMETER_VALUE"), answer
    return error["message"]


@pytest.mark.parametrize(
    "kind, filter, said",
    [
        ("runs", "`metrics.A > 0.1", "Invalid clause(s) in filter string"),
        ("runs", "attribute.status = true", "Invalid clause(s) in filter string"),
        ("runs", "1.0 > metrics.acc", "Expected 'Identifier' found"),
        ("runs", "params.acc = 5", "Expected a quoted string value for param"),
        ("runs", "attribute.status = 1", "Expected a quoted string value for attributes"),
        ("runs", "metrics.acc ~= 1", "Invalid comparator"),
        ("runs", "metrics.acc IS NULL", "only supported for tags and params, not for 'metric' 'acc'"),
        ("runs", "dataset.status = 'x'", "Invalid dataset key"),
        ("runs", " ", "Invalid filter"),
        ("experiments", "tags.a > 'x'", "Invalid comparator for tag: >"),
        ("experiments", "name IS NOT NULL", "only supported for tags, not for attribute 'name'"),
        ("models", "run_id = 'x'", "Valid keys are '{'name'}'"),
        ("models", "'name' = 'x'", "Expected 'Identifier' found"),
        ("versions", "run_id IN (1,2,3)", f"{LIST} string value, punctuation, or whitespace, but got different type in list"),
        ("versions", "run_id IN ()", f"{LIST} a non-empty list of string values, but got empty list"),
        ("versions", "run_id IN ('a',,'b')", f"{LIST} a non-empty list of string values, but got ill-formed list"),
        ("versions", "run_id IN (", "Invalid clause(s) in filter string"),
        ("logged", "name = 'foo' OR name = 'bar'", "Invalid filter string"),
        ("logged", "name > 'foo'", "Invalid comparison operator for attributes.name: '>'. Expected one of ("),
        ("logged", "status = 'LOGGED_MODEL_PENDING'", "Unknown model status in filter"),
        ("traces", "span.content = 'test'", "span.content comparator '=' not one of '{'ILIKE', 'LIKE'}'"),
        ("traces", "prompt LIKE 'x'", "Invalid comparator 'LIKE' for prompts filter. Only '=' is supported"),
        ("traces", "status < 'OK'", "Invalid comparator '<' not one of"),
    ],
)
def test_a_filter_is_refused_in_mlflows_words(search, kind, filter, said):
    assert said in refused(search(kind, filter=filter))


@pytest.mark.parametrize(
    "kind, order, said",
    [
        ("runs", "acc", "Invalid attribute key"),
        ("runs", "`metrics.A`", "Invalid entity type"),
        ("runs", "params.my_param ", "Invalid order_by clause"),
        ("runs", "attribute.run_id ACS", "Invalid ordering key"),
        ("models", "timestamp decs", "Invalid order_by clause"),
        ("models", "name aCs", "Invalid ordering key"),
        ("versions", "run_id DESC", "Invalid attribute key 'run_id' specified"),
        ("logged", {"field_name": "params.x"}, "Invalid order by field name: params.x"),
    ],
)
def test_an_order_is_refused_in_mlflows_words(search, kind, order, said):
    assert said in refused(search(kind, order_by=[order]))


def test_what_a_search_may_say(search, client):
    client.create_registered_model("filtered")
    client.create_model_version("filtered", "s3://b/x")
    for kind, field, filter in [
        ("models", "registered_models", "name = 'filtered' AND"),
        ("versions", "model_versions", "version_number = '1' AND name IN ('filtered')"),
    ]:
        status, found = search(kind, filter=filter)
        assert (status, [one["name"] for one in found[field]]) == (200, ["filtered"]), found
    for count in (0, -5):
        assert search("models", max_results=count) == (200, {})
    status, found = search("experiments", order_by=["name", "name DESC"])
    names = [one["name"] for one in found["experiments"]]
    assert status == 200 and len(names) > 1 and names == sorted(names)


def test_logged_models_are_found_and_ordered(search, client, experiment):
    def create(name, value, other):
        model = client.create_logged_model(experiment.experiment_id, name, params={"x": name})
        run = client.create_run(experiment.experiment_id).info.run_id
        for digest, number in (("digest1", value), ("digest2", other)):
            client.log_metric(run, "acc", number, dataset_name="data", dataset_digest=digest, model_id=model.model_id)
        return model

    create("a", 0.1, 0.9)
    create("b", 0.3, 0.5)
    last = create("c", 0.2, 0.7)
    by_name = [{"field_name": "name"}]

    def names(filter="", order_by=by_name, **fields):
        status, found = search("logged", filter=filter, order_by=order_by, **fields)
        assert status == 200, found
        return [one["info"]["name"] for one in found.get("models", [])]

    def by_metric(**dataset):
        return "".join(names(order_by=[{"field_name": "metrics.acc", "ascending": False, **dataset}]))

    assert by_metric(dataset_digest="digest1") == by_metric(dataset_name="data", dataset_digest="digest1") == "bca"
    assert by_metric(dataset_digest="digest2") == "acb"
    assert names("params.x IN ('a', 'c')") == ["a", "c"]
    assert names("params.x NOT IN ('a', 'c')") == ["b"]
    assert names("params.x = b") == ["b"]
    assert names("params.x IN ()") == []
    assert names("status = 'PENDING' AND lifecycle_stage = 'active'") == ["a", "b", "c"]
    assert names("status = 'READY'") == []
    assert names(f"experiment_id = '{experiment.experiment_id}' AND artifact_location LIKE '%{last.model_id}%'") == ["c"]
    client.set_logged_model_tags(last.model_id, {"k": "v"})
    assert names("tags.k IN ('v', 'w')") == ["c"]
    for field in ("artifact_location", "experiment_id", "lifecycle_stage"):
        assert len(names(order_by=[{"field_name": field}])) == 3


def test_a_page_token_is_good_for_its_query_only(search, client, experiment):
    for name in "ab":
        client.create_logged_model(experiment.experiment_id, name)
    asked = {"max_results": 1, "filter": "name != 'x'", "order_by": [{"field_name": "name"}]}
    _, page = search("logged", **asked)
    asked["page_token"] = page["next_page_token"]
    _, page = search("logged", **asked)
    assert [one["info"]["name"] for one in page["models"]] == ["b"] and "next_page_token" not in page
    for change, said in [
        ({"experiment_ids": ["0"]}, "Experiment IDs in the page token do not match"),
        ({"filter": "name != 'y'"}, "Filter string in the page token does not match"),
        ({"order_by": [{"field_name": "name", "ascending": False}]}, "Order by in the page token does not match"),
    ]:
        assert said in refused(search("logged", **{**asked, **change}))
    assert "Invalid page token" in refused(search("logged", page_token="not base64"))


def test_the_history_says_that_it_wants_a_positive_number(ask, client, experiment):
    run = client.create_run(experiment.experiment_id).info.run_id
    said = refused(ask("metrics/get-history", "GET", run_id=run, metric_key="m", max_results=0))
    assert said.endswith("It must be a positive integer.")
