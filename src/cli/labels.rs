use secretfs_wire::Labels;

use super::error::Failure;

/// Several `--label key=value` as one set.
pub(super) fn merge(labels: &[Labels]) -> Result<Labels, Failure> {
    let all: Vec<_> = labels.iter().map(ToString::to_string).collect();
    all.join(",").parse().map_err(|error| Failure::usage(format!("--label: {error}")))
}
