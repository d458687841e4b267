//! `crm-events-sink verify --chain`: was anything in the files changed?

use std::io::Write;
use std::path::PathBuf;

use super::VerifyError;
use crate::store::{ChainReport, NotedHead, check_chains};

/// A head as `verify --chain` prints it and takes it: `journal:17:9f2c…`, with 64 hexadecimal digits.
///
/// # Errors
/// Says what it should be.
pub fn parse_head(text: &str) -> Result<NotedHead, String> {
    let mut parts = text.split(':');
    let (Some(chain), Some(id), Some(link), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Err("is no head; give one as verify --chain printed it, as journal:17:9f2c…".to_owned());
    };
    if !matches!(chain, "journal" | "audit") {
        return Err(format!("{chain:.20?} is no chain; there are journal and audit"));
    }
    let Ok(id) = id.parse() else { return Err(format!("{id:.20?} is no row number")) };
    let link = link.to_ascii_lowercase();
    if link.len() != 64 || !link.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err("the hash must have 64 hexadecimal digits".to_owned());
    }
    Ok(NotedHead { chain: chain.to_owned(), id, link })
}

/// Writes the report, a line a chain and a line a remark; whether all chains of all files are whole and contain `heads`.
///
/// # Errors
/// If a file cannot be read.
pub fn verify_chains(journals: &[PathBuf], heads: &[NotedHead], out: &mut impl Write) -> Result<bool, VerifyError> {
    let mut all_whole = true;
    for journal in journals {
        for report in check_chains(journal, heads)? {
            all_whole &= report.is_whole();
            writeln!(out, "{}", line(&report))?;
            for remark in &report.remarks {
                writeln!(out, "  {remark}")?;
            }
            if let Some(head) = &report.head {
                writeln!(out, "  head {head}")?;
            }
        }
    }
    if !heads.is_empty() && all_whole {
        writeln!(out, "the {} heads that were given are in it", heads.len())?;
    }
    Ok(all_whole)
}

fn line(report: &ChainReport) -> String {
    let ChainReport { chain, rows, erased, .. } = report;
    let erased = if *erased > 0 { format!(", {erased} of them erased") } else { String::new() };
    match &report.broken {
        None => format!("{chain}: whole, {rows} rows{erased}"),
        Some(what) if report.more_breaks > 0 => {
            format!("{chain}: BROKEN at {what}; and in {} more places", report.more_breaks)
        }
        Some(what) => format!("{chain}: BROKEN at {what}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_as_it_is_printed() {
        let link = "0123456789abcdef".repeat(4);
        let head = parse_head(&format!("journal:17:{}", link.to_uppercase())).unwrap();
        assert_eq!(head, NotedHead { chain: "journal".to_owned(), id: 17, link: link.clone() });
        for wrong in ["17:ab", "dlq:17:ab", "journal:x:ab", "journal:17:ab", &format!("audit:1:{link}:2")] {
            assert!(parse_head(wrong).is_err(), "{wrong}");
        }
    }
}
