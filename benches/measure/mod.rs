//! What a command costs: its time, that of its processes and of the servers it uses, memory and temporary files.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

pub const ROUNDS: usize = 5;
const SAMPLE: Duration = Duration::from_millis(10);
/// PostgreSQL's process for a connection ends a moment after the client.
const MOMENT: Duration = Duration::from_millis(50);

/// One run of a pipeline.
#[derive(Clone, Copy, Default)]
pub struct Cost {
    /// Wall time in seconds.
    pub wall: f64,
    /// Processor time in seconds of all processes of the pipeline; without the servers.
    pub cpu: f64,
    /// What pg_dump had of it, up to the last look at it.
    pub pg_dump: f64,
    /// Processor time in seconds of PostgreSQL's server.
    pub postgres: f64,
    /// Processor time in seconds of the S3 server, which runs in this process.
    pub s3: f64,
    /// The most that all processes of the pipeline had in memory at a time, in bytes.
    pub memory: f64,
    /// The most that their temporary files took at a time, in bytes.
    pub disk: f64,
    /// What was made, in bytes; set by the caller.
    pub size: f64,
}

/// Each of them once, one after the other, then again: what slows the machine down for a while slows all of them down.
/// Returns what each has cost in each round.
pub fn rounds(contenders: &[&dyn Fn() -> Cost]) -> Vec<Vec<Cost>> {
    let mut costs = vec![Vec::new(); contenders.len()];
    for _ in 0..ROUNDS {
        for (run, costs) in contenders.iter().zip(&mut costs) {
            costs.push(run());
        }
    }
    costs
}

pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The median of the ratios that the two have in each round.
pub fn ratio(costs: &[Cost], base: &[Cost]) -> f64 {
    median(costs.iter().zip(base).map(|(cost, base)| cost.wall / base.wall))
}

/// Each figure's own median.
pub fn middle(costs: &[Cost]) -> Cost {
    let of = |figure: fn(&Cost) -> f64| median(costs.iter().map(figure));
    Cost {
        wall: of(|cost| cost.wall),
        cpu: of(|cost| cost.cpu),
        pg_dump: of(|cost| cost.pg_dump),
        postgres: of(|cost| cost.postgres),
        s3: of(|cost| cost.s3),
        memory: of(|cost| cost.memory),
        disk: of(|cost| cost.disk),
        size: of(|cost| cost.size),
    }
}

/// Runs a command and watches its processes, and what they have in `directory`.
pub fn run(command: &mut Command, directory: &Path) -> Cost {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let before = (own_time(), children_time(), postgres_time());
    let started = Instant::now();
    let mut child = command.spawn().expect("a command");
    let pid = child.id();
    let (done, wait) = mpsc::channel::<()>();
    let (status, wall, (seen, watching)) = thread::scope(|scope| {
        let watch = scope.spawn(move || watch(pid, directory, &wait));
        let status = child.wait().expect("its status");
        let wall = started.elapsed().as_secs_f64();
        drop(done);
        (status, wall, watch.join().expect("what it saw"))
    });
    assert!(
        status.success(),
        "{}",
        std::io::read_to_string(child.stderr.take().expect("its messages")).unwrap_or_default()
    );
    thread::sleep(MOMENT);
    Cost {
        wall,
        cpu: children_time() - before.1,
        postgres: postgres_time() - before.2,
        // This thread only waits. What the watching took is not the S3 server's.
        s3: own_time() - before.0 - watching,
        ..seen
    }
}

/// Looks at the processes until the other side of `wait` is gone. Also returns the processor time that the looking took.
fn watch(pid: u32, directory: &Path, wait: &Receiver<()>) -> (Cost, f64) {
    let mut cost = Cost::default();
    while wait.recv_timeout(SAMPLE) == Err(RecvTimeoutError::Timeout) {
        let processes = family(pid);
        cost.memory = cost.memory.max(processes.iter().map(|pid| resident(*pid)).sum());
        cost.disk = cost.disk.max(disk(directory, &processes));
        let dumps = processes.iter().filter(|pid| name(**pid) == "pg_dump");
        cost.pg_dump = cost.pg_dump.max(dumps.map(|pid| times(&pid.to_string())[0]).sum());
    }
    (cost, times("thread-self")[0])
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

/// A process and all that it has started.
fn family(pid: u32) -> Vec<u32> {
    children(pid).into_iter().flat_map(family).chain([pid]).collect()
}

fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let children = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    children
        .flat_map(|pids| pids.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect()
}

fn name(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim_end().to_owned()
}

/// VmRSS in bytes.
fn resident(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or_default() * 1024.0
}

fn own_time() -> f64 {
    times("self")[0]
}

fn children_time() -> f64 {
    times("self")[1]
}

/// Of the servers that this process has started: of their processes that run, and of those that have ended.
fn postgres_time() -> f64 {
    let servers = children(std::process::id()).into_iter().filter(|pid| name(*pid) == "postgres");
    servers.flat_map(family).flat_map(|pid| times(&pid.to_string())).sum()
}

/// Processor time in seconds of a process, and of its children that have ended and of theirs: proc(5). Zero if the process
/// is gone.
fn times(process: &str) -> [f64; 2] {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
    // utime, stime, cutime and cstime, in hundredths.
    let hundredths = |at: usize| fields.get(at).map_or(0.0, |field| field.parse::<f64>().expect("a number"));
    [hundredths(11) + hundredths(12), hundredths(13) + hundredths(14)].map(|time| time / 100.0)
}
