//! Use cases, without HTTP around them.

mod keys;
mod stream;
