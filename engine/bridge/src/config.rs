//! Settings of bridges from a TOML file, with the words of the code.
//!
//! ```toml
//! journal = "journal"                     # the engine's directory, relative to this file
//!
//! [cluster]
//! servers = "nats://10.0.0.1:4222,nats://10.0.0.2:4222,nats://10.0.0.3:4222"
//! prefix = "shop"                         # streams are named shop-TOPIC-PARTITION
//! replicas = 3
//! user = "shop"
//! password = "secret"                     # or `token`, or, with the feature `tls`, `credentials` or `key`
//!
//! [[outward]]
//! name = "nats"
//! topic = "orders"
//! hold = 1_073_741_824                    # bytes of a partition that the journal keeps while the cluster is away
//! refuse_large = true                     # producers are refused messages that the servers do not take
//! uncopied = "stop"                       # or "skip"
//! window = { messages = 1000, bytes = 8_388_608, answer = "2s", pause = "200ms", packed = 1 }
//!
//! [[inward]]
//! name = "in"
//! topic = "quotes"
//! partitions = 2
//! ```
//!
//! With a lease, several machines run with one file each, and one of them works; the others keep copies of its topics:
//!
//! ```toml
//! [lease]
//! bucket = "slipring"                     # a key-value bucket of the cluster
//! holder = "machine a"
//! lasts = "10s"
//! program = ["shop", "--journal", "journal"]
//! ```
//!
//! Everything but `journal`, `servers`, `name` and `topic` can be left out. A word that is not known is an error, so a typing
//! error does not pass for a default.
//!
//! ```
//! use slipring_bridge::config::Config;
//!
//! let text = "journal = 'journal'\n[cluster]\nservers = 'nats://127.0.0.1:4222'\n[[outward]]\nname = 'nats'\ntopic = 'orders'";
//! let config = Config::parse(text, "/var/lib/shop".as_ref())?;
//! assert_eq!(config.journal.to_str(), Some("/var/lib/shop/journal"));
//! assert_eq!((config.cluster.replicas, config.outward[0].topic.name.as_str()), (3, "orders"));
//!
//! let typo = Config::parse(&format!("{text}\nhodl = 5"), "".as_ref()).unwrap_err().to_string();
//! assert!(typo.contains("hodl"), "{typo}");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use crate::bridge::Bridge;
use crate::inward::Inbound;
use crate::jetstream::{Cluster, ConnectError, Lease, Stream};
use crate::outbound::{Outbound, Uncopied};
use crate::outward::Window;
use crate::record::Record;
use crate::standby::StandbyTopic;
use serde::{Deserialize, Deserializer};
use slipring::topic::TopicError;
use slipring::{Engine, Message, Topic};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why settings were not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path:?}: {cause}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        cause: std::io::Error,
    },
    /// The text is not TOML, has a word that is not known, or lacks one.
    #[error("{0}")]
    Malformed(String),
    /// Two settings do not fit together.
    #[error("{0}")]
    Contradiction(String),
}

/// All settings of a file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Config {
    /// The directory of the engine's journal. A relative one begins at the file's folder.
    pub journal: PathBuf,
    /// The path of the socket at which `slipring top` finds the engine; `None` for no socket.
    pub observe: Option<PathBuf>,
    /// The servers.
    pub cluster: ClusterConfig,
    /// The bridges outward.
    #[serde(default)]
    pub outward: Vec<OutwardConfig>,
    /// The imports.
    #[serde(default)]
    pub inward: Vec<InwardConfig>,
    /// The lease without which no bridge runs; `None` if this machine needs none.
    pub lease: Option<LeaseConfig>,
}

/// A lease in a key-value bucket, by which one of several machines runs the bridges: see [`Lease`].
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct LeaseConfig {
    /// The bucket's name. Default: `slipring`.
    #[serde(default = "prefix")]
    pub bucket: String,
    /// The key in the bucket; `None` for the cluster's `prefix`.
    pub key: Option<String>,
    /// This machine's name, for people; `None` for none.
    pub holder: Option<String>,
    /// How long the lease lasts without a renewal. Default: 10 s.
    #[serde(default, deserialize_with = "duration")]
    pub lasts: Option<Duration>,
    /// The program that runs while this machine holds the lease, with its arguments. It opens the journal by itself, and
    /// starts bridges outward of the names in this file. `None` if the bridges run without a program.
    pub program: Option<Vec<String>>,
}

