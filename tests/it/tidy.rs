//! The direction of the flow, read from the sources: who may import whom, and where an outside crate may stand.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Each module, and the modules of the crate that it may name.
const ARROWS: &[(&str, &[&str])] = &[
    ("event", &[]),
    ("config", &[]),
    ("metrics", &[]),
    ("health", &[]),
    ("shutdown", &[]),
    ("reload", &[]),
    ("pulse", &[]),
    ("service", &["health", "metrics", "pulse", "shutdown"]),
    ("watermarks", &[]),
    ("audit", &[]),
    ("job", &[]),
    ("removal", &[]),
    ("auth", &["config"]),
    ("coverage", &["event"]),
    ("dead_letter", &["event"]),
    ("queue", &["event", "coverage", "dead_letter", "job", "audit", "removal"]),
    ("archive", &["store", "queue", "removal", "config", "metrics", "health"]),
    ("store", &["event", "coverage", "dead_letter", "queue", "job", "audit", "removal"]),
    (
        "consume",
        &[
            "queue",
            "store",
            "event",
            "coverage",
            "dead_letter",
            "config",
            "metrics",
            "health",
            "shutdown",
            "watermarks",
            "pulse",
        ],
    ),
    // The breaker is the dead letters' own: the writer gives it its limits.
    ("write", &["queue", "store", "dead_letter", "job", "audit", "config", "metrics", "health", "shutdown", "pulse"]),
    // To the queue only orders to the writer go.
    ("replay", &["queue", "store", "event", "job", "audit", "config", "metrics", "shutdown"]),
    ("retention", &["store", "queue", "removal", "audit", "config", "metrics", "health", "shutdown"]),
    (
        "serve",
        &[
            "event",
            "store",
            "event",
            "replay",
            "queue",
            "dead_letter",
            "job",
            "audit",
            "removal",
            "retention",
            "archive",
            "auth",
            "config",
            "metrics",
            "health",
            "shutdown",
            "watermarks",
            "pulse",
        ],
    ),
    // From outside, as curl.
    // The form of what it asks for; it needs nothing else of the sink but its API.
    ("client", &["job"]),
    ("verify", &["store", "consume", "coverage", "config"]),
    // The copies' own sizes and ages are metrics of the running sink.
    ("backup", &["store", "metrics", "shutdown"]),
    ("support", &["client", "config", "doctor", "store"]),
    // It looks at everything, and nothing needs it.
    ("doctor", &["auth", "backup", "client", "config", "consume", "serve", "store"]),
];

/// Each fenced crate, and the modules that may name it.
const FENCES: &[(&str, &[&str])] = &[
    ("rdkafka", &["consume", "replay", "demo"]),
    ("rusqlite", &["store"]),
    ("r2d2", &["store"]),
    ("r2d2_sqlite", &["store"]),
    ("rustix", &["pulse", "store", "serve", "backup"]),
    ("sha2", &["archive", "auth", "store", "serve", "backup"]),
    ("zstd", &["backup"]),
    ("regex", &["doctor", "serve"]),
    ("x509_parser", &["serve"]),
    ("tiny_http", &["serve"]),
    ("httparse", &["serve"]),
    ("tokio_rustls", &["serve"]),
    ("rustls", &["serve", "client"]),
    ("json_patch", &["serve"]),
    ("flate2", &["serve", "support"]),
    ("tar", &["support"]),
    ("schemars", &["event", "removal", "retention", "store", "serve"]),
    ("parquet", &["archive"]),
    ("argon2", &["auth"]),
    ("jsonwebtoken", &["auth"]),
    ("governor", &["auth"]),
    ("crossbeam_channel", &["queue"]),
    ("ureq", &["client"]),
    ("indicatif", &["client", "cli"]),
    ("sd_notify", &["service"]),
    ("clap", &["cli"]),
];

fn sources() -> BTreeMap<String, Vec<(PathBuf, String)>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut modules: BTreeMap<String, Vec<(PathBuf, String)>> = BTreeMap::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let inside = path.strip_prefix(&root).unwrap();
            let module = inside.components().next().unwrap().as_os_str().to_str().unwrap();
            let text = fs::read_to_string(&path).unwrap();
            modules.entry(module.trim_end_matches(".rs").to_owned()).or_default().push((inside.to_owned(), text));
        }
    }
    modules
}

/// The words that follow `before` in code: `crate::` gives modules. Braces after it give each name in them.
fn named_after(text: &str, before: &str) -> BTreeSet<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let code: String = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .fold(String::new(), |all, line| all + line + "\n");
    let mut found = BTreeSet::new();
    for rest in code.split(before).skip(1) {
        if let Some(group) = rest.strip_prefix('{') {
            let group = group.split("};").next().unwrap();
            found.extend(group.split(',').map(|item| word(item.trim())).filter(|name| !name.is_empty()));
        } else {
            found.insert(word(rest));
        }
    }
    found
}

#[test]
fn every_module_names_only_those_upstream_of_it() {
    let modules = sources();
    let known: BTreeSet<&str> = modules.keys().map(String::as_str).collect();
    for (module, files) in &modules {
        if ["lib", "main", "cli", "demo"].contains(&module.as_str()) {
            continue;
        }
        let (_, allowed) =
            ARROWS.iter().find(|(name, _)| name == module).unwrap_or_else(|| panic!("{module} has no arrows"));
        for (file, text) in files {
            for named in named_after(text, "crate::") {
                let is_arrow = known.contains(named.as_str()) && named != *module;
                assert!(
                    !is_arrow || allowed.contains(&named.as_str()),
                    "{}: {module} must not name {named}",
                    file.display()
                );
            }
        }
    }
}

#[test]
fn outside_crates_stay_behind_their_fences() {
    for (module, files) in sources() {
        for (file, text) in files {
            for (outside, allowed) in FENCES {
                let named = !named_after(&text, &format!("use {outside}::")).is_empty()
                    || text.contains(&format!(" {outside}::"));
                let own = text.contains(&format!("{outside}::"));
                let fenced = !allowed.contains(&module.as_str());
                assert!(!(fenced && (named || own)), "{}: {outside} belongs in {allowed:?}", file.display());
            }
        }
    }
}

#[test]
fn the_checks_see_what_they_look_for() {
    let code =
        "use crate::store::Readers;\nuse crate::{Failure, consume, demo};\n// crate::comment\nlet a = crate::write::B;";
    let named = named_after(code, "crate::");
    assert_eq!(named.into_iter().collect::<Vec<_>>(), ["Failure", "consume", "demo", "store", "write"]);
}
