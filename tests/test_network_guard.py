"""The guard of conftest.py: a test that reaches for another machine fails and says so."""

import socket
import threading
import urllib.request

import pytest

# An address reserved for documentation (RFC 5737).
ELSEWHERE = "192.0.2.1"


def test_a_connection_to_another_machine_is_rejected_by_name() -> None:
    with socket.socket() as client, pytest.raises(RuntimeError, match=r"192\.0\.2\.1.*download nothing"):
        client.connect((ELSEWHERE, 80))


def test_a_download_is_rejected_before_its_name_is_looked_up() -> None:
    with pytest.raises(RuntimeError, match=r"corpus\.invalid"):
        urllib.request.urlopen("http://corpus.invalid/audio.zip")


def test_a_server_on_this_machine_is_reached() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        answer = threading.Thread(target=lambda: server.accept()[0].close())
        answer.start()
        with socket.create_connection(("localhost", server.getsockname()[1])) as client:
            assert client.recv(1) == b""
        answer.join()
