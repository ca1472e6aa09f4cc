"""From a training script to a prediction that can be explained, by the commands that the quickstart tells."""

import json

from conftest import post, wait_for


def rows(project):
    release = project.json("release", "show", "latest")["manifest"]
    return [column["name"] for column in release["feature_schema"]["inputs"]]


def infer(project, values, unit="case-1"):
    body = {"inputs": [{"name": "features", "shape": [1, len(values)], "datatype": "FP32", "data": values}]}
    return post(f"{project.gateway('production')}/v2/models/tumour/infer", body, {"X-Case-Id": unit})


def test_stages_whose_inputs_did_not_change_are_not_run_again(project, released):
    assert "nothing changed" in project.ok("run")


def test_a_release_made_again_is_the_same_release(project, released):
    again = project.json("release", "create", "tumour@candidate")
    assert again["digest"] == released
    assert again["existed"] is True


def test_a_release_serves_after_its_gates(project, serving):
    status, headers, body = infer(project, [1.0] * len(rows(project)))
    assert status == 200, body
    assert 0.0 <= json.loads(body)["outputs"][0]["data"][0] <= 1.0
    lower = {name.lower(): value for name, value in headers.items()}
    assert serving[7:].startswith(lower["x-lockgate-release"])


def test_a_prediction_is_traced_to_release_run_code_and_data(project, serving):
    status, headers, _ = infer(project, [2.0] * len(rows(project)), unit="case-trace")
    assert status == 200
    prediction = {name.lower(): value for name, value in headers.items()}["x-lockgate-prediction-id"]
    trace = wait_for("the prediction in the log", lambda: project.json("trace", prediction, codes=(0, 1)))
    assert trace["release"]["digest"] == serving
    assert len(trace["release"]["manifest"]["code"]["commit"]) == 40
    assert trace["run"]["params"]["C"] == "0.1"
    assert trace["prediction"]["unit"] == "case-trace"


def test_the_audit_log_verifies_and_tells_what_served(project, serving):
    audit = project.json("audit", "verify")
    assert audit["chain_ok"] and audit["tables_ok"], audit
    history = project.json("history", "production")
    assert history[-1]["serving"][0]["release"] == serving


def test_why_names_gates_and_people(project, serving):
    text = project.ok("why", "--env", "production")
    assert "gate" in text and "alice@example.com" in text


def test_what_serves_is_not_promoted_again(project, serving):
    done = project.run("promote", serving[7:19], "--env", "production")
    assert done.returncode == 1
    assert "serves `production` already" in done.stderr


def test_an_environment_can_not_open_another_one_s_bytes(project, serving):
    """A gate's program runs inside its agent's fence: it tries to read the other environment's key."""
    own = project.state / "env/production/key.pem"
    other = project.state / "env/dev/key.pem"
    assert own.is_file() and other.is_file()
    text = (project.folder / "lockgate.toml").read_text()
    gate = f'[gate.peek]\nkind = "command"\nrun = "cat {own} > /dev/null && cat {other}"\n'
    (project.folder / "lockgate.toml").write_text(
        text.replace("gates = { parity = {}, quality = {} }", "gates = { parity = {}, quality = {}, peek = {} }") + gate
    )
    try:
        (project.folder / "note.txt").write_text("a new file makes no new release; a new commit does\n")
        project.ok("run")
        release = project.json("release", "create", "tumour@candidate")["digest"]
        done = project.run("promote", release[7:19], "--env", "production", "--wait")
        view = project.json("why", "--env", "production")["promotion"]
        peek = next(g for g in view["gates"] if g["gate"] == "peek") if view["gates"] else None
        if done.returncode == 1:
            # The same release serves already: the configuration alone decides then.
            assert "already" in done.stderr
        else:
            assert done.returncode == 3, done.stdout + done.stderr
            assert peek["outcome"] == "fail"
            assert "Permission denied" in project.ok("logs", "gate", "peek")
    finally:
        (project.folder / "lockgate.toml").write_text(text)
        (project.folder / "note.txt").unlink(missing_ok=True)
