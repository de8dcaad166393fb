//! What is asked of a server before work begins, in one session.

use std::time::Duration;

use anyhow::{anyhow, Context, Result};
use log::debug;

use super::search_path::{pinned, Access};
use super::session::Session;
use super::{pooler, Postgres, Properties};

const SERVER: &str = "SELECT current_setting('server_version_num'), current_setting('server_version'), \
     pg_database_size(current_database());";
const CLUSTER_ID: &str = "SELECT system_identifier FROM pg_catalog.pg_control_system();";

/// What the server says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Such as `16.4 (Debian 16.4-1)`.
    pub version: String,
    /// Such as 16.
    pub major: u32,
    /// The database's size on the server in bytes.
    pub database_size: u64,
}

/// What a backup has to know of a server and a database.
#[derive(Clone, Debug)]
pub struct Interview {
    /// About the server.
    pub server: Server,
    /// About the database, if it was asked for.
    pub properties: Option<Properties>,
    /// The same as from [`Postgres::cluster_id`].
    pub cluster: Option<String>,
}

impl Postgres {
    /// Asks what a backup has to know, and for the properties of `database`, if one is named. Tries three times
    /// to reach the server.
    ///
    /// # Errors
    /// The server cannot be reached, or does not answer, or a pooler shares its backends: [`pooler::SHARED`].
    pub fn interview(&self, database: Option<&str>) -> Result<Interview> {
        let (mut session, server) = self.insist(|limit| self.greet(limit))?;
        // It connects while the first one answers.
        let other = self.session();
        let mut ask = |script: &str| session.ask(&pinned(script, Access::ReadOnly, self.quick()));
        let properties = database.map(|name| Properties::read(&ask(&Properties::query(name))?)).transpose();
        let properties = properties.context("cannot look at the database's properties")?;
        let cluster = ask(&format!("\\set ON_ERROR_STOP off\n{CLUSTER_ID}\n\\set ON_ERROR_STOP on"))?;
        pooler::refuse_shared_backends(session, other)?;
        Ok(Interview { server, properties, cluster: Some(cluster).filter(|id| !id.is_empty()) })
    }

    /// Asks the server for its version and the database's size, with a real query.
    pub fn ask(&self) -> Result<Server> {
        let (mut session, server) = self.greet(self.quick())?;
        session.end()?;
        Ok(server)
    }

    /// The same within `limit`, in a session that stays.
    pub(super) fn greet(&self, limit: Duration) -> Result<(Session, Server)> {
        let database = self.connection.get("dbname").unwrap_or_default();
        let mut session = Session::start(self, limit)?;
        let answer = session.ask(&pinned(SERVER, Access::ReadOnly, limit)).map_err(pooler::explain);
        let answer = answer.with_context(|| format!("cannot reach database \"{database}\""))?;
        let server = parse(&answer).ok_or_else(|| anyhow!("psql answered \"{answer}\" to: {SERVER}"))?;
        Ok((session, server))
    }

    /// The identifier of the server's cluster. initdb gave it, and a standby has the same one. `None` if the
    /// server does not say it. Since PostgreSQL 9.6 everybody may ask, unless somebody has revoked the right.
    pub fn cluster_id(&self) -> Option<String> {
        self.query(CLUSTER_ID)
            .inspect_err(|problem| debug!("the cluster has no identifier: {problem:#}"))
            .ok()
    }
}

fn parse(answer: &str) -> Option<Server> {
    let mut fields = answer.split('\t');
    let number: u32 = fields.next()?.parse().ok()?;
    let version = fields.next()?.to_owned();
    let database_size = fields.next()?.parse().ok()?;
    Some(Server { version, major: number / 10_000, database_size })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_answer_is_read() {
        let server = parse("150018\t15.18 (Debian 15.18-0+deb12u1)\t7631663").unwrap();
        assert_eq!((server.major, server.database_size), (15, 7_631_663));
        assert_eq!(server.version, "15.18 (Debian 15.18-0+deb12u1)");
        assert_eq!(parse(""), None);
        assert_eq!(parse("150018\t15.18"), None);
    }
}
