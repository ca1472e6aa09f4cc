"""What KServe's stock clients do with an Open Inference Protocol server, each check by itself.

    python oip_kserve.py http://127.0.0.1:PORT  →  one JSON object of check: "" or what went wrong
"""

import asyncio
import json
import logging
import sys
from urllib.parse import urlsplit

import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig

logging.disable(logging.CRITICAL)

ROWS = np.array([[1, 2, 3, 4], [0.5, 0, 0, 0]], np.float32)
WANT = np.array([[30], [0.5]], np.float32)
CHECKS = {}


def check(function):
    CHECKS[function.__name__] = function
    return function


def request(model, binary, request_id="q-7"):
    given = InferInput("x", list(ROWS.shape), "FP32")
    given.set_data_from_numpy(ROWS, binary_data=binary)
    return InferRequest(model, [given], request_id=request_id)


def right(response):
    np.testing.assert_allclose(response.outputs[0].as_numpy(), WANT)
    assert response.id == "q-7" and response.model_name == "toy", response
    return response


async def refused(call, word):
    try:
        await call
    except Exception as error:
        assert word in str(error) and " 5" not in str(error)[:40] and "INTERNAL" not in str(error), error
        return
    raise AssertionError("it was answered")


@check
async def rest_server_is_live(rest, grpc, base):
    assert await rest.is_server_live(base) is True


@check
async def rest_server_is_ready(rest, grpc, base):
    assert await rest.is_server_ready(base) is True


@check
async def rest_model_is_ready(rest, grpc, base):
    assert await rest.is_model_ready(base, "toy") is True


@check
async def rest_infer(rest, grpc, base):
    right(await rest.infer(base, request("toy", False), model_name="toy"))
    right(await rest.infer(base, request("toy", True), model_name="toy"))
    await refused(rest.infer(base, request("nobody", True), model_name="nobody"), "404")


@check
async def rest_infer_a_dictionary(rest, grpc, base):
    body = {"id": "q-7", "inputs": [{"name": "x", "shape": [2, 4], "datatype": "FP32", "data": ROWS.ravel().tolist()}]}
    right(await rest.infer(base, body, model_name="toy"))


@check
async def grpc_server_is_live(rest, grpc, base):
    assert await grpc.is_server_live() is True


@check
async def grpc_server_is_ready(rest, grpc, base):
    assert await grpc.is_server_ready() is True


@check
async def grpc_model_is_ready(rest, grpc, base):
    assert await grpc.is_model_ready("toy") is True


@check
async def grpc_infer(rest, grpc, base):
    right(await grpc.infer(request("toy", True)))
    right(await grpc.infer(request("toy", False)))
    await refused(grpc.infer(request("nobody", True)), "NOT_FOUND")


async def main():
    base = sys.argv[1]
    rest, grpc = InferenceRESTClient(RESTConfig(protocol="v2")), InferenceGRPCClient(urlsplit(base).netloc)
    outcome = {}
    for name, function in CHECKS.items():
        try:
            await function(rest, grpc, base)
            outcome[name] = ""
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what went wrong
            outcome[name] = f"{type(error).__name__}: {error}"[:500]
    await rest.close()
    await grpc.close()
    print(json.dumps(outcome, indent=1))


asyncio.run(main())
