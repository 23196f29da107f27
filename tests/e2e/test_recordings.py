"""A recording is what was seen: played, written elsewhere, checked, damaged."""

import json
import subprocess

import pexpect
import pytest

from support.demo import PATIENCE, eventually, program
from support.sound import refused_by
from support.terminal import Terminal

MARK = "what was seen 🚀"


@pytest.fixture(scope="module")
def recorded(demo):
    """A session of a few lines, sealed: its id and its file."""
    typed = f"printf '%s\\n' '{MARK}'\nstty size\nexit\n"
    done = demo.run("postern", "connect", "web-dev", profile="alice", input=typed)
    assert done.returncode == 0, done.stderr
    session = done.stderr.split("SessionId: ")[1].split()[0]
    demo.ended(session)
    return session, demo.recorded(session)


def lines(text: str) -> list:
    return [json.loads(line) for line in text.splitlines()]


def replay(demo, *words, **options):
    done = demo.run("postern", "replay", *words, profile="alice", **options)
    assert done.returncode == 0, done.stderr
    return done


def test_a_pipe_gets_the_output_at_once_and_as_it_was(demo, recorded):
    session, _ = recorded
    done = replay(demo, session)
    assert f"\n{MARK}" in done.stdout.replace("\r", "\n")
    assert done.stderr == ""
    # No title, no clearing, no seeking: nothing of a player's.
    for of_a_player in ("\x1b[2J", "\x1b]2;", "\x1b[22;2t", "\x1b[?1049"):
        assert of_a_player not in done.stdout


def test_last_is_the_session_that_ended_last(demo, recorded):
    done = demo.run("postern", "connect", "web-dev", profile="bob", input="echo the la''st one\nexit\n")
    session = done.stderr.split("SessionId: ")[1].split()[0]
    demo.ended(session)
    played = demo.run("postern", "replay", "last", profile="carol")
    assert played.returncode == 0 and "the last one" in played.stdout


@pytest.mark.parametrize("wanted", ["v2", "v3"])
def test_writes_asciicast(demo, recorded, tmp_path, wanted):
    session, _ = recorded
    file = tmp_path / "session.cast"
    replay(demo, session, "--output", file, "--format", wanted)
    header, *events = lines(file.read_text())
    assert header["version"] == int(wanted[1])
    output = "".join(data for _, code, data in events if code == "o")
    assert f"{MARK}\r\n" in output
    times = [time for time, *_ in events]
    # v2 counts from the start, v3 from the event before.
    assert all(time >= 0 for time in times) and (wanted == "v3" or times == sorted(times))


def test_writes_text_by_the_file_s_name(demo, recorded, tmp_path):
    session, _ = recorded
    file = tmp_path / "session.txt"
    replay(demo, session, "--output", file)
    text = file.read_text()
    assert f"\n{MARK}\n" in text and "\x1b" not in text and "\r" not in text
    assert replay(demo, session, "--output", "-", "--format", "text").stdout == text


def test_writes_a_compressed_file_that_zstd_reads(demo, recorded, tmp_path):
    session, _ = recorded
    file = tmp_path / "session.cast.zst"
    replay(demo, session, "--output", file)
    plain = subprocess.run(["zstd", "-dc", file], capture_output=True, check=True).stdout.decode()
    assert lines(plain)[0]["version"] == 2


def test_every_recording_is_sound_zstd_and_asciicast(demo, recorded):
    recordings = demo.recordings
    assert recordings
    for path in recordings:
        subprocess.run(["zstd", "-q", "-t", path], check=True, timeout=PATIENCE)
        header, *events = lines(subprocess.run(["zstdcat", path], capture_output=True, check=True).stdout.decode())
        assert header["version"] == 2 and header["width"] > 0
        times = [time for time, *_ in events]
        assert times == sorted(times), path


def test_what_a_reader_refuses_is_noticed(recorded, tmp_path):
    _, path = recorded
    assert refused_by(path) is None
    cut = tmp_path / "cut.cast.zst"
    cut.write_bytes(path.read_bytes()[:-20])
    assert "zstd -q -t" in refused_by(cut)
    strange = tmp_path / "strange.cast.zst"
    subprocess.run(["zstd", "-q", "-o", strange], input=b"no recording\n", check=True, timeout=PATIENCE)
    assert "asciinema cat" in refused_by(strange)


@pytest.mark.skipif(not program("asciinema"), reason="asciinema is not installed")
@pytest.mark.parametrize("command", ["cat -", "play -s 1000 -"])
def test_asciinema_plays_it(demo, recorded, tmp_path, command):
    _, path = recorded
    env = demo.env | {"ASCIINEMA_CONFIG_HOME": str(tmp_path)}
    pipe = ["-c", f"zstdcat '{path}' | asciinema {command}"]
    child = pexpect.spawn("sh", pipe, env=env, encoding="utf-8", timeout=PATIENCE)
    child.expect_exact(f"{MARK}\r\n")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


