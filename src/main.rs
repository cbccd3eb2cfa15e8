//! secretfs: secrets where programs already look for them.
fn main() {}
