//! A real Apache Kafka (KRaft, no ZooKeeper) on this machine, for the demo and the integration tests.
//!
//! Touches the directory it is given, loopback ports, and its own child processes, which end with
//! this process whatever happens to it.

use std::fs::{self, OpenOptions};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rand::RngExt;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

pub use super::jars::jars;
use super::jars::{java, last_lines};
use super::ports::free_ports;
use super::process;
use crate::exit::Stop;

/// A node is ready in about 3 s on an idle machine; this leaves room for a busy one.
const READY_WITHIN: Duration = Duration::from_secs(120);
/// How long all nodes together may take to end when asked.
const END_WITHIN: Duration = Duration::from_secs(15);

const LOG4J: &str = "rootLogger.level = info
rootLogger.appenderRef.out.ref = out
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{ISO8601} %p %c{1} %m%n
";

/// How a cluster is laid out, beyond what every one has.
#[derive(Debug, Clone)]
pub struct Layout {
    /// Brokers, 1 or more.
    pub nodes: usize,
    /// Broker properties that win over the built-in ones.
    pub properties: Vec<(String, String)>,
    /// Listeners beside the plain one.
    pub listeners: Vec<Listener>,
    /// Further arguments of the tool that formats the data directories: `--add-scram ...`.
    pub format: Vec<String>,
    /// Arguments of Java that win over the built-in ones, which are for a small node that starts soon.
    pub java: Vec<String>,
}

impl Layout {
    /// So many nodes, with nothing beyond.
    pub fn of(nodes: usize) -> Self {
        Self {
            nodes,
            properties: Vec::new(),
            listeners: Vec::new(),
            format: Vec::new(),
            java: Vec::new(),
        }
    }
}

/// Another way in to every node: through a proxy, or with TLS and a password.
#[derive(Debug, Clone)]
pub struct Listener {
    /// Upper case letters; properties of its own are named by it in lower case.
    pub name: String,
    /// PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL.
    pub protocol: String,
    /// The port that each node listens on.
    pub ports: Vec<u16>,
    /// The port that clients are told for each node: a proxy's, or the same.
    pub advertised: Vec<u16>,
}

/// Brokers on 127.0.0.1, each also a controller. Dropped: all are killed at once.
#[derive(Debug)]
pub struct Cluster {
    java: PathBuf,
    java_arguments: Vec<String>,
    jars: PathBuf,
    dir: PathBuf,
    nodes: Vec<Node>,
}

#[derive(Debug)]
struct Node {
    port: u16,
    child: Option<Child>,
}

impl Cluster {
    /// Formats and starts `nodes` brokers (1 or more) with everything they write under `dir`, and
    /// waits until every one answers and sees all the others. About 5 s.
    ///
    /// # Errors
    /// Usage (64) when Java or the jars cannot be had, internal (70) when a node does not come up;
    /// the sentence ends with the node's log.
    pub fn start(nodes: usize, dir: &Path) -> Result<Self, Stop> {
        Self::start_as(&Layout::of(nodes), dir)
    }

