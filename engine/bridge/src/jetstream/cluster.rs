//! The connection to a cluster of NATS servers, and how the client shows who it is.

use super::{ANSWER, CONFIRMATION, Stream, transient};
use crate::remote::RemoteError;
use async_nats::jetstream::Context;
use async_nats::jetstream::context::ContextBuilder;
use async_nats::{Client, ConnectOptions, Event};
use std::collections::VecDeque;
use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::runtime::Runtime;

/// Why there is no connection to a cluster.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// An address is malformed, or a file with credentials cannot be read.
    #[error("servers {servers}: {cause}")]
    Refused {
        /// The addresses.
        servers: String,
        /// Why, as text.
        cause: String,
    },
    /// The settings need a feature of this crate that the program was built without.
    #[error("servers {servers}: {setting} needs the feature `tls` of slipring-bridge: build the program with it")]
    Feature {
        /// The addresses.
        servers: String,
        /// The setting.
        setting: &'static str,
    },
    /// The operating system gave no thread.
    #[error("no thread for the client of the servers: {0}")]
    Thread(#[from] std::io::Error),
}

/// How the client shows the servers who it is.
#[cfg_attr(not(feature = "tls"), expect(dead_code, reason = "a key is refused without the feature"))]
#[derive(Clone, Default)]
enum Account {
    #[default]
    Anonymous,
    Password(String, String),
    Token(String),
    /// A file that `nsc` or the operator of the servers has made.
    Credentials(PathBuf),
    /// The seed of a user's key.
    Key(String),
}

impl std::fmt::Display for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Anonymous => f.write_str("without an account"),
            Self::Password(user, _) => write!(f, "as user {user:?}"),
            Self::Token(_) => f.write_str("with a token"),
            Self::Credentials(path) => write!(f, "with the credentials in {path:?}"),
            Self::Key(_) => f.write_str("with a key"),
        }
    }
}

/// Settings of a connection; made by [`Cluster::to`].
#[derive(Clone)]
pub struct ClusterBuilder {
    servers: String,
    account: Account,
    encrypts: bool,
    roots: Option<PathBuf>,
    certificate: Option<(PathBuf, PathBuf)>,
}

impl ClusterBuilder {
    /// Sets a user's name and password.
    pub fn user_and_password(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.account = Account::Password(user.into(), password.into());
        self
    }

