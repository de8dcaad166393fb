//! What a command costs: its time, and that of its processes, their memory and their temporary files.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

pub const RUNS: usize = 5;
const SAMPLE: Duration = Duration::from_millis(10);

/// One run of a pipeline.
#[derive(Clone, Copy, Default)]
pub struct Cost {
    /// Wall time in seconds.
    pub wall: f64,
    /// Processor time in seconds of all processes of the pipeline; not PostgreSQL's server, nor S3's.
    pub cpu: f64,
    /// The most that all of them had in memory at a time, in bytes.
    pub memory: f64,
    /// The most that their temporary files took at a time, in bytes.
    pub disk: f64,
    /// What was made, in bytes; set by the caller.
    pub size: f64,
}

/// Runs a command and watches its processes, and what they have in `directory`.
pub fn run(command: &mut Command, directory: &Path) -> Cost {
    let (started, before) = (Instant::now(), children_time());
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("a command");
    let mut cost = Cost::default();
    let status = loop {
        if let Some(status) = child.try_wait().expect("its status") {
            break status;
        }
        let processes = family(child.id());
        cost.memory = cost.memory.max(processes.iter().map(|pid| resident(*pid)).sum());
        cost.disk = cost.disk.max(disk(directory, &processes));
        thread::sleep(SAMPLE);
    };
    cost.wall = started.elapsed().as_secs_f64();
    cost.cpu = children_time() - before;
    assert!(
        status.success(),
        "{}",
        std::io::read_to_string(child.stderr.take().expect("its messages")).unwrap_or_default()
    );
    cost
}

/// What files in the directory take, also those without a name that a process has open.
fn disk(directory: &Path, processes: &[u32]) -> f64 {
    let named = fs::read_dir(directory).expect("the directory").flatten().map(|entry| entry.path());
    let open = processes.iter().filter_map(|pid| fs::read_dir(format!("/proc/{pid}/fd")).ok());
    let unnamed = open.flat_map(|files| files.flatten().map(|file| file.path())).filter(|file| {
        let target = fs::read_link(file).unwrap_or_default();
        target.starts_with(directory) && target.to_string_lossy().ends_with(" (deleted)")
    });
    let files: Vec<PathBuf> = named.chain(unnamed).collect();
    files.iter().filter_map(|file| fs::metadata(file).ok()).map(|data| data.blocks() as f64 * 512.0).sum()
}

pub fn median(run: impl Fn() -> Cost) -> Cost {
    let runs: Vec<Cost> = (0..RUNS).map(|_| run()).collect();
    let middle = |of: fn(&Cost) -> f64| {
        let mut values: Vec<f64> = runs.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[RUNS / 2]
    };
    Cost {
        wall: middle(|cost| cost.wall),
        cpu: middle(|cost| cost.cpu),
        memory: middle(|cost| cost.memory),
        disk: middle(|cost| cost.disk),
        size: middle(|cost| cost.size),
    }
}

/// A process and all that it has started.
fn family(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let children = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let children: Vec<u32> = children
        .flat_map(|pids| pids.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect();
    children.into_iter().flat_map(family).chain([pid]).collect()
}

/// VmRSS in bytes.
fn resident(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or_default() * 1024.0
}

/// Processor time in seconds of the children that have ended, and of theirs: proc(5).
fn children_time() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").expect("/proc/self/stat");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
    // cutime and cstime, in hundredths.
    [13, 14].map(|at: usize| fields[at].parse::<f64>().expect("a number")).iter().sum::<f64>() / 100.0
}
