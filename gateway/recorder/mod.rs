//! Is it on disk, whole and unaltered?
