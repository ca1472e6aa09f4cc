"""What NVIDIA's stock client does with an Open Inference Protocol server: HTTP (and gRPC) checks, each by itself.

    python oip_triton.py http://127.0.0.1:PORT  →  one JSON object of check: "" or what went wrong

tests/e2e/test_oip_clients.py runs it, in an environment of its own: this client and KServe's register the same messages.
"""

import json
import queue
import sys
from urllib.parse import urlsplit

import numpy as np
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient

ROWS = np.array([[1, 2, 3, 4], [0.5, 0, 0, 0]], np.float32)
WANT = np.array([[30], [0.5]], np.float32)
TEXTS = np.array([["é€"], [""]], dtype=object)
HALF = np.array([[1.5, -0.1], [np.inf, 65504]], np.float16)
WIDE = np.linspace(-1, 1, 2 * 1024, dtype=np.float32).reshape(2, 1024)
CHECKS = {}


def check(function):
    CHECKS[function.__name__] = function
    return function


def tensor(lib, name, array, kind, **how):
    made = lib.InferInput(name, list(array.shape), kind)
    made.set_data_from_numpy(array, **how)
    return made


def toy(lib, client, binary_in=None, rows=ROWS, outputs=None, **how):
    form = {} if binary_in is None else {"binary_data": binary_in}
    result = client.infer("toy", [tensor(lib, "x", rows, "FP32", **form)], outputs=outputs, **how)
    np.testing.assert_allclose(result.as_numpy("y"), WANT, rtol=1e-6)
    return result


def echo(lib, client, **how):
    kinds = [("half", HALF, "FP16"), ("text", TEXTS, "BYTES"), ("wide", WIDE, "FP32")]
    result = client.infer("echo", [tensor(lib, *kind) for kind in kinds], **how)
    assert result.as_numpy("half_out").tobytes() == HALF.tobytes()
    assert [t.decode() if isinstance(t, bytes) else t for t in result.as_numpy("text_out").ravel()] == ["é€", ""]
    assert result.as_numpy("wide_out").tobytes() == WIDE.tobytes()
    return result


def refused(call, *words):
    try:
        call()
    except (httpclient.InferenceServerException, grpcclient.InferenceServerException) as error:
        assert all(word in str(error) for word in words), error
        # No mistake of the client's is the server's.
        assert not (error.status() or "").startswith("5") and "INTERNAL" not in (error.status() or ""), error
        return error
    raise AssertionError("it was answered")


@check
def http_server_is_live_and_ready(http, grpc):
    assert http.is_server_live() and http.is_server_ready()


@check
def http_model_is_ready_and_another_is_not(http, grpc):
    assert http.is_model_ready("toy") and http.is_model_ready("toy", "1")
    assert not http.is_model_ready("toy", "9") and not http.is_model_ready("nobody")


@check
def http_server_metadata(http, grpc):
    found = http.get_server_metadata()
    assert found["name"] == "lockgate" and "binary_tensor_data" in found["extensions"], found


