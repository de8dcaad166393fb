//! The steps of a backup that can fail: few and fixed, so that failures can be counted by step.

/// A step of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// To read the secrets that files hold, or to learn the database's name.
    Configuration,
    /// To reach PostgreSQL, and to find its clients.
    Connect,
    /// To look into the bucket.
    Bucket,
    /// To dump, compress, and prove the dump whole.
    Dump,
    /// To store it in the bucket.
    Upload,
}

impl Step {
    /// All values.
    pub const ALL: [Step; 5] = [Step::Configuration, Step::Connect, Step::Bucket, Step::Dump, Step::Upload];

    /// Its name, for programs.
    pub fn name(self) -> &'static str {
        match self {
            Step::Configuration => "configuration",
            Step::Connect => "connect",
            Step::Bucket => "bucket",
            Step::Dump => "dump",
            Step::Upload => "upload",
        }
    }
}
