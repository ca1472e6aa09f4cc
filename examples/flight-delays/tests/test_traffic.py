"""The traffic generator's order, its requests and its judgement of answers."""

import argparse
import socketserver
import threading

import pytest

from traffic import Connection, in_order, is_finite


def test_flights_go_day_by_day_unless_told():
    assert in_order([6, 6, 7], rotate=False, seed=None) == [0, 1, 2]


def test_rotating_months_takes_one_of_each_in_turn():
    assert in_order([6, 6, 6, 7, 8, 8], rotate=True, seed=None) == [0, 3, 4, 1, 5, 2]


def test_a_seed_shuffles_the_same_way_each_time():
    once = in_order([6] * 50, rotate=False, seed=7)
    assert once == in_order([6] * 50, rotate=False, seed=7) != list(range(50))
    assert sorted(once) == list(range(50))


def test_only_finite_numbers_are_a_good_answer():
    assert is_finite(b'{"outputs": [{"data": [0.5]}]}')
    for bad in [
        b"",
        b"{}",
        b'{"outputs": []}',
        b'{"outputs": [{"data": [NaN]}]}',
        b'{"outputs": [{"data": [null]}]}',
        b'{"outputs": [{"data": ["x"]}]}',
    ]:
        assert not is_finite(bad)


class Gateway(socketserver.StreamRequestHandler):
    """Keeps what it is sent; answers a body of `close` and lets go, drops the connection at `drop`."""

    def handle(self):
        self.server.connections += 1
        while head := self.rfile.readline():
            while (line := self.rfile.readline()) != b"\r\n":
                head += line.lower()
            body = self.rfile.read(int(head.split(b"content-length: ")[1].split()[0]))
            self.server.requests.append((head, body))
            if body == b"drop":
                return
            last = b"connection: close\r\n" if body == b"close" else b""
            self.wfile.write(b"HTTP/1.1 503 Service Unavailable\r\n" + last + b"Content-Length: 4\r\n\r\nbusy")
            if last:
                return


@pytest.fixture
def gateway():
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Gateway) as server:
        server.daemon_threads, server.requests, server.connections = True, [], 0
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        yield server
        server.shutdown()


def test_a_connection_is_kept_until_the_gateway_closes_it_and_repeats_nothing(gateway):
    url = "http://127.0.0.1:%d/base/" % gateway.server_address[1]
    connection = Connection(argparse.Namespace(url=url, model="delay", header="X-Flight-Id", timeout=5.0))
    for body in [b"one", b"close", b"two"]:
        assert connection.ask("UA1", body) == (503, b"busy")
    with pytest.raises((OSError, ValueError)):
        connection.ask("UA1", b"drop")
    connection.close()
    assert [body for _, body in gateway.requests] == [b"one", b"close", b"two", b"drop"]
    assert gateway.connections == 2
    head = gateway.requests[0][0]
    assert head.startswith(b"POST /base/v2/models/delay/infer HTTP/1.1\r\n")
    assert b"x-flight-id: ua1\r\n" in head
