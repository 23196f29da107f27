"""A client behind an HTTP proxy: a real one, which opens tunnels to a gateway that has a name."""

import datetime
import socket
import threading
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from support.demo import PATIENCE
from support.network import server

# A name that only the proxy knows the way to (RFC 6761).
BEHIND = "gateway.test"


def tunnels(seen: list[str]):
    """Answers CONNECT with a tunnel to that port of this machine, and notes what it was asked."""

    def serve(client):
        request = b""
        while b"\r\n\r\n" not in request:
            piece = client.recv(4096)
            if not piece:
                return
            request += piece
        line = request.split(b"\r\n")[0].decode()
        method, authority, _ = line.split(" ")
        # The AWS CLI says HTTP/1.0 here.
        seen.append(f"{method} {authority}")
        if method != "CONNECT":
            client.sendall(b"HTTP/1.1 405 Method Not Allowed\r\ncontent-length: 0\r\n\r\n")
            return
        with socket.create_connection(("127.0.0.1", int(authority.rpartition(":")[2])), PATIENCE) as there:
            there.settimeout(None)
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=carry, args=(there, client), daemon=True)
            back.start()
            carry(client, there)
            back.join(PATIENCE)

    return serve


def carry(one: socket.socket, other: socket.socket):
    with suppress(OSError):
        while data := one.recv(65536):
            other.sendall(data)
    with suppress(OSError):
        other.shutdown(socket.SHUT_WR)


@contextmanager
def proxy():
    """A proxy on loopback: its URL, and the methods and addresses that it saw."""
    seen: list[str] = []
    with server(tunnels(seen)) as port:
        yield f"http://127.0.0.1:{port}", seen


def certificate(demo, folder: Path, names: list[str]) -> tuple[Path, Path]:
    """A certificate of the demo's own authority for these names, and its key."""
    authority = x509.load_pem_x509_certificate((demo.state / "tls/ca.pem").read_bytes())
    signer = serialization.load_pem_private_key((demo.state / "tls/ca.key").read_bytes(), None)
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])]))
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .sign(signer, hashes.SHA256())
    )
    (folder / "named.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    (folder / "named.key").write_bytes(pem)
    return folder / "named.pem", folder / "named.key"


@pytest.fixture
def named(gateways):
    """Starts a gateway that is called by a name which is not this machine's for any proxy list."""

    def start(name: str):
        return gateways(name=name, certificate=certificate)

    return start


def session(gateway, command: tuple, env: dict):
    done = gateway.run(*command, env=env, profile="alice", input="echo through-$((40+2))\nexit\n")
    assert done.returncode == 0 and "through-42" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("client", ["connect", "aws"])
def test_a_session_goes_through_the_proxy_of_the_environment(named, client):
    gateway = named(BEHIND)
    commands = {
        "connect": ("postern", "connect", "web-dev"),
        "aws": ("aws", "ssm", "start-session", "--target", gateway.target("web-dev")),
    }
    with proxy() as (url, seen):
        session(gateway, commands[client], {"HTTPS_PROXY": url, "NO_PROXY": "elsewhere.test"})
    # The sign-in, the call and the stream, and nothing to anybody else.
    assert len(seen) >= 2 and set(seen) == {f"CONNECT {BEHIND}:{gateway.port}"}, seen


@pytest.mark.parametrize("client", ["connect", "aws"])
def test_what_no_proxy_names_is_reached_straight(named, client):
    name = socket.gethostname()
    gateway = named(name)
    commands = {
        "connect": ("postern", "connect", "web-dev"),
        "aws": ("aws", "ssm", "start-session", "--target", gateway.target("web-dev")),
    }
    with proxy() as (url, seen):
        session(gateway, commands[client], {"HTTPS_PROXY": url, "NO_PROXY": f"elsewhere.test,{name}"})
        assert seen == []
        # Without the list it would have been asked.
        session(gateway, commands[client], {"HTTPS_PROXY": url, "NO_PROXY": "elsewhere.test"})
        assert f"CONNECT {name}:{gateway.port}" in seen
