//! A web page that is open in an operator's browser reaches what the browser reaches. It must not act here, and not read.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::serve::Request;
use crate::serve::reply::ApiError;

/// A page whose name was made to lead here (DNS rebinding) would be let read by the browser: its name is in `Host`.
/// Addresses are nobody's page, and `localhost` is this box's.
///
/// # Errors
/// If the request is for a host that is none of ours; `names` are ours.
pub fn expect_own_host(request: &Request, names: &[String]) -> Result<(), ApiError> {
    // HTTP/1.0, which no browser speaks.
    let Some(host) = request.header("Host") else { return Ok(()) };
    let name = without_port(host).trim_end_matches('.').to_ascii_lowercase();
    let is_address = name.parse::<Ipv4Addr>().is_ok()
        || name
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .is_some_and(|v6| v6.parse::<Ipv6Addr>().is_ok());
    let is_ours = name == "localhost" || names.iter().any(|own| own.eq_ignore_ascii_case(&name));
    if is_address || is_ours {
        return Ok(());
    }
    Err(ApiError::Misdirected { host: host.chars().take(100).collect() })
}

/// What acts is refused to pages from elsewhere: browsers say in `Origin` (RFC 6454) and `Sec-Fetch-Site` (W3C Fetch
/// Metadata) whose page it is that asks.
///
/// # Errors
/// If a page of another origin asks.
pub fn expect_own_origin(request: &Request) -> Result<(), ApiError> {
    let host = request.header("Host").unwrap_or_default();
    let foreign = |origin: &str| {
        let of = origin.split_once("://").map(|(_, of)| of);
        !of.is_some_and(|of| of.eq_ignore_ascii_case(host))
    };
    let origin = request.header("Origin").filter(|origin| foreign(origin));
    let site = request.header("Sec-Fetch-Site").filter(|site| ["cross-site", "same-site"].contains(site));
    match origin.or(site) {
        Some(from) => Err(ApiError::Forbidden(format!(
            "a web page from elsewhere ({from:.100}) asks for this, so nothing was done; ask by curl, or from a page of this API"
        ))),
        None => Ok(()),
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    }
}

/// The name that this box gives itself.
pub fn own_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_not_part_of_the_name() {
        for (host, name) in [
            ("localhost:9106", "localhost"),
            ("localhost", "localhost"),
            ("[::1]:9106", "[::1]"),
            ("[::1]", "[::1]"),
            ("127.0.0.1:80", "127.0.0.1"),
        ] {
            assert_eq!(without_port(host), name);
        }
    }
}