    /// Sets a token.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.account = Account::Token(token.into());
        self
    }

    /// Sets a file of credentials: a user's token and key, as NATS's own tools make it. Needs the feature `tls`.
    pub fn credentials(mut self, path: impl Into<PathBuf>) -> Self {
        self.account = Account::Credentials(path.into());
        self
    }

    /// Sets the seed of a user's key, which begins with `SU`. Needs the feature `tls`.
    pub fn key(mut self, seed: impl Into<String>) -> Self {
        self.account = Account::Key(seed.into());
        self
    }

    /// Refuses servers that do not encrypt the connection. Needs the feature `tls`.
    pub fn encrypt(mut self, yes: bool) -> Self {
        self.encrypts = yes;
        self
    }

    /// Sets a PEM file with the authorities whose servers are trusted, instead of the system's. Encrypts. Needs the feature
    /// `tls`.
    pub fn roots(mut self, path: impl Into<PathBuf>) -> Self {
        self.roots = Some(path.into());
        self.encrypt(true)
    }

    /// Sets PEM files with this client's certificate and its key, which the servers ask for. Encrypts. Needs the feature
    /// `tls`.
    pub fn certificate(mut self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.certificate = Some((certificate.into(), key.into()));
        self.encrypt(true)
    }

    /// The first setting that needs the feature `tls`.
    fn needs_feature(&self) -> Option<&'static str> {
        match &self.account {
            Account::Credentials(_) => Some("a file of credentials"),
            Account::Key(_) => Some("a key"),
            _ if self.encrypts => Some("an encrypted connection"),
            _ => self.servers.contains("tls://").then_some("an encrypted connection"),
        }
    }

    /// Connects to one of the servers. Returns before the connection stands: it is tried again for ever, also later,
    /// whenever it is lost, and also while the servers refuse the account.
    ///
    /// # Errors
    /// An address is malformed, a file cannot be read, or a setting needs a feature that the program was built without.
    pub fn connect(self) -> Result<Cluster, ConnectError> {
        let servers = self.servers.clone();
        if let Some(setting) = self.needs_feature().filter(|_| cfg!(not(feature = "tls"))) {
            return Err(ConnectError::Feature { servers, setting });
        }
        let refused = |cause: String| ConnectError::Refused { servers: servers.clone(), cause };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("slipring-nats")
            .enable_all()
            .build()?;
        let refusal = Arc::new(Mutex::new(None));
        let seen = Arc::clone(&refusal);
        let note = move |event: &Event| {
            let mut refusal = seen.lock().unwrap_or_else(PoisonError::into_inner);
            match event {
                Event::Connected => *refusal = None,
                Event::ServerError(cause) => *refusal = Some(cause.to_string()),
                Event::ClientError(cause) => *refusal = Some(cause.to_string()),
                _ => {}
            }
        };
        let account = self.account.to_string();
        let mut options = self.options().map_err(refused)?;
        options = options
            .retry_on_initial_connect()
            // A server that was stopped is noticed after two of these.
            .ping_interval(Duration::from_secs(1))
            .connection_timeout(ANSWER)
            .request_timeout(Some(ANSWER))
            .event_callback(move |event| {
                note(&event);
                std::future::ready(())
            });
        let addresses: Vec<&str> = servers.split(',').map(str::trim).collect();
        let client = runtime.block_on(options.connect(addresses)).map_err(|cause| refused(cause.to_string()))?;
        // The client's own limit for a confirmation begins when it is waited for, so the bridge counts by itself.
        let context = ContextBuilder::new().timeout(ANSWER).ack_timeout(10 * CONFIRMATION);
        let context = {
            let _entered = runtime.enter();
            context.max_ack_inflight(1 << 20).build(client.clone())
        };
        let (runtime, servers, account) = (Arc::new(runtime), (&*servers).into(), (&*account).into());
        Ok(Cluster { runtime, client, context, servers, account, refusal })
    }

    fn options(self) -> Result<ConnectOptions, String> {
        let mut options = match self.account {
            Account::Anonymous => ConnectOptions::new(),
            Account::Password(user, password) => ConnectOptions::with_user_and_password(user, password),
            Account::Token(token) => ConnectOptions::with_token(token),
            #[cfg(feature = "tls")]
            Account::Credentials(path) => {
                let text = std::fs::read_to_string(&path).map_err(|cause| format!("{path:?}: {cause}"))?;
                ConnectOptions::with_credentials(&text).map_err(|cause| format!("{path:?}: {cause}"))?
            }
            #[cfg(feature = "tls")]
            Account::Key(seed) => ConnectOptions::with_nkey(seed),
            #[cfg(not(feature = "tls"))]
            Account::Credentials(_) | Account::Key(_) => return Err("built without the feature `tls`".to_owned()),
        };
        options = options.require_tls(self.encrypts);
        for path in self.roots.iter().chain(self.certificate.iter().flat_map(|(certificate, key)| [certificate, key])) {
            // The client reads them at each connection, and would only say later that they are not there.
            std::fs::metadata(path).map_err(|cause| format!("{path:?}: {cause}"))?;
        }
        if let Some(path) = self.roots {
            options = options.add_root_certificates(path);
        }
        if let Some((certificate, key)) = self.certificate {
            options = options.add_client_certificate(certificate, key);
        }
        Ok(options)
    }
}

impl std::fmt::Debug for ClusterBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ClusterBuilder({}, {})", self.servers, self.account)
    }
}

/// A connection to a cluster of NATS servers. Cloning gives another handle of the same connection.
#[derive(Clone)]
pub struct Cluster {
    pub(super) runtime: Arc<Runtime>,
    pub(super) client: Client,
    pub(super) context: Context,
    servers: Arc<str>,
    account: Arc<str>,
    /// What the servers or the client have said last against the connection; `None` once it stands.
    refusal: Arc<Mutex<Option<String>>>,
}

impl Cluster {
    /// Returns the settings of a connection to one of these servers, `nats://host:port` each, separated by commas. Finish
    /// them with [`connect`](ClusterBuilder::connect).
    pub fn to(servers: impl Into<String>) -> ClusterBuilder {
        let (account, servers) = (Account::default(), servers.into());
        ClusterBuilder { servers, account, encrypts: false, roots: None, certificate: None }
    }

    /// Connects to one of these servers without an account: [`to`](Self::to) and [`connect`](ClusterBuilder::connect).
    ///
    /// # Errors
    /// An address is malformed.
    pub fn connect(servers: &str) -> Result<Self, ConnectError> {
        Self::to(servers).connect()
    }

