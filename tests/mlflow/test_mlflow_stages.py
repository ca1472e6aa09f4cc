"""MLflow's stages, for old clients: labels on a server that carries no project."""

import pytest
from mlflow import MlflowException


@pytest.fixture
def versions(client, request):
    name = request.node.name
    client.create_registered_model(name)
    return name, [client.create_model_version(name, "s3://bucket/model").version for _ in range(3)]


def stages(client, name):
    return {v.version: v.current_stage for v in client.search_model_versions(f"name = '{name}'")}


def test_versions_move_between_stages_and_the_newest_of_each_is_found(client, versions):
    name, (one, two, three) = versions
    assert client.transition_model_version_stage(name, one, "production").current_stage == "Production"
    client.transition_model_version_stage(name, two, "Staging")
    newest = {v.current_stage: v.version for v in client.get_latest_versions(name)}
    assert newest == {"Production": one, "Staging": two, "None": three}
    assert [v.version for v in client.get_latest_versions(name, ["Production"])] == [one]
    moved = client.transition_model_version_stage(name, two, "Production", archive_existing_versions=True)
    assert moved.current_stage == "Production"
    assert stages(client, name) == {one: "Archived", two: "Production", three: "None"}
    client.rename_registered_model(name, f"{name} renamed")
    assert stages(client, f"{name} renamed")[two] == "Production"


def test_stages_that_there_are_not_are_refused_as_stock_refuses_them(client, versions):
    name, (one, *_) = versions
    with pytest.raises(MlflowException, match="Invalid Model Version stage: Live") as wrong:
        client.transition_model_version_stage(name, one, "Live")
    assert wrong.value.error_code == "INVALID_PARAMETER_VALUE"
    with pytest.raises(MlflowException, match="not an Active stage"):
        client.transition_model_version_stage(name, one, "Archived", archive_existing_versions=True)
    with pytest.raises(MlflowException, match="not found"):
        client.transition_model_version_stage(name, "99", "Staging")
    assert set(stages(client, name).values()) == {"None"}
