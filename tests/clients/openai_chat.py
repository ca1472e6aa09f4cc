"""What OpenAI's stock client does with a gateway, each check by itself.

    python openai_chat.py http://127.0.0.1:PORT MODEL  →  one JSON object of check: "" or what went wrong
"""

import json
import sys
import time

import openai

CHECKS = {}
TOLD = [{"role": "user", "content": "say something slowly"}]


def check(function):
    CHECKS[function.__name__] = function
    return function


@check
def lists_models(client, model):
    assert model in [m.id for m in client.models.list()]
    assert client.models.retrieve(model).id == model


@check
def chats(client, model):
    answer = client.chat.completions.create(model=model, messages=TOLD)
    assert answer.choices[0].message.content.startswith("w0 w1"), answer


@check
def streams_piece_by_piece(client, model):
    begun, times, text = time.monotonic(), [], ""
    for chunk in client.chat.completions.create(model=model, messages=TOLD, stream=True):
        times.append(time.monotonic() - begun)
        text += chunk.choices[0].delta.content or ""
    assert text.split() == [f"w{i}" for i in range(10)], text
    # One piece takes 0.3 s: whoever waited for all of them would give them together at the end.
    assert times[0] < 1.0 and times[-1] > 2.5 and times[-1] - times[0] > 2.0, times


@check
def completes(client, model):
    pieces = client.completions.create(model=model, prompt="go", stream=True)
    assert len(list(pieces)) == 10


@check
def embeds(client, model):
    assert client.embeddings.create(model=model, input="four", encoding_format="float").data[0].embedding == [4.0, 0.5]


@check
def says_which_models_there_are(client, model):
    try:
        client.chat.completions.create(model="nobody", messages=TOLD)
    except openai.NotFoundError as error:
        assert error.code == "model_not_found" and "nobody" in error.message, error
    else:
        raise AssertionError("an unknown model was answered")


@check
def refuses_a_body_without_a_model(client, model):
    try:
        client.post("/chat/completions", body={"messages": TOLD}, cast_to=object)
    except openai.BadRequestError as error:
        assert "model" in error.message, error
    else:
        raise AssertionError("it was answered")


@check
def tells_the_prediction(client, model):
    raw = client.chat.completions.with_raw_response.create(model=model, messages=TOLD, stream=True)
    assert raw.headers["x-lockgate-prediction-id"] and raw.headers["x-lockgate-release"], raw.headers
    assert raw.headers["content-type"].startswith("text/event-stream")
    raw.parse().close()


def main(gateway, model):
    found = {}
    for name, function in CHECKS.items():
        for base in ("/v1", "/openai/v1"):
            client = openai.OpenAI(base_url=gateway + base, api_key="none", max_retries=0, timeout=30)
            try:
                function(client, model)
                found[f"{name} {base}"] = ""
            except Exception as error:
                found[f"{name} {base}"] = f"{type(error).__name__}: {error}"
    print(json.dumps(found))


main(*sys.argv[1:])
