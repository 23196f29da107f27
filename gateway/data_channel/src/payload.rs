//! What a stream message carries: payload types, sizes, flags, exit codes.

use serde::{Deserialize, Deserializer, Serialize};

use crate::json;
use crate::message::MessageError;

/// What stands before the number in an exit code payload.
const EXIT_CODE: &[u8] = b"EXIT_CODE: ";

/// What a payload holds: the number at offset 112 of the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PayloadType {
    /// 0: none; acknowledges and control messages, JSON.
    Unset,
    /// 1: bytes of the terminal or stream, both ways.
    Output,
    /// 2: never seen.
    Error,
    /// 3: the size of the client's terminal, JSON.
    Size,
    /// 4: never seen.
    Parameter,
    /// 5: what the agent asks of the client, JSON.
    HandshakeRequest,
    /// 6: what the client answers, JSON.
    HandshakeResponse,
    /// 7: the agent starts the session, JSON.
    HandshakeComplete,
    /// 8: prove that you have the key, JSON.
    EncChallengeRequest,
    /// 9: the proof, JSON.
    EncChallengeResponse,
    /// 10: a [`Flag`] of a port session.
    Flag,
    /// 11: bytes of a command's standard error.
    StdErr,
    /// 12: a command's exit code as text, see [`exit_code`].
    ExitCode,
    /// Any other number.
    Other(u32),
}

impl PayloadType {
    /// Whether it is encrypted when the session has a KMS key.
    pub fn is_encrypted_by_kms(self) -> bool {
        matches!(self, Self::Output | Self::StdErr | Self::ExitCode)
    }

    /// Whether it belongs to the handshake (5 to 9).
    pub fn is_handshake(self) -> bool {
        (5..=9).contains(&u32::from(self))
    }
}

impl From<u32> for PayloadType {
    fn from(number: u32) -> Self {
        match number {
            0 => Self::Unset,
            1 => Self::Output,
            2 => Self::Error,
            3 => Self::Size,
            4 => Self::Parameter,
            5 => Self::HandshakeRequest,
            6 => Self::HandshakeResponse,
            7 => Self::HandshakeComplete,
            8 => Self::EncChallengeRequest,
            9 => Self::EncChallengeResponse,
            10 => Self::Flag,
            11 => Self::StdErr,
            12 => Self::ExitCode,
            other => Self::Other(other),
        }
    }
}

impl From<PayloadType> for u32 {
    fn from(payload_type: PayloadType) -> Self {
        match payload_type {
            PayloadType::Unset => 0,
            PayloadType::Output => 1,
            PayloadType::Error => 2,
            PayloadType::Size => 3,
            PayloadType::Parameter => 4,
            PayloadType::HandshakeRequest => 5,
            PayloadType::HandshakeResponse => 6,
            PayloadType::HandshakeComplete => 7,
            PayloadType::EncChallengeRequest => 8,
            PayloadType::EncChallengeResponse => 9,
            PayloadType::Flag => 10,
            PayloadType::StdErr => 11,
            PayloadType::ExitCode => 12,
            PayloadType::Other(number) => number,
        }
    }
}

/// The size of a terminal, in characters.
///
/// The wire has 32-bit numbers; larger than 65,535 is taken for 65,535.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Columns.
    #[serde(deserialize_with = "saturated")]
    pub cols: u16,
    /// Rows.
    #[serde(deserialize_with = "saturated")]
    pub rows: u16,
}

impl Size {
    /// Reads a payload of type `Size`.
    pub fn parse(payload: &[u8]) -> Result<Self, MessageError> {
        json::read("Size", payload)
    }

    /// The payload.
    pub fn encode(&self) -> Vec<u8> {
        json::write(self)
    }
}

fn saturated<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    u32::deserialize(deserializer).map(|number| u16::try_from(number).unwrap_or(u16::MAX))
}

/// What the ends of a port session tell each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flag {
    /// 1, up: the local connection has ended.
    DisconnectToPort,
    /// 2, up: end the session.
    TerminateSession,
    /// 3, down: the destination could not be reached.
    ConnectToPortError,
    /// Any other number.
    Other(u32),
}

