"""`postern forward`: ports of a machine and of its network, here."""

import hashlib
import random
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from support.demo import PATIENCE
from support.network import Serving, answer_at_end, connect, echo, free_port, say, server

MEGABYTE = 1 << 20


@pytest.fixture
def echoing():
    with server(echo) as port:
        yield port


@pytest.fixture
def forward(demo):
    """Starts forwards; none survives the test."""
    started = []

    def start(*words, **options) -> Serving:
        started.append(Serving(demo, *words, **options))
        return started[-1]

    yield start
    for serving in started:
        if serving.process.poll() is None:
            serving.stop(signal.SIGKILL)


def test_a_port_of_the_machine_is_here_until_ctrl_c(demo, forward, echoing):
    serving = forward("web-dev", f"0:{echoing}")
    listening = serving.event("listening")
    assert listening["target"] == demo.target("web-dev") and listening["port"] == echoing
    assert say(serving.port(), b"hello\n") == b"hello\n"
    assert serving.stop(signal.SIGINT) == 0
    assert demo.ended(listening["session"])["state"] == "Terminated"
    with pytest.raises(OSError):
        connect(int(listening["address"].rpartition(":")[2]))


def test_what_it_says_to_people_is_one_line(demo, echoing):
    import pexpect

    child = pexpect.spawn(
        "postern", ["forward", "web-dev", f"0:{echoing}", "--profile", "alice"], env=demo.env, timeout=PATIENCE,
        encoding="utf-8",
    )
    child.expect(rf"127\.0\.0\.1:(\d+) is port {echoing} of {demo.target('web-dev')} \(session (\S+)\); Ctrl-C ends it\r\n")
    assert say(int(child.match.group(1)), b"\n") == b"\n"
    child.sendintr()
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


def test_many_connections_carry_their_own_bytes(forward, echoing):
    port = forward("web-dev", f"0:{echoing}").port()
    texts = [random.Random(seed).randbytes(200_000 + seed) for seed in range(12)]
    with ThreadPoolExecutor(len(texts)) as pool:
        assert list(pool.map(lambda text: say(port, text), texts)) == texts


def test_sixteen_megabytes_arrive_as_they_were(forward, echoing):
    sent = random.Random(1).randbytes(16 * MEGABYTE)
    got = say(forward("web-dev", f"0:{echoing}").port(), sent)
    assert hashlib.sha256(got).digest() == hashlib.sha256(sent).digest()


def test_the_answer_to_a_closed_direction_still_arrives(forward):
    with server(answer_at_end) as port:
        # smux cannot close one direction: the far side only hears of the whole end.
        serving = forward("web-dev", f"0:{port}")
        with connect(serving.port()) as connection:
            connection.sendall(b"x" * 1000)
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(PATIENCE)
            assert connection.recv(100) in (b"heard 1000", b"")


def test_a_program_that_does_not_read_does_not_end_the_others(forward, echoing):
    port = forward("web-dev", f"0:{echoing}").port()
    with connect(port) as lazy:
        flood = threading.Thread(target=flooding, args=(lazy,), daemon=True)
        flood.start()
        lazy.settimeout(0.5)
        assert say(port, b"still here") == b"still here"
    flood.join(PATIENCE)
    assert say(port, b"and now") == b"and now"


def flooding(connection: socket.socket):
    try:
        connection.sendall(b"z" * MEGABYTE)
    except OSError:
        pass


def test_a_refused_destination_is_a_sentence_with_host_and_port(demo, forward):
    port = free_port()
    serving = forward("web-dev", f"0:{port}")
    with connect(serving.port()) as connection:
        connection.settimeout(PATIENCE)
        assert connection.recv(1) == b""
    refused = serving.event("refused")
    assert (refused["port"], refused["target"]) == (port, demo.target("web-dev"))
    assert serving.process.poll() is None


def test_hosts_that_the_machine_reaches(forward, echoing):
    serving = forward("web-dev", f"0:{echoing}", "--remote-host", "localhost")
    assert serving.event("listening")["host"] == "localhost"
    assert say(serving.port(), b"over there") == b"over there"


def test_several_ports_are_several_sessions(demo, forward, echoing):
    with server(echo) as other:
        serving = forward("web-dev", f"0:{echoing}", f"0:{other}")
        for port in (echoing, other):
            assert say(serving.port(port=port), b"hi") == b"hi"
        sessions = {event["session"] for event in serving.said if event["event"] == "listening"}
        assert len(sessions) == 2
        assert serving.stop(signal.SIGTERM) == 128 + signal.SIGTERM
        for session in sessions:
            demo.ended(session)


@pytest.mark.parametrize(
    ("words", "profile", "sentence"),
    [
        (("db-prod", "5432"), "alice", "AccessDeniedException"),
        (("nowhere", "80"), "alice", "no machine that you may see is called nowhere"),
        (("tag:env=nothing", "80"), "alice", "no machines that you may see have the tags env=nothing"),
        (("web-dev", "80"), "bob", "AccessDeniedException"),
    ],
)
def test_a_denial_is_a_sentence_and_255(demo, words, profile, sentence):
    target, port = words
    done = demo.run("postern", "forward", target, f"0:{port}", profile=profile)
    assert done.returncode == 255, done.stderr
    assert sentence in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_port_that_is_taken_is_named(demo, echoing):
    done = demo.run("postern", "forward", "web-dev", f"{echoing}:80", profile="alice")
    assert done.returncode == 255
    assert f"cannot listen on 127.0.0.1:{echoing}" in done.stderr


def socks(proxy: int, host: str, port: int) -> tuple[int, socket.socket]:
    """Asks a SOCKS5 proxy for a connection; the answer's code and the connection."""
    connection = connect(proxy)
    connection.sendall(b"\x05\x01\x00")
    assert connection.recv(2) == b"\x05\x00"
    connection.sendall(b"\x05\x01\x00\x03" + bytes([len(host)]) + host.encode() + port.to_bytes(2))
    answer = connection.recv(10, socket.MSG_WAITALL)
    return answer[1], connection


def test_a_socks_proxy_opens_a_session_for_every_destination(demo, forward, echoing):
    with server(echo) as other:
        serving = forward("web-dev", "--socks", "0")
        proxy = serving.port()
        for port, text in ((echoing, b"one"), (other, b"two"), (echoing, b"three")):
            code, connection = socks(proxy, "localhost", port)
            with connection:
                assert code == 0
                connection.sendall(text)
                assert connection.recv(10) == text
        begun = [event for event in serving.said if event["event"] == "begun"]
        assert sorted(event["port"] for event in begun) == sorted([echoing, other])
        assert serving.stop(signal.SIGINT) == 0
        for event in begun:
            demo.ended(event["session"])


def test_a_socks_proxy_says_what_is_denied(forward):
    serving = forward("db-prod", "--socks", "0")
    code, connection = socks(serving.port(), "localhost", 80)
    connection.close()
    assert code == 2
    failed = serving.event("failed")
    assert (failed["host"], failed["port"]) == ("localhost", 80) and "AccessDenied" in failed["text"]
    assert serving.stop(signal.SIGINT) == 0


def test_a_socks_proxy_is_for_this_machine_only(demo):
    done = demo.run("postern", "forward", "web-dev", "--socks", "0", "--bind", "0.0.0.0", profile="alice")
    assert done.returncode == 255 and "this machine only" in done.stderr