/// The servers, and what the streams are called.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ClusterConfig {
    /// The addresses, separated by commas.
    pub servers: String,
    /// With what the streams' names begin. Default: `slipring`.
    #[serde(default = "prefix")]
    pub prefix: String,
    /// How many replicas each stream has. Default: 3.
    #[serde(default = "replicas")]
    pub replicas: usize,
    /// A user's name, with `password`.
    pub user: Option<String>,
    /// The user's password.
    pub password: Option<String>,
    /// A token.
    pub token: Option<String>,
    /// A file of credentials.
    pub credentials: Option<PathBuf>,
    /// The seed of a user's key.
    pub key: Option<String>,
    /// Encryption; `None` for none, unless an address says `tls://`.
    pub tls: Option<TlsConfig>,
}

/// How the connection is encrypted.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct TlsConfig {
    /// A PEM file with the authorities whose servers are trusted; `None` for those of the system.
    pub roots: Option<PathBuf>,
    /// A PEM file with this client's certificate, with `key`.
    pub certificate: Option<PathBuf>,
    /// A PEM file with the certificate's key.
    pub key: Option<PathBuf>,
}

/// A topic on this machine. Its settings beside the name are for a topic that the journal does not have yet.
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
pub struct TopicConfig {
    /// The topic's name.
    #[serde(rename = "topic")]
    pub name: String,
    /// The number of partitions; `None` for those that the journal has, or else 1.
    pub partitions: Option<usize>,
    /// The size of the largest message in bytes; `None` for that of the journal, or else the engine's default. For a topic that
    /// is imported, [`Record::ORIGIN_SIZE`] is added to what the file says, or to the default.
    pub max_message: Option<usize>,
}

/// A bridge outward: see [`Outbound`].
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
pub struct OutwardConfig {
    /// The bridge's name.
    pub name: String,
    /// The topic that is copied.
    #[serde(flatten)]
    pub topic: TopicConfig,
    /// See [`Outbound::hold`].
    pub hold: Option<u64>,
    /// See [`Outbound::uncopied`].
    #[serde(default, deserialize_with = "uncopied")]
    pub uncopied: Uncopied,
    /// See [`Outbound::refuse_large`]; `None` for its default.
    pub refuse_large: Option<bool>,
    /// See [`Outbound::take_over`].
    #[serde(default)]
    pub take_over: bool,
    /// See [`Outbound::window`].
    #[serde(default)]
    pub window: WindowConfig,
    /// Words that are not known.
    #[serde(flatten)]
    unknown: toml::Table,
}

/// How much may be on its way: see [`Window`].
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct WindowConfig {
    /// See [`Window::messages`].
    pub messages: Option<usize>,
    /// See [`Window::bytes`].
    pub bytes: Option<usize>,
    /// See [`Window::answer`].
    #[serde(default, deserialize_with = "duration")]
    pub answer: Option<Duration>,
    /// See [`Window::packed`].
    pub packed: Option<usize>,
    /// See [`Window::pause`].
    #[serde(default, deserialize_with = "duration")]
    pub pause: Option<Duration>,
}

/// An import: see [`Inbound`].
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
pub struct InwardConfig {
    /// The import's name.
    pub name: String,
    /// The topic that gets the records.
    #[serde(flatten)]
    pub topic: TopicConfig,
    /// The topic's name where the records come from; `None` if it is the same.
    pub from: Option<String>,
    /// With what the streams' names begin; `None` for the cluster's `prefix`.
    pub prefix: Option<String>,
    /// Words that are not known.
    #[serde(flatten)]
    unknown: toml::Table,
}

/// The largest message of a topic in bytes by default, which is the engine's.
const MESSAGE: usize = 1024;
/// How long a lease lasts by default.
const LEASE: Duration = Duration::from_secs(10);
/// The shortest lease: an answer of the servers may take some seconds, and one of them may die meanwhile.
const SHORTEST_LEASE: Duration = Duration::from_secs(6);

fn prefix() -> String {
    "slipring".to_owned()
}

fn replicas() -> usize {
    3
}

fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(from)?;
    let wrong = |cause| serde::de::Error::custom(format!("{text:?} is no duration such as \"2s\": {cause}"));
    humantime::parse_duration(&text).map(Some).map_err(wrong)
}

fn uncopied<'de, D: Deserializer<'de>>(from: D) -> Result<Uncopied, D::Error> {
    match &*String::deserialize(from)? {
        "stop" => Ok(Uncopied::Stop),
        "skip" => Ok(Uncopied::Skip),
        other => Err(serde::de::Error::custom(format!("{other:?} is neither \"stop\" nor \"skip\""))),
    }
}

