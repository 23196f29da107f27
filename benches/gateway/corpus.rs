//! What terminals show: a long listing with colours, cut as the agent cuts.

/// Payload of one output message, bytes; the agent's size.
pub const CHUNK: usize = 1024;
/// Different messages before they come again; far beyond any zstd window.
const MESSAGES: usize = 4096;

/// The messages of a listing; the same in every run.
pub fn messages() -> Vec<Vec<u8>> {
    let mut text = Vec::new();
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    while text.len() < MESSAGES * CHUNK {
        state = next(state);
        let (size, kind) = (state % 1_000_000, state >> 60);
        let line = format!(
            "-rw-r--r-- 1 root root {size:>8} Nov {:>2} {:02}:{:02} \x1b[01;3{}mlib{:x}.so.{kind}\x1b[0m\r\n",
            1 + state % 28,
            state % 24,
            state % 60,
            kind % 8,
            state >> 40,
        );
        text.extend_from_slice(line.as_bytes());
    }
    text.chunks_exact(CHUNK).take(MESSAGES).map(<[u8]>::to_vec).collect()
}

/// One step of a xorshift generator.
pub fn next(mut state: u64) -> u64 {
    state ^= state << 13;
    state ^= state >> 7;
    state ^ (state << 17)
}
