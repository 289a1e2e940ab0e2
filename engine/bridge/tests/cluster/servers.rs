//! Three real servers on loopback, which are killed, stopped and started again, and end with the test.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) struct Servers {
    dir: tempfile::TempDir,
    program: PathBuf,
    ports: Vec<u16>,
    /// What stands in each server's configuration beside the rest.
    more: String,
    running: Vec<Option<Child>>,
}

/// The program, from `SLIPRING_NATS_SERVER` or the path; `None` if it is not there.
fn program() -> Option<PathBuf> {
    let named = std::env::var_os("SLIPRING_NATS_SERVER").map(PathBuf::from);
    let found = named.unwrap_or_else(|| "nats-server".into());
    let told = Command::new(&found).arg("--version").output().ok().filter(|told| told.status.success())?;
    println!("{}", String::from_utf8_lossy(&told.stdout).trim());
    Some(found)
}

impl Servers {
    /// Starts three servers. Prints why and returns `None` if there is no program for it.
    pub(crate) fn start() -> Option<Self> {
        Self::start_with("")
    }

    /// Starts three servers with more in their configuration.
    pub(crate) fn start_with(more: &str) -> Option<Self> {
        if std::env::var_os("SLIPRING_BRIDGE_CLUSTER").is_none() {
            println!("the cluster's tests are not run: set SLIPRING_BRIDGE_CLUSTER=1");
            return None;
        }
        let Some(program) = program() else {
            println!(
                "the cluster's tests: SKIPPED, there is no nats-server: put it in the path, or name it in SLIPRING_NATS_SERVER"
            );
            return None;
        };
        let listeners: Vec<_> = (0..9).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let ports = listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect();
        drop(listeners);
        let dir = tempfile::tempdir().unwrap();
        let mut servers = Self { dir, program, ports, more: more.to_owned(), running: vec![None, None, None] };
        (0..3).for_each(|number| servers.run(number));
        Some(servers)
    }

    pub(crate) fn addresses(&self) -> String {
        let all: Vec<_> = self.ports[..3].iter().map(|port| format!("nats://127.0.0.1:{port}")).collect();
        all.join(",")
    }

    /// Starts a server, with what it has stored before.
    pub(crate) fn run(&mut self, number: usize) {
        if self.running[number].is_some() {
            return;
        }
        let config = self.configure(number);
        let port = self.ports[number];
        let log = std::fs::File::create(self.dir.path().join(format!("{number}.log"))).unwrap();
        let mut server = Command::new(&self.program);
        server.arg("-c").arg(config).stdout(Stdio::null()).stderr(log);
        self.running[number] = Some(server.spawn().unwrap());
        let until = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < until, "server {number} does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Changes what stands in the configurations beside the rest, while the servers run.
    pub(crate) fn reload(&mut self, more: &str) {
        more.clone_into(&mut self.more);
        for number in 0..3 {
            self.configure(number);
            self.signal(number, "-HUP");
        }
    }

    fn configure(&self, number: usize) -> PathBuf {
        let routes: Vec<_> = self.ports[3..6].iter().map(|port| format!("nats-route://127.0.0.1:{port}")).collect();
        let (port, route, routes) = (self.ports[number], self.ports[number + 3], routes.join(", "));
        let told = self.ports[number + 6];
        let store = self.dir.path().join(number.to_string());
        let config = self.dir.path().join(format!("{number}.conf"));
        let text = format!(
            "server_name: n{number}\nlisten: 127.0.0.1:{port}\nhttp: 127.0.0.1:{told}\njetstream {{ store_dir: {store:?} }}\n\
             cluster {{ name: test, listen: 127.0.0.1:{route}, routes: [{routes}] }}\n{}\n",
            self.more
        );
        std::fs::write(&config, text).unwrap();
        config
    }

    /// Waits until each running server has found the others and has all that they have. Three servers that lose one before that
    /// may find no leader until it is back.
    pub(crate) fn settle(&self) {
        let until = Instant::now() + Duration::from_secs(60);
        for number in (0..3).filter(|number| self.running[*number].is_some()) {
            while !self.is_settled(number) {
                assert!(Instant::now() < until, "server {number} does not settle");
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }

    fn is_settled(&self, number: usize) -> bool {
        let ask = || -> std::io::Result<String> {
            let mut server = TcpStream::connect(("127.0.0.1", self.ports[number + 6]))?;
            server.set_read_timeout(Some(Duration::from_secs(5)))?;
            server.write_all(b"GET /healthz HTTP/1.0\r\n\r\n")?;
            let mut told = String::new();
            server.read_to_string(&mut told)?;
            Ok(told)
        };
        ask().is_ok_and(|told| told.contains("\"ok\""))
    }

    fn signal(&self, number: usize, signal: &str) {
        let Some(server) = &self.running[number] else { return };
        assert!(Command::new("kill").args([signal, &server.id().to_string()]).status().unwrap().success());
    }

    pub(crate) fn kill(&mut self, number: usize) {
        if let Some(mut server) = self.running[number].take() {
            // One that was stopped is killed too.
            server.kill().unwrap();
            server.wait().unwrap();
        }
    }

    /// Stops a server's process, which keeps its connections open and answers nothing, or lets it go on.
    pub(crate) fn stop(&self, number: usize, stop: bool) {
        self.signal(number, if stop { "-STOP" } else { "-CONT" });
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for server in self.running.iter_mut().flatten() {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}
