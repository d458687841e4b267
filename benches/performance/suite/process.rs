//! What Linux says of a process that is measured.

use std::fs;
use std::process::Child;

use crate::harness::eventually;

/// Of the times in /proc: the same on every Linux that this runs on (`getconf CLK_TCK`).
const TICKS_PER_SECOND: f64 = 100.0;

/// Bytes that it made the kernel write to disks.
pub fn written(pid: u32) -> u64 {
    number(&format!("/proc/{pid}/io"), "write_bytes:").expect("Linux counts them")
}

/// The most memory it ever had resident, in MiB.
pub fn peak_mib(pid: u32) -> f64 {
    peak_while_running(pid).expect("it runs")
}

/// None when it has ended.
pub fn peak_while_running(pid: u32) -> Option<f64> {
    number(&format!("/proc/{pid}/status"), "VmHWM:").map(|kib| kib as f64 / 1024.0)
}

fn number(path: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// Seconds that it has used of a core.
pub fn cpu_seconds(pid: u32) -> f64 {
    let fields = stat(pid);
    let ticks: u64 = fields[11..13].iter().map(|ticks| ticks.parse::<u64>().expect("a number")).sum();
    ticks as f64 / TICKS_PER_SECOND
}

/// Its fields after the name, which may have blanks in it: the first is the state.
fn stat(pid: u32) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process is there");
    let (_, rest) = text.rsplit_once(") ").expect("a name in brackets");
    rest.split_whitespace().map(str::to_owned).collect()
}

/// Waits until it has ended, and says how much it had written by then. Until it is waited for, Linux keeps its account.
pub fn end(child: &mut Child) -> u64 {
    eventually("the process ends", || stat(child.id())[0] == "Z");
    let written = written(child.id());
    let status = child.wait().expect("it is our own");
    assert!(status.success(), "it ended with {status}");
    written
}