impl Flag {
    /// Reads a payload of type `Flag`: four bytes, big-endian.
    pub fn parse(payload: &[u8]) -> Result<Self, MessageError> {
        let number = payload.first_chunk().ok_or(MessageError::Payload("Flag"))?;
        Ok(match u32::from_be_bytes(*number) {
            1 => Self::DisconnectToPort,
            2 => Self::TerminateSession,
            3 => Self::ConnectToPortError,
            other => Self::Other(other),
        })
    }

    /// The payload.
    pub fn encode(self) -> [u8; 4] {
        match self {
            Self::DisconnectToPort => 1,
            Self::TerminateSession => 2,
            Self::ConnectToPortError => 3,
            Self::Other(number) => number,
        }
        .to_be_bytes()
    }
}

/// The number in a payload of type `ExitCode`, `EXIT_CODE: <n>`.
pub fn exit_code(payload: &[u8]) -> Option<i32> {
    let number = payload.strip_prefix(EXIT_CODE)?;
    std::str::from_utf8(number).ok()?.trim_ascii().parse().ok()
}

/// The payload of type `ExitCode`.
pub fn encode_exit_code(code: i32) -> Vec<u8> {
    format!("EXIT_CODE: {code}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_type_is_its_number_and_back() {
        for number in (0..=20).chain([u32::MAX]) {
            assert_eq!(u32::from(PayloadType::from(number)), number);
        }
        assert_eq!(PayloadType::from(11), PayloadType::StdErr);
        assert_eq!(PayloadType::from(13), PayloadType::Other(13));
    }

    #[test]
    fn only_stream_bytes_are_encrypted_and_only_5_to_9_shake_hands() {
        let numbers = |wanted: fn(PayloadType) -> bool| {
            (0..=20).filter(|n| wanted(PayloadType::from(*n))).collect::<Vec<u32>>()
        };
        assert_eq!(numbers(PayloadType::is_encrypted_by_kms), [1, 11, 12]);
        assert_eq!(numbers(PayloadType::is_handshake), [5, 6, 7, 8, 9]);
    }

    #[test]
    fn a_size_is_the_json_of_the_plugin() {
        let size = Size { cols: 300, rows: 100 };
        assert_eq!(size.encode(), br#"{"cols":300,"rows":100}"#);
        assert_eq!(Size::parse(&size.encode()), Ok(size));
        assert_eq!(Size::parse(br#"{"rows":1,"cols":70000}"#), Ok(Size { cols: u16::MAX, rows: 1 }));
        for bad in [&b""[..], b"{}", br#"{"cols":-1,"rows":2}"#, br#"{"cols":1}"#, b"\xff"] {
            assert_eq!(Size::parse(bad), Err(MessageError::Payload("Size")));
        }
    }

    #[test]
    fn a_flag_is_four_bytes_big_endian() {
        for (flag, bytes) in [
            (Flag::DisconnectToPort, [0, 0, 0, 1]),
            (Flag::TerminateSession, [0, 0, 0, 2]),
            (Flag::ConnectToPortError, [0, 0, 0, 3]),
            (Flag::Other(256), [0, 0, 1, 0]),
        ] {
            assert_eq!(flag.encode(), bytes);
            assert_eq!(Flag::parse(&bytes), Ok(flag));
        }
        assert_eq!(Flag::parse(&[0, 0, 1]), Err(MessageError::Payload("Flag")));
    }

    #[test]
    fn an_exit_code_is_read_from_its_text() {
        assert_eq!(exit_code(b"EXIT_CODE: 0"), Some(0));
        assert_eq!(exit_code(b"EXIT_CODE: -1\n"), Some(-1));
        assert_eq!(exit_code(&encode_exit_code(137)), Some(137));
        for bad in [&b""[..], b"EXIT_CODE: ", b"EXIT_CODE: x", b"exit_code: 1", b"EXIT_CODE: 99999999999"] {
            assert_eq!(exit_code(bad), None);
        }
    }
}
