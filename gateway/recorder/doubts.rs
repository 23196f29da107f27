//! What a sealed recording does not prove, in sentences.

use super::Evidence;

/// Lines that nobody had signed span no more of a session that was recorded
/// well, milliseconds: twice as long as it is between two checkpoints.
const UNSIGNED_MAX: u64 = 10_000;

/// How much of what a gateway found at its start had been signed before.
struct Found {
    lines: u64,
    until_ms: u64,
    signed_lines: u64,
    signed_until_ms: u64,
}

impl Evidence {
    /// What is known to be missing, and what was in nobody's hands for longer
    /// than a crash explains; a sentence each. None: all of it is proved.
    ///
    /// The signature covers what the gateway found. Whether somebody changed
    /// that before, while no gateway ran, only what was signed earlier tells.
    pub fn doubts(&self) -> Vec<String> {
        let mut doubts = Vec::new();
        if self.end.missing_bytes > 0 {
            let missing = self.end.missing_bytes;
            doubts.push(format!("{missing} bytes of its lines are lost; markers in it say where"));
        }
        let earlier = self.takeovers.iter().map(|taken| Found {
            lines: taken.lines,
            until_ms: taken.until_ms,
            signed_lines: taken.signed_lines,
            signed_until_ms: taken.signed_until_ms,
        });
        doubts.extend(earlier.filter_map(|found| found.doubt("when a gateway went on with it")));
        if self.end.recovered {
            let signed = self.checkpoint.as_ref();
            let last = Found {
                lines: self.totals.lines,
                until_ms: self.totals.duration_ms,
                signed_lines: signed.map_or(0, |signed| signed.lines),
                signed_until_ms: signed.map_or(0, |signed| signed.until_ms),
            };
            doubts.extend(last.doubt("when it was recovered"));
        }
        doubts
    }
}

impl Found {
    fn doubt(&self, when: &str) -> Option<String> {
        let seconds = |ms: u64| ms as f64 / 1000.0;
        if self.lines <= self.signed_lines.max(1) {
            return None;
        }
        let unsigned = self.lines - self.signed_lines;
        if self.signed_lines <= 1 {
            return Some(format!(
                "none of the {} lines of events found {when} had been signed before",
                self.lines - 1
            ));
        }
        (self.until_ms.saturating_sub(self.signed_until_ms) > UNSIGNED_MAX).then(|| {
            format!(
                "the last {unsigned} of {} lines found {when}, {:.3} s to {:.3} s, had not been signed before",
                self.lines,
                seconds(self.signed_until_ms),
                seconds(self.until_ms)
            )
        })
    }
}
