//! What a server says before it is asked: SSH, MySQL, VNC.

use super::{Guess, Verdict, guess, ssh, text};

/// What at least eight first bytes of a target say.
pub(super) fn verdict(bytes: &[u8]) -> Verdict {
    match bytes {
        [b'S', b'S', b'H', b'-', ..] => ssh(bytes),
        [b'R', b'F', b'B', b' ', b'0', b'0', b'3', b'.', rest @ ..] => vnc(bytes, rest),
        // A packet of up to 255 bytes, number 0, protocol 10.
        [_, 0, 0, 0, 10, version @ ..] => mysql(version),
        _ => Verdict::Nothing,
    }
}

fn vnc(bytes: &[u8], rest: &[u8]) -> Verdict {
    match rest {
        [b'0'..=b'9', b'0'..=b'9', b'0'..=b'9', b'\n', ..] => {
            let version = Some(text(bytes.get(..11).unwrap_or_default()));
            Verdict::Known(Guess { version, ..guess("vnc") })
        }
        _ if rest.len() < 4 => Verdict::More,
        _ => Verdict::Nothing,
    }
}

fn mysql(rest: &[u8]) -> Verdict {
    let end = rest.iter().position(|byte| *byte == 0);
    let version = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
    let is_text = !version.is_empty() && version.iter().all(|byte| (0x20..0x7f).contains(byte));
    match end {
        _ if !is_text || !version.first().is_some_and(u8::is_ascii_digit) => Verdict::Nothing,
        Some(_) => Verdict::Known(Guess { version: Some(text(version)), ..guess("mysql") }),
        None => Verdict::More,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Look;
    use super::*;
    use crate::recorder::Direction;

    fn look(bytes: &[u8]) -> Option<Guess> {
        let mut look = Look::at(Direction::Down);
        bytes.chunks(3).find_map(|piece| look.more(piece))
    }

    #[test]
    fn servers_that_speak_first_tell_their_version() {
        let version = |bytes: &[u8]| look(bytes).map(|guess| (guess.protocol, guess.version.unwrap()));
        let known = |protocol: &str, version: &str| Some((protocol.to_owned(), version.to_owned()));
        assert_eq!(version(b"\x4a\0\0\0\x0a8.0.36\0\x08\0\0\0salt"), known("mysql", "8.0.36"));
        assert_eq!(version(b"RFB 003.008\n"), known("vnc", "RFB 003.008"));
        assert_eq!(version(b"SSH-2.0-dropbear\n"), known("ssh", "SSH-2.0-dropbear"));
    }

    #[test]
    fn a_banner_that_many_protocols_share_is_not_guessed() {
        for bytes in [&b"220 welcome\r\n"[..], b"\x4a\0\0\0\x0a\x01\x02\x03\0", b"RFB 004.0000\n"] {
            assert_eq!(look(bytes), None, "{bytes:?}");
        }
    }
}
