//! The ways in which a round fails: how they are drawn, and what the table calls them.

use std::time::Duration;

use fastrand::Rng;

use crate::planted::Planted;
use crate::support::proxy::Harm;
use crate::support::s3::Fault;

/// One way in which a round fails.
#[derive(Clone, Copy, Debug)]
pub enum Trouble {
    /// So many requests of this kind meet a fault.
    Request(u32, &'static str, &'static str, Fault),
    /// A connection to S3 meets this.
    S3(Harm),
    /// A connection to PostgreSQL meets this: the first one, which asks for the version, or pg_dump's.
    Postgres(Harm, bool),
    /// Nobody is at S3's address from one time on, for another.
    S3Away(Duration, Duration),
    /// pg_dump is killed.
    KillDump(Duration),
    /// A server process of PostgreSQL's is killed, and with it all of them.
    KillServer(Duration),
    /// pg_dump's connection is ended by the server.
    EndConnection(Duration),
    /// pgkeep is killed.
    Kill(Duration),
    /// pgkeep is asked to stop.
    Stop(Duration),
    /// pgkeep is asked to stop, and then asked again.
    StopNow(Duration),
    /// Another pgkeep backs up the same database to the same place, and S3 takes so long for each request.
    Pair(Duration),
    /// Somebody put an object into the bucket that is named as a backup, so many seconds ago.
    Planted(Planted, u32),
    /// One of PostgreSQL's clients stands still, for good or for so long.
    Freeze(Peer, Option<Duration>),
    /// S3's clock is so many hours ahead.
    Clock(i64),
}

/// Who stands still.
#[derive(Clone, Copy, Debug)]
pub enum Peer {
    /// pg_dump, so long after it was seen.
    Dump(Duration),
    /// psql, before it asks the first question.
    Question,
}

/// What S3 says on its bad days. The part of path and query keeps apart what is the same method.
const REQUESTS: [(&str, &str, Fault); 27] = [
    ("PUT", "", Fault::Answer(500, "InternalError")),
    ("PUT", "", Fault::Answer(503, "SlowDown")),
    ("PUT", "", Fault::Answer(429, "TooManyRequests")),
    ("PUT", "", Fault::Answer(403, "AccessDenied")),
    ("PUT", "", Fault::SlowDown(1)),
    ("PUT", "", Fault::ChangeBody),
    ("PUT", "", Fault::CutInBody),
    ("PUT", "", Fault::LoseAnswer),
    ("PUT", "", Fault::WrongEtag),
    ("PUT", "partNumber=", Fault::Answer(404, "NoSuchUpload")),
    ("PUT", "partNumber=2", Fault::Answer(500, "InternalError")),
    ("PUT", "partNumber=2", Fault::LoseAnswer),
    ("POST", "uploads=", Fault::Answer(500, "InternalError")),
    ("POST", "uploads=", Fault::LoseAnswer),
    ("POST", "uploads=", Fault::Document("<html>Welcome!</html>")),
    ("POST", "uploadId=", Fault::LoseAnswer),
    ("POST", "uploadId=", Fault::Answer(503, "ServiceUnavailable")),
    ("POST", "uploadId=", Fault::Answer(404, "NoSuchUpload")),
    (
        "POST",
        "uploadId=",
        Fault::Document("<Error><Code>InternalError</Code><Message>late</Message></Error>"),
    ),
    ("POST", "uploadId=", Fault::Document("<Error><Code>AccessDenied</Code><Message>late</Message></Error>")),
    ("GET", "list-type=2", Fault::Answer(500, "InternalError")),
    ("GET", "list-type=2", Fault::Answer(403, "AccessDenied")),
    ("GET", "list-type=2", Fault::CutAnswer(100)),
    ("HEAD", "", Fault::Answer(500, "InternalError")),
    ("HEAD", "", Fault::Answer(403, "AccessDenied")),
    ("DELETE", "", Fault::Answer(403, "AccessDenied")),
    ("DELETE", "", Fault::LoseAnswer),
];