impl Config {
    /// Reads a file. Its relative paths begin at its folder.
    ///
    /// # Errors
    /// The file cannot be read, or its settings are malformed or contradict each other.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let unreadable = |cause| ConfigError::Unreadable { path: path.to_owned(), cause };
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        Self::parse(&text, path.parent().unwrap_or(Path::new("")))
            .map_err(|cause| ConfigError::Malformed(format!("{}: {cause}", path.display())))
    }

    /// Reads settings from a text. Relative paths begin at `folder`.
    ///
    /// # Errors
    /// The settings are malformed or contradict each other.
    pub fn parse(text: &str, folder: &Path) -> Result<Self, ConfigError> {
        let mut config: Self = toml::from_str(text).map_err(|cause| ConfigError::Malformed(cause.to_string()))?;
        let tls = config.cluster.tls.iter_mut();
        let tls = tls.flat_map(|tls| [&mut tls.roots, &mut tls.certificate, &mut tls.key]);
        let paths = [Some(&mut config.journal), config.observe.as_mut(), config.cluster.credentials.as_mut()];
        for path in paths.into_iter().flatten().chain(tls.filter_map(Option::as_mut)) {
            *path = folder.join(&*path);
        }
        config.check()?;
        config.make_room();
        Ok(config)
    }

    /// Adds the room that imported records need for their origin's header.
    fn make_room(&mut self) {
        for import in &mut self.inward {
            let bytes = import.topic.max_message.unwrap_or(MESSAGE) + Record::ORIGIN_SIZE;
            import.topic.max_message = Some(bytes);
            // A topic that is copied both ways is opened twice, and has one size.
            for at in self.outward.iter_mut().filter(|at| at.topic.name == import.topic.name) {
                at.topic.max_message = Some(at.topic.max_message.unwrap_or(MESSAGE).max(bytes));
                import.topic.max_message = at.topic.max_message;
            }
        }
    }

    fn check(&self) -> Result<(), ConfigError> {
        let wrong = |cause: String| Err(ConfigError::Contradiction(cause));
        let outward = self.outward.iter().map(|it| ("outward", &it.name, &it.unknown));
        let inward = self.inward.iter().map(|it| ("inward", &it.name, &it.unknown));
        let mut named = Vec::new();
        for (list, name, unknown) in outward.chain(inward) {
            if let Some(word) = unknown.keys().next() {
                return Err(ConfigError::Malformed(format!("[[{list}]] {name:?}: {word:?} is no setting")));
            }
            if named.contains(&name) {
                return wrong(format!("[[{list}]] {name:?}: the name is used twice"));
            }
            named.push(name);
        }
        for at in &self.outward {
            if self.outward.iter().filter(|it| it.topic.name == at.topic.name).count() > 1 {
                return wrong(format!("topic {:?} is copied by two bridges: it can have one", at.topic.name));
            }
            if self.inward.iter().any(|it| it.topic.name == at.topic.name && it.is_from(&self.cluster.prefix, at)) {
                return wrong(format!(
                    "topic {:?} is imported from the streams to which it is copied: import the streams of other machines, which have another `prefix`",
                    at.topic.name
                ));
            }
        }
        if let Some(LeaseConfig { lasts, program, .. }) = &self.lease {
            if lasts.is_some_and(|lasts| lasts < SHORTEST_LEASE) {
                return wrong(format!("[lease]: `lasts` is at least {}", humantime::format_duration(SHORTEST_LEASE)));
            }
            if program.as_ref().is_some_and(Vec::is_empty) {
                return wrong("[lease]: `program` names no program".to_owned());
            }
            if self.outward.is_empty() {
                return wrong("[lease]: without [[outward]] there is nothing to take over".to_owned());
            }
        }
        self.cluster.check().map_or(Ok(()), |cause| wrong(format!("[cluster]: {cause}")))
    }
}

impl LeaseConfig {
    /// The lease.
    pub fn lease(&self, of: &ClusterConfig, cluster: &Cluster) -> Lease {
        let (key, holder) = (self.key.as_ref().unwrap_or(&of.prefix), self.holder.as_deref().unwrap_or_default());
        cluster.lease((&*self.bucket, &**key), holder, self.lasts.unwrap_or(LEASE), of.replicas)
    }
}

