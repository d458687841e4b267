//! Where a file stands in the archive's folder: in the partitions that DuckDB, Spark and Trino know from Hive.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest, Sha256};

use crate::removal::Slice;
use crate::store::hex;

/// What stands as it is in the name of a folder.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');
/// A folder's name has at most 255 bytes; of a tenant whose name needs more, this many and a digest stand for it.
const NAME_MAX: usize = 200;
/// Hive's word for no value.
const NO_NAME: &str = "__HIVE_DEFAULT_PARTITION__";

/// `tenant_id=acme/date=2025-11-03/part-1-86400.parquet`; `copy` tells it from a file that has this name already.
pub fn path(slice: &Slice, tenant: &str, (first_id, last_id): (i64, i64), copy: u32) -> String {
    let copy = if copy == 0 { String::new() } else { format!("-{copy}") };
    format!("tenant_id={}/date={}/part-{first_id}-{last_id}{copy}.parquet", folder(tenant), slice.day)
}

fn folder(tenant: &str) -> String {
    let encoded = utf8_percent_encode(tenant, ENCODED).to_string();
    match encoded.len() {
        0 => NO_NAME.to_owned(),
        length if length <= NAME_MAX => encoded,
        // At a percent sign a code may begin: none is cut in two.
        _ => {
            let cut = encoded[..NAME_MAX - 64].rfind('%').filter(|at| at + 3 > NAME_MAX - 64);
            format!("{}-{}", &encoded[..cut.unwrap_or(NAME_MAX - 64)], hex(&Sha256::digest(tenant)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenants_folder_has_a_name_that_every_file_system_takes() {
        assert_eq!(folder("acme"), "acme");
        assert_eq!(folder("../a b/c=1"), "..%2Fa%20b%2Fc%3D1");
        assert_eq!(folder("café"), "caf%C3%A9");
        assert_eq!(folder(""), NO_NAME);
        let (long, other) = (folder(&"é".repeat(300)), folder(&"é".repeat(301)));
        assert!(long.len() <= NAME_MAX + 1 && other.len() <= NAME_MAX + 1, "{long}");
        assert_ne!(long, other);
        assert!(!long.contains("%C-") && !long.contains("%-"), "{long}");
    }
}