    /// Like [`Cluster::start`], laid out otherwise.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub fn start_as(layout: &Layout, dir: &Path) -> Result<Self, Stop> {
        let nodes = layout.nodes;
        let java = java()?;
        let jars = jars(&|line| tracing::info!("{line}"))?;
        let ports = free_ports(2 * nodes).map_err(no_port)?;
        let (clients, controllers) = ports.split_at(nodes);
        let mut cluster = Self {
            java,
            java_arguments: layout.java.clone(),
            jars,
            dir: dir.to_path_buf(),
            nodes: clients
                .iter()
                .map(|&port| Node { port, child: None })
                .collect(),
        };
        cluster.lay_out(controllers, layout)?;
        cluster.format(&layout.format)?;
        for node in 0..nodes {
            cluster.spawn(node)?;
        }
        let deadline = Instant::now() + READY_WITHIN;
        for node in 0..nodes {
            cluster.wait_ready(node, nodes, deadline)?;
        }
        Ok(cluster)
    }

    /// What clients connect to: every node, comma separated.
    pub fn bootstrap(&self) -> String {
        let address = |node: &Node| format!("127.0.0.1:{}", node.port);
        self.nodes.iter().map(address).collect::<Vec<_>>().join(",")
    }

    /// What the node (0-based) printed, over all its starts.
    pub fn log_path(&self, node: usize) -> PathBuf {
        self.node_dir(node).join("log")
    }

    /// Kills a node (0-based) with SIGKILL. Does nothing to one that is down or does not exist.
    pub fn kill(&mut self, node: usize) {
        if let Some(mut child) = self.nodes.get_mut(node).and_then(|node| node.child.take()) {
            process::kill(&mut child);
        }
    }

    /// Asks a node (0-based) to end (SIGTERM), so that it hands over what it leads, and waits for
    /// that; kills it when it has not within 15 s.
    pub fn end(&mut self, node: usize) {
        if let Some(mut child) = self.nodes.get_mut(node).and_then(|node| node.child.take()) {
            process::ask_to_end(&mut child);
            if !matches!(
                process::wait_until(&mut child, Instant::now() + END_WITHIN),
                Ok(Some(_))
            ) {
                process::kill(&mut child);
            }
        }
    }

    /// The process of a node (0-based) that is up, for signals.
    pub fn pid(&self, node: usize) -> Option<u32> {
        Some(self.nodes.get(node)?.child.as_ref()?.id())
    }

    /// Starts a node (0-based) again on its own data and port, after killing what may be left of it.
    /// Waits until it answers and sees all nodes that are up; with less than a majority of the nodes
    /// up it returns at once, as then no node can answer.
    ///
    /// # Errors
    /// Internal (70) when it does not come up, with the end of its log.
    pub fn restart(&mut self, node: usize) -> Result<(), Stop> {
        self.kill(node);
        self.spawn(node)?;
        let up = self
            .nodes
            .iter()
            .filter(|node| node.child.is_some())
            .count();
        if up * 2 <= self.nodes.len() {
            return Ok(());
        }
        self.wait_ready(node, up, Instant::now() + READY_WITHIN)
    }

    /// Asks all nodes to end (SIGTERM), then kills those that have not within 15 s.
    pub fn stop(mut self) {
        let mut children: Vec<Child> = self
            .nodes
            .iter_mut()
            .filter_map(|node| node.child.take())
            .collect();
        children.iter_mut().for_each(process::ask_to_end);
        let deadline = Instant::now() + END_WITHIN;
        for child in &mut children {
            if !matches!(process::wait_until(child, deadline), Ok(Some(_))) {
                process::kill(child);
            }
        }
    }

    fn node_dir(&self, node: usize) -> PathBuf {
        self.dir.join(format!("node-{node}"))
    }

    /// Writes each node's directory, properties and logging configuration.
    fn lay_out(&self, controllers: &[u16], layout: &Layout) -> Result<(), Stop> {
        let voters: Vec<String> = controllers
            .iter()
            .enumerate()
            .map(|(node, port)| format!("{node}@127.0.0.1:{port}"))
            .collect();
        for (node, controller) in controllers.iter().enumerate() {
            let dir = self.node_dir(node);
            let mut properties = properties(self.nodes.len());
            let port = self.nodes[node].port;
            let mut protocols = "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT".to_owned();
            let mut bound =
                format!("PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}");
            let mut advertised = format!("PLAINTEXT://127.0.0.1:{port}");
            for listener in &layout.listeners {
                let name = &listener.name;
                protocols += &format!(",{name}:{}", listener.protocol);
                bound += &format!(",{name}://127.0.0.1:{}", listener.ports[node]);
                advertised += &format!(",{name}://127.0.0.1:{}", listener.advertised[node]);
            }
            properties += &format!(
                "node.id={node}\ncontroller.quorum.voters={}\nlog.dirs={}\n\
                 listener.security.protocol.map={protocols}\n\
                 listeners={bound}\nadvertised.listeners={advertised}\n",
                voters.join(","),
                dir.join("data").display(),
            );
            // Of a property given twice the broker takes the last.
            for (name, value) in &layout.properties {
                properties += &format!("{name}={value}\n");
            }
            fs::create_dir_all(&dir)
                .and_then(|()| fs::write(dir.join("server.properties"), properties))
                .and_then(|()| fs::write(dir.join("log4j2.properties"), LOG4J))
                .map_err(|error| {
                    Stop::internal(format!("cannot write {}: {error}", dir.display()))
                })?;
        }
        Ok(())
    }

    /// Formats all nodes' data directories for one new cluster, side by side.
    fn format(&self, further: &[String]) -> Result<(), Stop> {
        let cluster_id = new_cluster_id();
        let mut command = vec!["kafka.tools.StorageTool", "format", "-t", &cluster_id];
        command.extend(further.iter().map(String::as_str));
        command.push("-c");
        let tools = (0..self.nodes.len())
            .map(|node| self.run_java(node, &command))
            .collect::<Result<Vec<_>, _>>()?;
        for (node, mut tool) in tools.into_iter().enumerate() {
            let formatted = tool.wait().is_ok_and(|status| status.success());
            if !formatted {
                return Err(self.did_not("format", node));
            }
        }
        Ok(())
    }

    fn spawn(&mut self, node: usize) -> Result<(), Stop> {
        let child = self.run_java(node, &["kafka.Kafka"])?;
        self.nodes[node].child = Some(child);
        Ok(())
    }

    /// Runs a class of the broker's on a node's properties, with its output added to the node's log.
    fn run_java(&self, node: usize, class_and_args: &[&str]) -> Result<Child, Stop> {
        let dir = self.node_dir(node);
        let not_run = |error: io::Error| {
            Stop::internal(format!("cannot run Java for broker node {node}: {error}"))
        };
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_path(node))
            .map_err(not_run)?;
        let mut java = Command::new(&self.java);
        java.args([
            "-Xmx512m",
            "-Xms128m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
        ])
        // Of an argument given twice Java takes the last.
        .args(&self.java_arguments)
        .arg(format!(
            "-Dlog4j2.configurationFile={}",
            dir.join("log4j2.properties").display()
        ))
        .arg("-cp")
        .arg(self.jars.join("*"))
        .args(class_and_args)
        .arg(dir.join("server.properties"))
        .stdin(Stdio::null())
        .stdout(log.try_clone().map_err(not_run)?)
        .stderr(log);
        process::spawn(java).map_err(not_run)
    }

    /// Waits until the node accepts connections and knows at least `brokers` brokers.
    fn wait_ready(&mut self, node: usize, brokers: usize, deadline: Instant) -> Result<(), Stop> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.nodes[node].port));
        let mut client = None;
        while Instant::now() < deadline {
            if self.has_ended(node) {
                return Err(self.did_not("keep running", node));
            }
            // A connection first: librdkafka backs off when refused, and then answers late.
            if client.is_none()
                && TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
            {
                client = Some(asking(address)?);
            }
            let seen = client.as_ref().map_or(0, |client| {
                client
                    .fetch_metadata(None, Duration::from_secs(2))
                    .map_or(0, |metadata| metadata.brokers().len())
            });
            if seen >= brokers {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(50));
        }
        Err(self.did_not("become ready", node))
    }

    fn has_ended(&mut self, node: usize) -> bool {
        let child = self.nodes[node].child.as_mut();
        child.is_none_or(|child| !matches!(child.try_wait(), Ok(None)))
    }

    fn did_not(&self, what: &str, node: usize) -> Stop {
        let log = self.log_path(node);
        Stop::internal(format!(
            "broker node {node} did not {what}; {} ends with:\n{}",
            log.display(),
            last_lines(&log, 20)
        ))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in 0..self.nodes.len() {
            self.kill(node);
        }
    }
}

