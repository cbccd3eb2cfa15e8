//! secretfs: secrets where programs already look for them.
// Nothing calls these layers until the node daemon stands above them.
#[allow(dead_code, unused_imports, reason = "the node daemon will call it")]
mod cache;
#[allow(dead_code, unused_imports, reason = "the node daemon will call it")]
mod fs;
#[allow(dead_code, unused_imports, reason = "the node daemon will call it")]
mod fuse;
#[allow(dead_code, unused_imports, reason = "the node daemon will call it")]
mod source;

fn main() {}