    /// The stream of this name with this subject, which has that many replicas. It is created when it is used first and
    /// does not exist.
    pub fn stream(&self, name: impl Into<String>, subject: impl Into<String>, replicas: usize) -> Stream {
        Stream {
            cluster: self.clone(),
            name: name.into(),
            subject: subject.into(),
            replicas,
            flight: VecDeque::new(),
            failed: None,
            seen: false,
            missing: 0,
            following: None,
        }
    }

    /// The stream for a partition of a topic: named `PREFIX-TOPIC-PARTITION`, with a `~` for each dot of the topic's name,
    /// and with the subject `PREFIX.TOPIC.PARTITION`.
    pub fn partition(&self, prefix: &str, topic: &str, partition: u32, replicas: usize) -> Stream {
        let (name, subject) = (topic.replace('.', "~"), format!("{prefix}.{topic}.{partition}"));
        self.stream(format!("{prefix}-{name}-{partition}"), subject, replicas)
    }

    /// Waits for the end of some requests, each of which has its own limit. The client's limits begin once a request is in its
    /// queue, and for room in the queue it waits without one while there is no connection. So all of it has a limit here.
    pub(super) fn wait<T>(
        &self,
        requests: u32,
        work: impl Future<Output = Result<T, RemoteError>>,
    ) -> Result<T, RemoteError> {
        let limit = (requests + 1) * ANSWER;
        let ended = self.runtime.block_on(async { tokio::time::timeout(limit, work).await });
        ended.unwrap_or_else(|_| Err(transient(format!("no connection takes a request for {limit:?}"))))
    }

    /// What the servers or the client have said last against the connection, with the account; `None` while it stands.
    pub fn refusal(&self) -> Option<String> {
        let refusal = self.refusal.lock().unwrap_or_else(PoisonError::into_inner);
        refusal.as_ref().map(|cause| format!("servers {} {}: {cause}", self.servers, self.account))
    }
}

impl std::fmt::Display for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.servers)
    }
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cluster({})", self.servers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::{Envelope, Kind, Tip, Writer};
    use crate::remote::Remote as _;

    #[test]
    fn what_the_program_was_built_without_is_named_and_secrets_are_not() {
        let to = || Cluster::to("nats://127.0.0.1:1");
        let wanted = [to().credentials("/none"), to().key("SUA"), to().encrypt(true), Cluster::to("tls://a")];
        for builder in wanted.into_iter().filter(|_| cfg!(not(feature = "tls"))) {
            let cause = builder.connect().unwrap_err().to_string();
            assert!(cause.contains("needs the feature `tls`"), "{cause}");
        }
        #[cfg(feature = "tls")]
        for builder in [to().credentials("/none"), to().roots("/none"), to().certificate("/none", "/none")] {
            let cause = builder.connect().unwrap_err().to_string();
            assert!(cause.starts_with("servers nats://127.0.0.1:1: \"/none\": "), "{cause}");
        }
        let shown = format!("{:?} {:?}", to().user_and_password("shop", "hush"), to().token("hush"));
        assert!(shown.contains("as user \"shop\"") && !shown.contains("hush"), "{shown}");
    }

    /// While there is no connection the client keeps requests in a queue. Once it was full, a bridge waited for room in it until the
    /// connection was back, and could not be ended before.
    #[test]
    fn nobody_waits_for_room_in_the_client_while_there_is_no_connection() {
        let cluster = Cluster::connect("nats://127.0.0.1:1").unwrap();
        let (mut stream, writer) =
            (cluster.partition("none", "orders", 0, 3), Writer { journal: [0; 16], epoch: 1, nonce: 1 });
        let mark = Envelope::mark(Kind::Mark, writer, Tip::default());
        let mut sent = 1..=100_000;
        assert!(sent.any(|sequence| stream.send(&mark, sequence).is_err()), "the queue has an end");
        type Request = fn(&mut Stream) -> RemoteError;
        let requests: [Request; 4] = [
            |stream| stream.numbers().unwrap_err(),
            |stream| stream.read(1..3).unwrap_err(),
            |stream| stream.follow(1, Duration::ZERO).unwrap_err(),
            |stream| stream.delete(1).unwrap_err(),
        ];
        let (answer, answers) = std::sync::mpsc::channel();
        for request in requests {
            let (mut stream, answer) = (cluster.partition("none", "orders", 0, 3), answer.clone());
            std::thread::spawn(move || answer.send(request(&mut stream)));
        }
        for _ in requests {
            let cause = answers.recv_timeout(Duration::from_secs(60)).expect("every wait has a limit").to_string();
            assert!(cause.contains("no connection takes a request"), "{cause}");
        }
    }
}