/// Any of them. `long` allows those that take long.
pub fn draw(rng: &mut Rng, long: bool) -> Trouble {
    // Small numbers as often as large ones: a header, a small answer, a part.
    let [up, down] = [rng.u8(1..25), rng.u8(1..25)].map(|bits| rng.u64(0..1 << bits));
    let harm = match rng.u8(..9) {
        0 => Harm::Drop,
        1 | 2 => Harm::CutUp(up),
        3 => Harm::CutDown(down),
        4 => Harm::HalfClose(down),
        5 => Harm::Pause(down),
        6 => Harm::Trickle,
        // It takes half a minute to be noticed.
        7 if long => Harm::Stall(down),
        _ => Harm::Repeat(down),
    };
    let moment = Duration::from_millis(rng.u64(..1200));
    // The last kinds take longer than the short form has.
    match rng.u8(..if long { 24 } else { 15 }) {
        0..=5 => {
            let (method, part, fault) = REQUESTS[rng.usize(..REQUESTS.len())];
            let times = [1, 1, 2, if long { 9 } else { 3 }][rng.usize(..4)];
            Trouble::Request(times, method, part, fault)
        }
        6 | 7 => Trouble::S3(harm),
        // A PostgreSQL that holds its connections open and says nothing, or what nobody understands, is waited for.
        8 | 9 if !matches!(harm, Harm::Stall(_) | Harm::Repeat(_)) => {
            Trouble::Postgres(harm, rng.u8(..4) == 0)
        }
        8 | 9 => Trouble::S3(harm),
        10 => Trouble::S3Away(moment, Duration::from_millis(rng.u64(..3000))),
        11 => Trouble::KillDump(moment / 4),
        12 if rng.bool() => Trouble::KillServer(moment / 4),
        12 => Trouble::EndConnection(moment / 4),
        13 => Trouble::Kill(moment),
        14 if rng.bool() => Trouble::Stop(moment),
        14 => Trouble::StopNow(moment),
        15 | 16 => Trouble::Pair(moment / 6),
        17 | 18 => Trouble::Planted(Planted::ALL[rng.usize(..Planted::ALL.len())], rng.u32(1..7200)),
        19..=21 => {
            let peer = if rng.u8(..3) == 0 { Peer::Question } else { Peer::Dump(moment / 4) };
            Trouble::Freeze(peer, rng.bool().then_some(moment / 4))
        }
        _ => Trouble::Clock(if rng.bool() { 1 } else { -1 } * rng.i64(1..100)),
    }
}

/// The row of the table that a round counts in.
pub fn kind(trouble: Trouble, large: bool) -> String {
    let size = if large { "parts" } else { "one part" };
    match trouble {
        Trouble::Request(_, method, part, fault) => {
            let fault = format!("{fault:?}");
            let fault = fault.split(['{', '<']).next().expect("its beginning").trim_end_matches("(\"");
            format!("S3: {} {fault}", format!("{method} {part}").trim())
        }
        Trouble::S3(harm) => format!("S3 connection: {}, {size}", name(harm)),
        Trouble::Postgres(harm, _) => format!("PostgreSQL connection: {}, {size}", name(harm)),
        Trouble::S3Away(..) => "S3 is away for a while".into(),
        Trouble::KillDump(_) => "kill -9 pg_dump".into(),
        Trouble::KillServer(_) => "kill -9 of a PostgreSQL server process".into(),
        Trouble::EndConnection(_) => "PostgreSQL ends the connection".into(),
        Trouble::Kill(_) => "kill -9 pgkeep".into(),
        Trouble::Stop(_) => "SIGTERM".into(),
        Trouble::StopNow(_) => "SIGTERM twice".into(),
        Trouble::Pair(_) => format!("two backups at once, {size}"),
        Trouble::Planted(planted, _) => format!("planted: {}", planted.name()),
        Trouble::Freeze(peer, thaw) => {
            let peer = if let Peer::Dump(_) = peer { "pg_dump" } else { "psql's first question" };
            format!("SIGSTOP {peer}{}", if thaw.is_some() { ", then SIGCONT" } else { "" })
        }
        Trouble::Clock(_) => "S3's clock is wrong by hours".into(),
    }
}

fn name(harm: Harm) -> String {
    let name = format!("{harm:?}");
    name.split('(').next().expect("its beginning").to_owned()
}
