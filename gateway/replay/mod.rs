//! What did they see?
