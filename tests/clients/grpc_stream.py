"""Sends messages on one gRPC stream until a line comes in: grpc_stream.py GATEWAY. Prints what came of them as JSON."""

import json
import sys
import threading
import time
from urllib.parse import urlsplit

import numpy as np
import tritonclient.grpc as triton

client = triton.InferenceServerClient(urlsplit(sys.argv[1]).netloc)
answers, over = [], threading.Event()
client.start_stream(callback=lambda result, error: answers.append((result, error)))
asked = 0


def send():
    global asked
    while not over.is_set():
        x = triton.InferInput("x", [1, 4], "FP32")
        x.set_data_from_numpy(np.array([[asked % 7 / 10, 1, 1, 1]], np.float32))
        client.async_stream_infer("toy", [x], request_id=str(asked))
        asked += 1
        time.sleep(0.01)


sender = threading.Thread(target=send)
sender.start()
while len(answers) < 20:
    time.sleep(0.01)
print("ready", flush=True)
sys.stdin.readline()
over.set()
sender.join()
end = time.monotonic() + 10
while len(answers) < asked and time.monotonic() < end:
    time.sleep(0.05)
client.stop_stream()
right = lambda result: abs(result.as_numpy("y")[0, 0] - (int(result.get_response().id) % 7 / 10 + 9)) < 1e-3  # noqa: E731
print(
    json.dumps(
        {
            "asked": asked,
            "answered": len(answers),
            "errors": sorted({str(error) for _, error in answers if error}),
            "wrong": sum(not right(result) for result, error in answers if not error),
        }
    )
)