/// A client that asks one node what it knows.
fn asking(address: SocketAddr) -> Result<BaseConsumer, Stop> {
    ClientConfig::new()
        .set("bootstrap.servers", address.to_string())
        .set("group.id", "kafka-dedup-readiness")
        .create()
        .map_err(|error| Stop::internal(format!("cannot make a Kafka client: {error}")))
}

/// What all nodes share. Small internal topics and no wait for further group members keep start
/// and rebalance quick; short sessions are allowed because tests kill members by the dozen. Each partition has two
/// index files, which are mapped and read ahead when they are touched first: of 10 MiB, the default, a thousand new partitions are
/// 20 GiB for the page cache. Smaller ones only end segments earlier, at 128 MiB.
fn properties(nodes: usize) -> String {
    let replicas = nodes.min(3);
    format!(
        "process.roles=broker,controller
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
default.replication.factor={replicas}
offsets.topic.replication.factor={replicas}
offsets.topic.num.partitions=5
transaction.state.log.replication.factor={replicas}
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=5
share.coordinator.state.topic.replication.factor={replicas}
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
num.network.threads=2
num.io.threads=4
log.cleaner.dedupe.buffer.size=16777216
log.index.size.max.bytes=262144
"
    )
}

/// 16 bytes as Kafka writes its ids. The two zero bits in front keep it from starting with a dash,
/// which the format tool would take for an option.
fn new_cluster_id() -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let bits = rand::rng().random::<u128>() >> 2;
    // 21 digits of 6 bits, and the last 2 bits as the upper ones of a 22nd.
    let digit = |bits: u128| char::from(DIGITS[(bits & 63) as usize]);
    (0..21)
        .map(|place| digit(bits >> (122 - 6 * place)))
        .chain([digit(bits << 4)])
        .collect()
}

fn no_port(error: io::Error) -> Stop {
    Stop::internal(format!("no free port on 127.0.0.1 for a broker: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_node_starts_is_killed_and_comes_back_and_three_form_one_cluster() {
        let dir = tempfile::tempdir().unwrap();
        let mut one = Cluster::start(1, &dir.path().join("one")).unwrap();
        assert_eq!(one.bootstrap().split(',').count(), 1);
        one.kill(0);
        one.restart(0).unwrap();
        one.stop();
        let three = Cluster::start(3, &dir.path().join("three")).unwrap();
        assert_eq!(three.bootstrap().split(',').count(), 3);
        assert!(three.log_path(2).exists());
    }

    #[test]
    fn a_broker_that_cannot_start_is_reported_with_its_log() {
        let dir = tempfile::tempdir().unwrap();
        let mut layout = Layout::of(1);
        layout.properties = vec![("process.roles".to_owned(), "teapot".to_owned())];
        let stop = Cluster::start_as(&layout, dir.path()).unwrap_err();
        assert!(stop.sentence.contains("teapot"), "{stop}");
    }

    #[test]
    fn cluster_ids_have_the_form_that_kafka_reads() {
        for _ in 0..100 {
            let id = new_cluster_id();
            assert_eq!(id.len(), 22);
            assert!(!id.starts_with('-'), "{id}");
        }
    }
}
