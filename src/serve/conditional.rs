//! What every answer of the operators' API says about keeping it; and the short answer to who has it already.

use sha2::{Digest, Sha256};

use super::Request;
use super::reply::{Body, Reply};
use crate::store::hex;

/// Adds the headers of every answer; makes it 304 (RFC 9110, 13.1.2) where the client has what it asks for.
pub fn finish(request: &Request, reply: Reply) -> Reply {
    let reply = reply
        .with_header("X-Content-Type-Options", "nosniff".to_owned())
        .with_header("Referrer-Policy", "no-referrer".to_owned());
    let is_read = reply.status == 200 && ["GET", "HEAD"].contains(&request.method.as_str());
    let Some(tag) = Some(&reply.body).filter(|_| is_read).and_then(tag) else {
        return reply.with_header("Cache-Control", "no-store".to_owned());
    };
    let is_known = request.header("If-None-Match").is_some_and(|known| names(known, &tag));
    // Personal data: for whoever asked alone, and not without asking again whether they may.
    let mut reply = reply.with_header("Cache-Control", "private, no-cache".to_owned()).with_header("ETag", tag);
    if is_known {
        (reply.status, reply.body) = (304, Body::Bytes(Vec::new()));
    }
    reply
}

/// Weak: the same for what is compressed and what is not. It saves bytes, not the work to make them.
fn tag(body: &Body) -> Option<String> {
    let Body::Bytes(bytes) = body else { return None };
    let hash = Sha256::digest(bytes);
    Some(format!("W/\"{}\"", hex(&hash[..16])))
}

/// Whether an `If-None-Match` names the tag, by the weak comparison.
fn names(known: &str, tag: &str) -> bool {
    let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    known.trim() == "*" || known.split(',').any(|known| opaque(known) == opaque(tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_known_by_the_weak_comparison() {
        let tag = "W/\"0f1e\"";
        for known in ["W/\"0f1e\"", "\"0f1e\"", "*", " \"a\", W/\"0f1e\" ,\"b\""] {
            assert!(names(known, tag), "{known}");
        }
        for known in ["", "\"0f1\"", "0f1e", "W/\"0f1e", "\"a\",\"b\""] {
            assert!(!names(known, tag), "{known}");
        }
    }
}
