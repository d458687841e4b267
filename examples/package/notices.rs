//! The licences of everything that is linked in, from the sources that Cargo has fetched.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// How deep below a crate's own folder licences are looked for: the C libraries lie one or two folders down.
const DEPTH: usize = 2;

/// Each crate with its licence, and each text once, with the crates that it came with.
pub fn collect(target: &str) -> Result<String, Box<dyn Error>> {
    let metadata = metadata(target)?;
    let linked = linked(&metadata)?;
    let mut list = String::from("The program contains the following, each under its own licence.\n\n");
    let mut texts: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in metadata["packages"].as_array().ok_or("no packages")? {
        if !linked.contains(text(&package["id"])?) {
            continue;
        }
        let name = format!("{} {}", text(&package["name"])?, text(&package["version"])?);
        writeln!(list, "{name}: {}", package["license"].as_str().unwrap_or("see its text below"))?;
        let folder = Path::new(text(&package["manifest_path"])?).parent().ok_or("a manifest without a folder")?;
        for file in licences(folder, DEPTH)? {
            let what = file.strip_prefix(folder)?.display();
            let text = String::from_utf8_lossy(&fs::read(&file)?).trim().to_owned();
            texts.entry(text).or_default().insert(format!("{name} ({what})"));
        }
    }
    for (text, sources) in texts {
        let sources = sources.into_iter().collect::<Vec<_>>().join("\n");
        writeln!(list, "\n{:=<79}\n{sources}\n{:-<79}\n{text}", "", "")?;
    }
    Ok(list)
}

fn metadata(target: &str) -> Result<Value, Box<dyn Error>> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--format-version", "1", "--locked", "--filter-platform", target]);
    let ran = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).output()?;
    if !ran.status.success() {
        return Err(String::from_utf8_lossy(&ran.stderr).into());
    }
    Ok(serde_json::from_slice(&ran.stdout)?)
}

/// What the program depends on, but for what is needed to build and test it alone.
fn linked(metadata: &Value) -> Result<BTreeSet<String>, Box<dyn Error>> {
    let root = text(&metadata["resolve"]["root"])?;
    let nodes = metadata["resolve"]["nodes"].as_array().ok_or("no nodes")?;
    let nodes: BTreeMap<&str, &Value> =
        nodes.iter().map(|node| Ok((text(&node["id"])?, node))).collect::<Result<_, String>>()?;
    let (mut found, mut open) = (BTreeSet::new(), vec![root]);
    while let Some(id) = open.pop() {
        for dependency in nodes[id]["deps"].as_array().ok_or("no dependencies")? {
            let kinds = dependency["dep_kinds"].as_array().ok_or("no kinds")?;
            let package = text(&dependency["pkg"])?;
            if kinds.iter().any(|kind| kind["kind"].is_null()) && found.insert(package.to_owned()) {
                open.push(package);
            }
        }
    }
    Ok(found)
}

fn licences(folder: &Path, depth: usize) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_uppercase();
        if path.is_dir() {
            if depth > 0 {
                found.extend(licences(&path, depth - 1)?);
            }
        } else if ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"]
            .iter()
            .any(|word| name.starts_with(word))
        {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn text(value: &Value) -> Result<&str, String> {
    value.as_str().ok_or_else(|| format!("cargo metadata: {value} is no text"))
}
