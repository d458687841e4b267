//! How many connections fit into the file descriptors that this process may have.

use rustix::process::{Resource, getrlimit};

/// For the journal, its readers, Kafka's connections and the log.
const OTHERS: u64 = 96;
/// A request that is being answered holds so many behind the edge.
const PER_REQUEST: u64 = 3;
/// Even with few descriptors somebody must be able to look while requests are being answered.
const LEAST: u64 = 32;

/// Connections of each of `ports`, when `wanted` are and `requests` may be answered at once. Fewer are said in the log.
pub fn connections_max(wanted: usize, ports: usize, requests: usize) -> usize {
    let Some(limit) = getrlimit(Resource::Nofile).current else { return wanted };
    let there_are = share(limit, ports as u64, requests as u64);
    if there_are < wanted as u64 {
        tracing::warn!(
            wanted,
            allowed = there_are,
            descriptors = limit,
            "http.connections_max is lowered: the process may not open more files; raise LimitNOFILE (ulimit -n)"
        );
    }
    wanted.min(usize::try_from(there_are).unwrap_or(wanted))
}

fn share(limit: u64, ports: u64, requests: u64) -> u64 {
    (limit.saturating_sub(OTHERS + PER_REQUEST * requests) / ports.max(1)).max(LEAST)
}

#[cfg(test)]
mod tests {
    use super::share;

    #[test]
    fn what_others_need_is_left_for_them() {
        assert_eq!(share(1024, 2, 18), 437);
        assert_eq!(share(256, 2, 18), 53);
        assert_eq!(share(64, 2, 18), 32);
    }
}
