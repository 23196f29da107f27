//! The `X-Amz-Date` form of a moment: `20150830T123600Z`.

use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime, UtcOffset};

const FORMAT: &[BorrowedFormatItem<'_>] = format_description!("[year][month][day]T[hour][minute][second]Z");

/// Writes a moment as `20150830T123600Z`, in UTC.
pub fn amz_date(moment: OffsetDateTime) -> String {
    let utc = moment.to_offset(UtcOffset::UTC);
    let (date, time) = (utc.date(), utc.time());
    format!(
        "{:04}{:02}{:02}T{:02}{:02}{:02}Z",
        date.year(),
        u8::from(date.month()),
        date.day(),
        time.hour(),
        time.minute(),
        time.second()
    )
}

/// Reads exactly `20150830T123600Z`; nothing else is a date here.
pub fn parse_amz_date(text: &str) -> Option<OffsetDateTime> {
    let shaped = text.len() == 16
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 => byte == b'T',
            15 => byte == b'Z',
            _ => byte.is_ascii_digit(),
        });
    if !shaped {
        return None;
    }
    PrimitiveDateTime::parse(text, FORMAT).ok().map(PrimitiveDateTime::assume_utc)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_read_back_as_it_was_written() {
        let moment = parse_amz_date("20150830T123600Z").unwrap();
        assert_eq!(moment.unix_timestamp(), 1_440_938_160);
        assert_eq!(amz_date(moment), "20150830T123600Z");
    }

    #[test]
    fn nothing_but_the_one_form_is_a_date() {
        for bad in [
            "",
            "20150830T123600",
            "20150830 123600Z",
            "+0150830T123600Z",
            "20151330T123600Z",
            "20150830T246000Z",
        ] {
            assert_eq!(parse_amz_date(bad), None, "{bad:?} was read");
        }
    }
}