impl ClusterConfig {
    /// Which settings contradict each other; `None` if none do.
    fn check(&self) -> Option<&'static str> {
        let accounts = [self.user.is_some(), self.token.is_some(), self.credentials.is_some(), self.key.is_some()];
        let tls = self.tls.as_ref();
        match () {
            () if accounts.into_iter().filter(|is| *is).count() > 1 => {
                Some("take one of `user`, `token`, `credentials` and `key`")
            }
            () if self.user.is_some() != self.password.is_some() => Some("`user` and `password` belong together"),
            () if tls.is_some_and(|tls| tls.certificate.is_some() != tls.key.is_some()) => {
                Some("`tls.certificate` and `tls.key` belong together")
            }
            () if !(1..=5).contains(&self.replicas) => Some("`replicas` is a number from 1 to 5"),
            () => None,
        }
    }

    /// Connects to the servers: see [`ClusterBuilder::connect`](crate::jetstream::ClusterBuilder::connect).
    ///
    /// # Errors
    /// Those of that function.
    pub fn connect(&self) -> Result<Cluster, ConnectError> {
        let mut to = Cluster::to(&*self.servers);
        if let (Some(user), Some(password)) = (&self.user, &self.password) {
            to = to.user_and_password(user, password);
        }
        if let Some(token) = &self.token {
            to = to.token(token);
        }
        if let Some(path) = &self.credentials {
            to = to.credentials(path);
        }
        if let Some(seed) = &self.key {
            to = to.key(seed);
        }
        if let Some(tls) = &self.tls {
            to = to.encrypt(true);
            if let Some(path) = &tls.roots {
                to = to.roots(path);
            }
            if let (Some(certificate), Some(key)) = (&tls.certificate, &tls.key) {
                to = to.certificate(certificate, key);
            }
        }
        to.connect()
    }
}

impl std::fmt::Debug for ClusterConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without what is secret.
        let Self { servers, prefix, replicas, user, .. } = self;
        write!(f, "ClusterConfig({servers}, prefix {prefix:?}, {replicas} replicas, user {user:?})")
    }
}

impl TopicConfig {
    /// Opens the durable topic, or creates it. `recorded` has the number of partitions and the largest message in bytes of
    /// the topic in the journal; `None` if the journal does not have it.
    ///
    /// # Errors
    /// The engine refuses the topic.
    pub fn open(&self, engine: &Engine, recorded: Option<(usize, usize)>) -> Result<Topic<Message>, TopicError> {
        let mut topic = engine.topic::<Message>(&self.name).durable();
        if let Some(partitions) = self.partitions.or(recorded.map(|it| it.0)) {
            topic = topic.partitions(partitions);
        }
        if let Some(bytes) = self.max_message.max(recorded.map(|it| it.1)) {
            topic = topic.max_message(bytes);
        }
        topic.create()
    }
}

impl OutwardConfig {
    /// The settings as code has them.
    pub fn settings(&self) -> Outbound {
        let mut window = Window::default();
        window.messages = self.window.messages.unwrap_or(window.messages);
        window.bytes = self.window.bytes.unwrap_or(window.bytes);
        window.answer = self.window.answer.unwrap_or(window.answer);
        window.pause = self.window.pause.unwrap_or(window.pause);
        window.packed = self.window.packed.unwrap_or(window.packed);
        let settings = Bridge::outward(&*self.name).window(window).uncopied(self.uncopied).take_over(self.take_over);
        let settings = self.refuse_large.map_or(settings.clone(), |yes| settings.refuse_large(yes));
        self.hold.map_or(settings.clone(), |bytes| settings.hold(bytes))
    }

    /// The topic as a standby keeps it.
    pub fn standby(&self) -> StandbyTopic {
        let mut topic = StandbyTopic::new(&*self.name, &*self.topic.name);
        if let Some(partitions) = self.topic.partitions {
            topic = topic.partitions(partitions);
        }
        if let Some(bytes) = self.topic.max_message {
            topic = topic.max_message(bytes);
        }
        topic
    }

    /// The stream of a partition.
    pub fn stream(&self, of: &ClusterConfig, cluster: &Cluster, partition: u32) -> Stream {
        cluster.partition(&of.prefix, &self.topic.name, partition, of.replicas)
    }
}

impl InwardConfig {
    /// The settings as code has them.
    pub fn settings(&self) -> Inbound {
        Bridge::inward(&*self.name)
    }

    /// The stream of a partition.
    pub fn stream(&self, of: &ClusterConfig, cluster: &Cluster, partition: u32) -> Stream {
        let prefix = self.prefix.as_deref().unwrap_or(&of.prefix);
        let topic = self.from.as_deref().unwrap_or(&self.topic.name);
        cluster.partition(prefix, topic, partition, of.replicas)
    }

    /// True if the import reads the streams that this bridge writes.
    fn is_from(&self, prefix: &str, outward: &OutwardConfig) -> bool {
        self.prefix.as_deref().is_none_or(|own| own == prefix)
            && *self.from.as_ref().unwrap_or(&self.topic.name) == outward.topic.name
    }
}

#[cfg(test)]
mod tests;
