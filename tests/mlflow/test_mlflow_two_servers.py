"""Two servers over one PostgreSQL database and one folder of artifacts: each sees at once what the other was told."""

import threading
from concurrent.futures import ThreadPoolExecutor

import engines
import mlflow
import pytest
import requests
from engines import Server
from mlflow.entities import Metric

pytestmark = pytest.mark.skipif(engines.ENGINE != "postgres", reason="a SQLite file belongs to one server at a time")

METRICS = 40


@pytest.fixture
def pair(tmp_path):
    """Two servers with homes of their own, which share the database and the folder of artifacts."""
    database, blobs = engines.postgres().database(), tmp_path / "blobs"
    servers = [Server(tmp_path / name, "--database", database, "--blobs", blobs) for name in ("a", "b")]
    # At the same time: both find an empty database, and one of them makes the tables.
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(Server.start, servers))
    yield servers
    for server in servers:
        server.stop()


@pytest.fixture
def clients(pair):
    return [mlflow.MlflowClient(server.address) for server in pair]


def together(work):
    """Runs `work(0)` and `work(1)` at the same moment; their results."""
    start = threading.Barrier(2)

    def run(which):
        start.wait(30)
        return work(which)

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(run, (0, 1)))


def test_writes_to_one_run_interleave(clients):
    run = clients[0].create_run("0").info.run_id
    for step in range(20):
        clients[step % 2].log_metric(run, "loss", step, timestamp=step + 1, step=step)
        clients[step % 2].log_param(run, f"p{step}", step)
        clients[step % 2].set_tag(run, "last", step)
    for client in clients:
        data = client.get_run(run).data
        assert (data.metrics["loss"], data.tags["last"], len(data.params)) == (19, "19", 20)
        assert [point.value for point in client.get_metric_history(run, "loss")] == list(range(20))
    with pytest.raises(mlflow.MlflowException, match="p0"):
        clients[1].log_param(run, "p0", "another")


def test_bursts_of_batches_from_both_are_kept_whole(clients):
    run = clients[0].create_run("0").info.run_id

    def burst(which):
        for number in range(10):
            points = [Metric(f"m{i}", which, 1000 + number, 2 * number + which) for i in range(METRICS)]
            clients[which].log_batch(run, points)

    together(burst)
    latest = [client.get_run(run).data.metrics for client in clients]
    assert latest[0] == latest[1] == {f"m{i}": 1 for i in range(METRICS)}
    steps = {point.step for point in clients[0].get_metric_history(run, "m7")}
    assert steps == set(range(20))


def test_versions_registered_at_the_same_time_have_different_numbers(clients):
    clients[0].create_registered_model("shared")
    run = clients[0].create_run("0").info
    source = f"{run.artifact_uri}/model"
    clients[0].log_text(run.run_id, "x", "model/MLmodel")

    def register(which):
        return [int(clients[which].create_model_version("shared", source, run.run_id).version) for _ in range(10)]

    numbers = sum(together(register), [])
    assert sorted(numbers) == list(range(1, 21))
    for client in clients:
        assert len(client.search_model_versions("name='shared'")) == 20


def test_one_of_two_that_make_the_same_name_is_told_so(clients):
    def make(which):
        try:
            return clients[which].create_experiment("same")
        except mlflow.MlflowException as error:
            return error.error_code

    assert sorted(together(make), key=len)[1] == "RESOURCE_ALREADY_EXISTS"
    seen = [dict(client.get_experiment_by_name("same")) for client in clients]
    assert seen[0] == seen[1] and seen[0]["name"] == "same"


def test_a_moved_alias_is_seen_by_the_other(clients):
    clients[0].create_registered_model("m")
    run = clients[0].create_run("0").info
    clients[0].log_text(run.run_id, "x", "model/MLmodel")
    for _ in range(2):
        clients[1].create_model_version("m", f"{run.artifact_uri}/model", run.run_id)
    for turn in range(6):
        version = str(turn % 2 + 1)
        clients[turn % 2].set_registered_model_alias("m", "champion", version)
        assert clients[(turn + 1) % 2].get_model_version_by_alias("m", "champion").version == version


def test_artifacts_are_read_from_the_other(clients, pair, tmp_path):
    run = clients[0].create_run("0").info
    clients[0].log_text(run.run_id, "from a", "a.txt")
    clients[1].log_text(run.run_id, "from b", "b.txt")
    for server in pair:
        for name in "ab":
            path = f"{run.artifact_uri.removeprefix('mlflow-artifacts:')}/{name}.txt"
            assert requests.get(f"{server.address}/api/2.0/mlflow-artifacts/artifacts{path}").text == f"from {name}"


def test_an_upload_in_parts_may_go_through_both(clients, pair):
    run = clients[0].create_run("0").info
    root = run.artifact_uri.removeprefix("mlflow-artifacts:/")
    api = "/api/2.0/mlflow-artifacts"
    begun = requests.post(f"{pair[0].address}{api}/mpu/create/{root}", json={"path": "big.bin", "num_parts": 2}).json()
    parts = []
    for credential, content in zip(begun["credentials"], ("one ", "two"), strict=True):
        sent = requests.put(credential["url"].replace(pair[0].address, pair[1].address), data=content)
        parts.append({"part_number": credential["part_number"], "etag": sent.headers["ETag"]})
    body = {"path": "big.bin", "upload_id": begun["upload_id"], "parts": parts}
    assert requests.post(f"{pair[1].address}{api}/mpu/complete/{root}", json=body).status_code == 200
    url = requests.get(f"{pair[1].address}{api}/presigned/{root}/big.bin").json()["url"]
    assert requests.get(url.replace(pair[1].address, pair[0].address)).text == "one two"


def test_a_killed_server_takes_nothing_with_it_that_it_had_acknowledged(clients, pair):
    run = clients[0].create_run("0").info.run_id
    acknowledged = [0, 0]

    def burst(which):
        for number in range(400):
            body = {"run_id": run, "metrics": [{"key": f"k{which}-{i}", "value": number, "timestamp": number, "step": number} for i in range(METRICS)]}
            try:
                answer = requests.post(f"{pair[which].address}/api/2.0/mlflow/runs/log-batch", json=body, timeout=30)
            except requests.ConnectionError:
                return
            assert answer.status_code == 200, answer.text
            acknowledged[which] = number + 1
            if which == 0 and number == 100:
                pair[0].kill()

    together(burst)
    assert acknowledged[0] == 101 and acknowledged[1] == 400
    for server in (1, 0):
        if server == 0:
            pair[0].start()
        for which, count in enumerate(acknowledged):
            for key in (f"k{which}-0", f"k{which}-{METRICS - 1}"):
                steps = [point.step for point in clients[server].get_metric_history(run, key)]
                # The call under way at the kill may be there as well, unacknowledged.
                assert steps[:count] == list(range(count)) and len(steps) <= count + 1
