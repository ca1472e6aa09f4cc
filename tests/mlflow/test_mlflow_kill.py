"""A server that is killed in the middle of a burst: every acknowledged call is there after its restart."""

import itertools
import threading

import engines
import mlflow
import pytest
import requests
from engines import Server

WRITERS = 4
METRICS = 25


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path / "home", *engines.database()).start()
    yield server
    server.stop()


def test_every_acknowledged_batch_is_there_after_a_kill(server):
    client = mlflow.MlflowClient(server.address)
    runs = [client.create_run("0").info.run_id for _ in range(WRITERS)]
    for _ in range(3):
        survive_a_kill(server, client, runs)


def survive_a_kill(server, client, runs):
    first = {run: len(client.get_metric_history(run, "m0")) for run in runs}
    acknowledged, enough = dict(first), threading.Event()

    def burst(run):
        with requests.Session() as session:
            for number in itertools.count(first[run]):
                metrics = [{"key": f"m{i}", "value": number, "timestamp": number, "step": number} for i in range(METRICS)]
                body = {"run_id": run, "metrics": metrics, "tags": [{"key": "last", "value": str(number)}]}
                try:
                    answer = session.post(f"{server.address}/api/2.0/mlflow/runs/log-batch", json=body, timeout=30)
                except requests.RequestException:
                    return
                assert answer.status_code == 200, answer.text
                acknowledged[run] = number + 1
                if number == first[run] + 20:
                    enough.set()

    threads = [threading.Thread(target=burst, args=[run]) for run in runs]
    for thread in threads:
        thread.start()
    assert enough.wait(60)
    server.kill()
    for thread in threads:
        thread.join(60)
    server.start()
    for run in runs:
        count = acknowledged[run]
        for key in ("m0", f"m{METRICS - 1}"):
            steps = [point.step for point in client.get_metric_history(run, key)]
            # A call is kept whole or not at all; the one under way at the kill may be kept.
            assert steps in (list(range(count)), list(range(count + 1))), (count, steps[-3:])
        assert client.get_run(run).data.tags["last"] == str(len(steps) - 1)
