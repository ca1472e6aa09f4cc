"""A server that speaks as much of OpenAI's API as a test needs. Its words are its weights: `words.json` beside it.

It answers in ten words, each a piece of a stream: in a hundred where it is told something long, at 0.3 s a word where it is told
to go slowly, and with a megabyte behind each word where it is told to be verbose. Weights with the fault `break` break off, those with `error` say in the stream that they failed.
"""

import argparse
import json
import os
import socket
import socketserver
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import sniffio  # of its requirements, and of nothing else here

WEIGHTS = json.loads((Path(__file__).parent / "words.json").read_text())


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.reply(200, {"object": "list", "data": [{"id": NAME, "object": "model", "sniffio": sniffio.__version__}]})

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if asked["model"] != NAME:
            return self.reply(404, {"error": {"message": f"no model {asked['model']}"}})
        if self.path == "/v1/embeddings":
            data = [{"object": "embedding", "index": 0, "embedding": [float(len(asked["input"])), 0.5]}]
            return self.reply(200, {"object": "list", "model": NAME, "data": data, "usage": {"prompt_tokens": 1, "total_tokens": 1}})
        text = asked["prompt"] if self.path == "/v1/completions" else asked["messages"][-1]["content"]
        if "hang" in text:
            time.sleep(60)
        if asked.get("stream"):
            return self.stream(text)
        words = " ".join(w for w, _ in self.words(text))
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": words}}
        self.reply(200, {"id": "x", "object": "chat.completion", "created": 1, "model": NAME, "choices": [choice]})

    def words(self, text):
        """Its words, and how long each takes."""
        pause = 0.3 if "slowly" in text else 0.01
        count = 100 if "long" in text else 10
        return [(f"{WEIGHTS['word']}{i}", pause) for i in range(count)]

    def stream(self, text):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for number, (word, pause) in enumerate(self.words(text)):
                if number == 3 and WEIGHTS["fault"] == "break":
                    self.close_connection = True
                    return self.connection.shutdown(socket.SHUT_RDWR)
                if number == 3 and WEIGHTS["fault"] == "error":
                    self.chunk(json.dumps({"error": {"message": "out of memory"}}))
                    break
                self.chunk(self.event(word, "x" * 2**20 if "verbosely" in text else ""))
                time.sleep(pause)
            self.chunk("[DONE]")
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            print("the client went away", flush=True)
            self.close_connection = True

    def event(self, word, more=""):
        choice = {"index": 0, "delta": {"content": word + " " + more}, "finish_reason": None}
        chunk = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": NAME, "choices": [choice]}
        return json.dumps(chunk)

    def chunk(self, data):
        text = f"data: {data}\n\n".encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(text), text))
        self.wfile.flush()

    def reply(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass

    def address_string(self):
        return "gateway"


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 64


parser = argparse.ArgumentParser()
parser.add_argument("--socket")
parser.add_argument("--name")
args = parser.parse_args()
NAME = args.name
print("serving", NAME, "with", WEIGHTS, "as", os.environ.get("GREETING"), flush=True)
Server(args.socket, Handler).serve_forever()
