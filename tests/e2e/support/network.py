"""Servers that sessions lead to, and commands that serve until they are told."""

import json
import socket
import subprocess
import threading
from contextlib import contextmanager, suppress

from .demo import PATIENCE, eventually


@contextmanager
def server(serve):
    """A TCP server on a free port; `serve` gets every connection, on a thread of its own."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=handle, args=(connection,), daemon=True).start()

        def handle(connection):
            # Whoever is reset by a test that ends has nothing more to say.
            with connection, suppress(OSError):
                serve(connection)

        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def echo(connection):
    """Says what it hears, until it hears no more."""
    while data := connection.recv(65536):
        connection.sendall(data)


def answer_at_end(connection):
    """Says how much it heard, once it hears no more."""
    count = 0
    while data := connection.recv(65536):
        count += len(data)
    connection.sendall(f"heard {count}".encode())


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), PATIENCE)


def say(port: int, data: bytes, end: bool = False) -> bytes:
    """Sends data over a connection of its own; gives as much back, or all until its end."""
    with connect(port) as connection:
        sender = threading.Thread(target=send, args=(connection, data, end), daemon=True)
        sender.start()
        got = bytearray()
        while end or len(got) < len(data):
            piece = connection.recv(65536)
            if not piece:
                break
            got += piece
        sender.join(PATIENCE)
        return bytes(got)


def send(connection: socket.socket, data: bytes, end: bool):
    connection.sendall(data)
    if end:
        connection.shutdown(socket.SHUT_WR)


class Serving:
    """`postern forward … --json`, and what it has said so far."""

    def __init__(self, demo, *words, profile: str = "alice"):
        command = ("postern", "forward", *map(str, words), "--json", "--profile", profile)
        self.process = subprocess.Popen(
            command, env=demo.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.said = []
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.said.append(json.loads(line))

    def event(self, name: str, **about) -> dict:
        """The first such event, once it is there."""

        def found():
            return next((e for e in list(self.said) if e["event"] == name and about.items() <= e.items()), None)

        def look():
            event = found()
            assert event or self.process.poll() is None, f"{self.said} {self.process.stderr.read()}"
            return event

        return eventually(look, f"the event {name} {about}")

    def port(self, **about) -> int:
        """The port that it listens on."""
        return int(self.event("listening", **about)["address"].rpartition(":")[2])

    def stop(self, number: int) -> int:
        """Sends a signal; the exit code."""
        self.process.send_signal(number)
        code = self.process.wait(PATIENCE)
        self.reader.join(PATIENCE)
        self.process.stdout.close()
        self.process.stderr.close()
        return code
