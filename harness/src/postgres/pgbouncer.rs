//! Debian's PgBouncer in session mode, to compare costs.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{PgServer, SETPRIV, home, is_root, write};
use crate::process::{Launch, Server, find_program};
use crate::{ports, scratch, wait};

const START: Duration = Duration::from_secs(10);

/// A running PgBouncer in front of one server.
pub struct PgBouncer {
    pub addr: SocketAddr,
    server: Server,
    _dir: scratch::Dir,
}

impl PgBouncer {
    /// Passing queries when this returns.
    pub fn start(server: &PgServer) -> Result<Self> {
        let program = find_program("pgbouncer")?;
        let dir = scratch::Dir::new()?;
        let home = home(&dir, "pgbouncer")?;
        let addr = ports::free()?;
        write(&home.join("users.txt"), "\"postgres\" \"\"\n")?;
        let ini = format!(
            "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {}\n\
             unix_socket_dir =\npool_mode = session\nauth_type = trust\nauth_file = {}\nmax_client_conn = 1000\n\
             default_pool_size = 50\nlog_connections = 0\nlog_disconnections = 0\n\
             ignore_startup_parameters = extra_float_digits\n",
            server.addr.port(),
            addr.port(),
            home.join("users.txt").display()
        );
        let conf = home.join("pgbouncer.ini");
        write(&conf, &ini)?;
        let log = dir.join("pgbouncer.log");
        // It refuses to be root, as the server does.
        let mut launch = if is_root() {
            let mut launch = Launch::new("pgbouncer", &find_program("setpriv")?, &log)?;
            launch.command().args(SETPRIV).arg("--").arg(program);
            launch
        } else {
            Launch::new("pgbouncer", &program, &log)?
        };
        launch.command().arg("-q").arg(&conf).current_dir("/");
        let bouncer = Self {
            addr,
            server: launch.start()?,
            _dir: dir,
        };
        let answering = wait::until_true("pgbouncer to answer", START, || {
            bouncer.server.check_running()?;
            let mut pg = super::Pg::connect(&addr.into(), START)?;
            Ok(pg.query("SELECT 1")? == [["1"]])
        });
        answering.with_context(|| bouncer.server.log_tail())?;
        Ok(bouncer)
    }

    pub fn server(&self) -> &Server {
        &self.server
    }
}