def test_plays_in_a_terminal_at_the_speed_asked_for(demo, recorded):
    session, _ = recorded
    terminal = Terminal(demo, "postern", "replay", session, "--speed", "1000")
    terminal.expect(MARK)
    assert terminal.leave() == 0


def test_pauses_seeks_and_quits(demo, recorded, tmp_path):
    """Keys work, on a recording whose second output comes much later."""
    cast = tmp_path / "slow.cast"
    cast.write_text(
        '{"version":2,"width":80,"height":24}\n'
        '[0.1,"o","first\\r\\n"]\n[3600.0,"o","an hour later\\r\\n"]\n[7200.0,"o","at last\\r\\n"]\n'
    )
    terminal = Terminal(demo, "postern", "replay", cast)
    terminal.expect("first")
    terminal.type(" ")
    terminal.expect("paused · space goes on")
    terminal.type(".")
    terminal.expect("an hour later")
    terminal.type("\x1b[D")
    terminal.expect("59:55")
    terminal.type("q")
    assert terminal.leave() == 0
    assert "at last" not in terminal.text
    limited = Terminal(demo, "postern", "replay", cast, "--idle-limit", "0.1")
    limited.expect("at last")
    assert limited.leave() == 0


def test_leaves_the_cursor_where_the_recording_ended(demo, tmp_path):
    """Nothing that homes the cursor, and a line of its own for the prompt."""
    cast = tmp_path / "open.cast"
    cast.write_text('{"version":2,"width":80,"height":24}\n[0.1,"o","no line end"]\n')
    terminal = Terminal(demo, "postern", "replay", cast)
    terminal.expect("no line end")
    assert terminal.leave() == 0
    after = terminal.seen.partition("no line end")[2]
    kept, _, rest = after.partition("\x1b7")
    inside, _, tail = rest.partition("\x1b8")
    for homes in ("\x1b[?6l", "\x1b[r", "\x1b[H"):
        assert homes not in kept + tail
    assert tail.endswith("\r\n")


def test_a_running_session_can_be_replayed(demo, open_shell):
    shell = open_shell()
    shell.ask("echo still ru''nning")

    def seen():
        done = demo.run("postern", "replay", shell.id, profile="carol")
        return "still running" in done.stdout and done

    done = eventually(seen, "the output in the recording")
    assert "the recording has no end" in done.stderr
    assert shell.exit() == 0


def test_only_who_may_replays(demo, recorded):
    session, _ = recorded
    done = demo.run("postern", "replay", session, profile="bob")
    assert done.returncode == 255 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1


def test_what_is_no_recording_is_a_sentence(demo, tmp_path):
    (tmp_path / "x.cast").write_text("garbage\n")
    (tmp_path / "x.cast.zst").write_bytes(b"\x28\xb5\x2f\xfd garbage")
    for name in (tmp_path / "x.cast", tmp_path / "x.cast.zst", tmp_path / "missing.cast", "alice-0123456789"):
        done = demo.run("postern", "replay", name, profile="alice")
        assert done.returncode == 255 and len(done.stderr.splitlines()) == 1, done.stderr


def verify(demo, path, *words) -> tuple[int, dict]:
    done = demo.run("postern", "verify", path, "--json", *words, profile="carol")
    return done.returncode, json.loads(done.stdout)[0]


def test_verifies_what_was_sealed(demo, recorded):
    session, path = recorded
    code, found = verify(demo, path)
    assert (code, found["result"], found["session"]) == (0, "sealed", session)
    assert demo.ended(session)["recording_sha256"]
    done = demo.run("postern", "verify", path, profile="carol")
    assert done.stdout.startswith(f"{path}: sealed and unaltered\n")


def test_finds_a_byte_flipped_anywhere(demo, recorded, tmp_path):
    _, path = recorded
    whole = path.read_bytes()
    copy = tmp_path / path.name
    places = sorted({0, len(whole) - 1, *range(5, len(whole), max(1, len(whole) // 12))})
    for place in places:
        copy.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        code, found = verify(demo, copy)
        assert (code, found["result"]) == (1, "damaged"), place
        assert found["what"] and found["bytes"][0] <= len(whole)


def test_finds_what_was_cut_and_what_was_added(demo, recorded, tmp_path):
    _, path = recorded
    whole = path.read_bytes()
    copy = tmp_path / path.name
    for changed in (whole[:-1], whole[: len(whole) // 2], whole + b"x", whole + whole):
        copy.write_bytes(changed)
        code, found = verify(demo, copy)
        assert code != 0 and found["result"] != "sealed"


def test_finds_a_seal_by_somebody_else(demo, demos, recorded):
    """A recording of another gateway proves nothing here."""
    other = demos()
    done = other.run("postern", "connect", "web-dev", profile="alice", input="exit\n")
    session = done.stderr.split("SessionId: ")[1].split()[0]
    other.ended(session)
    code, found = verify(demo, other.recorded(session))
    assert (code, found["result"]) == (1, "damaged"), found
    assert other.stop() == 0