@check
def http_model_metadata(http, grpc):
    for found in (http.get_model_metadata("toy"), http.get_model_metadata("toy", "1")):
        assert found["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}], found
    assert {i["datatype"] for i in http.get_model_metadata("echo")["inputs"]} == {"FP16", "BYTES", "FP32"}


@check
def http_model_config(http, grpc):
    found = http.get_model_config("echo")
    assert found["name"] == "echo" and [i["data_type"] for i in found["input"]] == ["TYPE_FP16", "TYPE_STRING", "TYPE_FP32"]


@check
def http_statistics_count(http, grpc):
    before = http.get_inference_statistics("toy")["model_stats"][0]
    toy(httpclient, http)
    after = http.get_inference_statistics("toy", "1")["model_stats"][0]
    assert after["inference_count"] >= before["inference_count"] + 2, after
    success = after["inference_stats"]["success"]
    assert success["count"] > before["inference_stats"]["success"]["count"] and success["ns"] > 0, after
    assert 0 < after["inference_stats"]["compute_infer"]["ns"] <= success["ns"] and after["last_inference"] > 0, after
    assert {s["name"] for s in http.get_inference_statistics()["model_stats"]} == {"toy", "echo"}


@check
def http_repository_index(http, grpc):
    entry = {"name": "toy", "version": "1", "state": "READY", "reason": ""}
    assert entry in http.get_model_repository_index()


@check
def http_loading_is_refused(http, grpc):
    refused(lambda: http.load_model("toy"), "promotions")
    refused(lambda: http.unload_model("toy"), "promotions")
    assert http.is_model_ready("toy")


@check
def http_infer_json(http, grpc):
    outputs = [httpclient.InferRequestedOutput("y", binary_data=False)]
    toy(httpclient, http, binary_in=False, outputs=outputs)


@check
def http_infer_binary(http, grpc):
    toy(httpclient, http, binary_in=True)


@check
def http_infer_binary_in_json_out_and_the_other_way(http, grpc):
    for given in (True, False):
        toy(httpclient, http, given, outputs=[httpclient.InferRequestedOutput("y", binary_data=not given)])


@check
def http_infer_a_version(http, grpc):
    assert toy(httpclient, http, model_version="1").get_response()["model_version"] == "1"
    refused(lambda: toy(httpclient, http, model_version="9"), "version 9")


@check
def http_infer_echoes_the_id(http, grpc):
    assert toy(httpclient, http, request_id="q-7").get_response()["id"] == "q-7"
    assert "id" not in toy(httpclient, http).get_response()


@check
def http_infer_gzip(http, grpc):
    echo(httpclient, http, request_compression_algorithm="gzip", response_compression_algorithm="gzip")


@check
def http_infer_deflate(http, grpc):
    echo(httpclient, http, request_compression_algorithm="deflate", response_compression_algorithm="deflate")


@check
def http_infer_halves_texts_and_rows(http, grpc):
    echo(httpclient, http)


@check
def http_infer_async(http, grpc):
    asked = [http.async_infer("toy", [tensor(httpclient, "x", ROWS, "FP32")]) for _ in range(8)]
    for one in asked:
        np.testing.assert_allclose(one.get_result().as_numpy("y"), WANT)


@check
def http_mistakes_are_told(http, grpc):
    refused(lambda: toy(httpclient, http, rows=ROWS[:, :3]), "[-1,4]")
    refused(lambda: http.infer("nobody", [tensor(httpclient, "x", ROWS, "FP32")]), "nobody")
    refused(lambda: http.infer("toy", [tensor(httpclient, "z", ROWS, "FP32")]), "z")
    refused(lambda: http.infer("toy", [tensor(httpclient, "x", ROWS.astype(np.float64), "FP64")]), "FP32")
    refused(lambda: toy(httpclient, http, outputs=[httpclient.InferRequestedOutput("nothing")]), "nothing")
    refused(lambda: toy(httpclient, http, outputs=[httpclient.InferRequestedOutput("y", class_count=2)]), "classification")
    refused(lambda: http.infer("echo", [tensor(httpclient, "text", np.array([[b"\xff"]], object), "BYTES")]), "UTF-8")


@check
def grpc_server_is_live_and_ready(http, grpc):
    assert grpc.is_server_live() and grpc.is_server_ready()


@check
def grpc_model_is_ready_and_another_is_not(http, grpc):
    assert grpc.is_model_ready("toy") and grpc.is_model_ready("toy", "1")
    assert not grpc.is_model_ready("toy", "9") and not grpc.is_model_ready("nobody")


@check
def grpc_server_metadata(http, grpc):
    found = grpc.get_server_metadata()
    assert found.name == "lockgate" and "binary_tensor_data" in found.extensions, found


@check
def grpc_model_metadata(http, grpc):
    found = grpc.get_model_metadata("toy", "1")
    assert (found.inputs[0].name, found.inputs[0].datatype, list(found.inputs[0].shape)) == ("x", "FP32", [-1, 4]), found
    assert list(found.versions) == ["1"] and found.platform == "onnxruntime_onnx", found
    refused(lambda: grpc.get_model_metadata("nobody"), "NOT_FOUND")


@check
def grpc_model_config(http, grpc):
    config = grpc.get_model_config("echo").config
    assert config.name == "echo" and [i.data_type for i in config.input] == [10, 13, 11], config
    assert [list(i.dims) for i in config.output] == [[-1, 2], [-1, 1], [-1, 1024]], config


@check
def grpc_statistics_count(http, grpc):
    before = grpc.get_inference_statistics("toy").model_stats[0]
    toy(grpcclient, grpc)
    after = grpc.get_inference_statistics("toy", "1").model_stats[0]
    assert after.inference_count == before.inference_count + 2 and after.last_inference > 0, after
    assert after.inference_stats.success.count == before.inference_stats.success.count + 1, after
    assert 0 < after.inference_stats.compute_infer.ns <= after.inference_stats.success.ns, after
    assert {s.name for s in grpc.get_inference_statistics().model_stats} == {"toy", "echo"}


@check
def grpc_repository_index(http, grpc):
    found = [(m.name, m.version, m.state) for m in grpc.get_model_repository_index().models]
    assert ("toy", "1", "READY") in found, found


@check
def grpc_loading_is_refused(http, grpc):
    refused(lambda: grpc.load_model("toy"), "FAILED_PRECONDITION", "promotions")
    refused(lambda: grpc.unload_model("toy"), "FAILED_PRECONDITION", "promotions")


@check
def grpc_infer(http, grpc):
    toy(grpcclient, grpc)
    toy(grpcclient, grpc, outputs=[grpcclient.InferRequestedOutput("y")])


@check
def grpc_infer_a_version(http, grpc):
    assert toy(grpcclient, grpc, model_version="1").get_response().model_version == "1"
    refused(lambda: toy(grpcclient, grpc, model_version="9"), "NOT_FOUND", "version 9")
    refused(lambda: toy(grpcclient, grpc, model_version="latest"), "NOT_FOUND", "latest")


@check
def grpc_infer_echoes_the_id(http, grpc):
    assert toy(grpcclient, grpc, request_id="q-7").get_response().id == "q-7"
    assert toy(grpcclient, grpc).get_response().id == ""


@check
def grpc_infer_packed(http, grpc):
    echo(grpcclient, grpc, compression_algorithm="gzip")
    echo(grpcclient, grpc, compression_algorithm="deflate")


@check
def grpc_infer_halves_texts_and_rows(http, grpc):
    echo(grpcclient, grpc)


@check
def grpc_infer_async(http, grpc):
    answers = queue.Queue()
    for _ in range(8):
        given = [tensor(grpcclient, "x", ROWS, "FP32")]
        grpc.async_infer("toy", given, callback=lambda result, error: answers.put((result, error)))
    for _ in range(8):
        result, error = answers.get(timeout=20)
        assert error is None, error
        np.testing.assert_allclose(result.as_numpy("y"), WANT)


@check
def grpc_infer_stream(http, grpc):
    answers = queue.Queue()
    grpc.start_stream(callback=lambda result, error: answers.put((result, error)))
    for number in range(3):
        grpc.async_stream_infer("toy", [tensor(grpcclient, "x", ROWS, "FP32")], request_id=str(number))
    grpc.async_stream_infer("nobody", [tensor(grpcclient, "x", ROWS, "FP32")])
    for number in range(3):
        result, error = answers.get(timeout=20)
        assert error is None and result.get_response().id == str(number), error
        np.testing.assert_allclose(result.as_numpy("y"), WANT)
    result, error = answers.get(timeout=20)
    assert "nobody" in str(error), error
    grpc.stop_stream()


@check
def grpc_messages_may_be_large(http, grpc):
    rows = np.ones((2_000_000, 4), np.float32)
    result = grpc.infer("toy", [tensor(grpcclient, "x", rows, "FP32")])
    assert (result.as_numpy("y") == 10).all() and result.as_numpy("y").shape == (2_000_000, 1)
    texts = np.array([["a"]] * 3, dtype=object)
    refused(lambda: grpc.infer("echo", [tensor(grpcclient, "text", texts, "BYTES")]), "half")


@check
def grpc_metadata_names_the_prediction(http, grpc):
    stub, service = grpc._client_stub, grpcclient.service_pb2  # the client itself hides an answer's metadata
    request = service.ModelInferRequest(model_name="toy", inputs=[{"name": "x", "datatype": "FP32", "shape": [1, 4]}])
    request.inputs[0].contents.fp32_contents.extend([1, 2, 3, 4])
    answer, told = stub.ModelInfer.with_call(request, metadata=[("x-request-id", "r-1"), ("x-unit", "alice")], timeout=20)
    # What was asked in typed contents is answered so.
    assert list(answer.outputs[0].contents.fp32_contents) == [30] and not answer.raw_output_contents
    metadata = dict(told.initial_metadata())
    assert len(metadata["x-lockgate-prediction-id"]) == 26 and metadata["x-lockgate-release"], metadata
    assert metadata["x-request-id"] == "r-1" and metadata["x-lockgate-model-version"] == "1", metadata


@check
def grpc_mistakes_are_told(http, grpc):
    invalid = "INVALID_ARGUMENT"
    refused(lambda: toy(grpcclient, grpc, rows=ROWS[:, :3]), invalid, "[-1,4]")
    refused(lambda: grpc.infer("nobody", [tensor(grpcclient, "x", ROWS, "FP32")]), "NOT_FOUND", "nobody")
    refused(lambda: grpc.infer("toy", [tensor(grpcclient, "z", ROWS, "FP32")]), invalid, "z")
    refused(lambda: grpc.infer("toy", [tensor(grpcclient, "x", ROWS.astype(np.float64), "FP64")]), invalid, "FP32")
    refused(lambda: toy(grpcclient, grpc, outputs=[grpcclient.InferRequestedOutput("nothing")]), invalid, "nothing")
    refused(lambda: grpc.infer("echo", [tensor(grpcclient, "text", np.array([[b"\xff"]], object), "BYTES")]), invalid, "UTF-8")
    many = np.ones((2_000_000, 4), np.float32)
    refused(lambda: toy(grpcclient, grpc, rows=many, client_timeout=0.002), "Deadline Exceeded")
    refused(lambda: toy(grpcclient, grpc, rows=np.ones((5_000_000, 4), np.float32)), "RESOURCE_EXHAUSTED")


@check
def grpc_health_is_gRPCs_own(http, grpc):
    call = grpc._channel.unary_unary("/grpc.health.v1.Health/Check")
    for service in (b"", b"inference.GRPCInferenceService", b"toy"):
        assert call((b"\n" + bytes([len(service)]) + service) if service else b"", timeout=20) == b"\x08\x01"
    try:
        call(b"\n\x03who", timeout=20)
    except Exception as error:
        assert error.code().name == "NOT_FOUND", error
    else:
        raise AssertionError("it was answered")


def main():
    address = urlsplit(sys.argv[1]).netloc
    wanted = sys.argv[2:]
    outcome = {}
    http = httpclient.InferenceServerClient(address, concurrency=8)
    grpc = grpcclient.InferenceServerClient(address)
    for name, function in CHECKS.items():
        if wanted and not any(name.startswith(w) for w in wanted):
            continue
        try:
            function(http, grpc)
            outcome[name] = ""
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what went wrong
            outcome[name] = f"{type(error).__name__}: {error}"[:500]
    http.close()
    grpc.close()
    print(json.dumps(outcome, indent=1))


if __name__ == "__main__":
    main()
