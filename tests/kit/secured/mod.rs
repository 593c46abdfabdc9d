//! A real broker with TLS, passwords and an authorizer, for tests in which the network and the other
//! users of a cluster are not friends. It has a directory and loopback ports of its own.
//!
//! - [`access`]: permissions and passwords, changed while it runs.
//! - [`certificates`]: an authority, and what it signs.

pub mod access;
pub mod certificates;

use kafka_dedup::demo::broker::{Cluster, Layout, Listener};
use kafka_dedup::demo::ports::free_ports;
use rdkafka::admin::{AdminOptions, AlterConfig, ResourceSpecifier};
use tempfile::TempDir;

use crate::kit::{Deployment, Kafka};
use access::{Grant, allow};
use certificates::Authority;

pub const PASSWORD: &str = "open-sesame-marker-4711";

/// A way in beside the plain listener.
pub struct Way {
    /// Upper case letters.
    pub listener: &'static str,
    /// SASL_SSL or SSL.
    pub protocol: &'static str,
    /// What it shows at first: `good`, `expired`, or `elsewhere`, which is for another host.
    pub certificate: &'static str,
    /// Clients are told a port of its own, on which a proxy is to listen.
    pub proxied: bool,
}

pub struct Secured {
    _cluster: Cluster,
    pub dir: TempDir,
    /// The plain listener, on which everybody is a super user.
    pub plain: Kafka,
    pub authority: Authority,
    pub stranger: Authority,
    listeners: Vec<Listener>,
}

impl Secured {
    /// A broker with these ways in, properties, and users of SCRAM-SHA-512, whose password is
    /// [`PASSWORD`]; of PLAIN there is the user `service` alone.
    pub fn start(ways: &[Way], properties: &[(&str, &str)], users: &[&str]) -> Self {
        let dir = TempDir::new().expect("a directory");
        let authority = Authority::new(dir.path(), "authority");
        let stranger = Authority::new(dir.path(), "stranger");
        authority.sign("good", &["127.0.0.1"], false);
        authority.sign("expired", &["127.0.0.1"], true);
        authority.sign("elsewhere", &["elsewhere.example"], false);
        authority.sign("mutual", &[], false);
        let mut layout = Layout::of(1);
        let ca = authority.certificate.display().to_string();
        let mut add = |name: &str, value: &str| {
            layout.properties.push((name.to_owned(), value.to_owned()));
        };
        add(
            "authorizer.class.name",
            "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        );
        add("super.users", "User:ANONYMOUS;User:CN=mutual");
        add("sasl.enabled.mechanisms", "SCRAM-SHA-512,PLAIN");
        add("ssl.keystore.type", "PEM");
        add("ssl.truststore.type", "PEM");
        add("ssl.truststore.location", &ca);
        // The certificate may be replaced by any other while it runs.
        add("ssl.allow.dn.changes", "true");
        add("ssl.allow.san.changes", "true");
        for (name, value) in properties {
            add(name, value);
        }
        for way in ways {
            let ports = free_ports(2).expect("free ports");
            let prefix = format!("listener.name.{}", way.listener.to_lowercase());
            let file = dir.path().join(format!("{}.pem", way.certificate));
            let file = file.display().to_string();
            add(&format!("{prefix}.ssl.keystore.location"), &file);
            if way.protocol == "SASL_SSL" {
                let module = "org.apache.kafka.common.security";
                add(
                    &format!("{prefix}.scram-sha-512.sasl.jaas.config"),
                    &format!("{module}.scram.ScramLoginModule required;"),
                );
                add(
                    &format!("{prefix}.plain.sasl.jaas.config"),
                    &format!(
                        "{module}.plain.PlainLoginModule required user_service=\"{PASSWORD}\";"
                    ),
                );
                // A changed password shows within seconds.
                add(
                    &format!("{prefix}.scram-sha-512.connections.max.reauth.ms"),
                    "3000",
                );
            }
            layout.listeners.push(Listener {
                name: way.listener.to_owned(),
                protocol: way.protocol.to_owned(),
                ports: vec![ports[0]],
                advertised: vec![ports[usize::from(way.proxied)]],
            });
        }
        for user in users {
            let credential = format!("SCRAM-SHA-512=[name={user},password={PASSWORD}]");
            layout.format.extend(["--add-scram".to_owned(), credential]);
        }
        let cluster = Cluster::start_as(&layout, dir.path()).expect("a Kafka broker");
        Self {
            plain: Kafka::at(cluster.bootstrap()),
            _cluster: cluster,
            dir,
            authority,
            stranger,
            listeners: layout.listeners,
        }
    }

    /// The port that a listener listens on, and the one that clients are told.
    pub fn ports(&self, listener: &str) -> (u16, u16) {
        let mut listeners = self.listeners.iter();
        let found = listeners
            .find(|it| it.name == listener)
            .expect("a listener");
        (found.ports[0], found.advertised[0])
    }

    /// Properties of a client with a password.
    pub fn sasl(&self, mechanism: &str, user: &str, password: &str) -> Vec<(String, String)> {
        let ca = self.authority.certificate.display().to_string();
        [
            ("security.protocol", "SASL_SSL"),
            ("ssl.ca.location", &ca),
            ("sasl.mechanism", mechanism),
            ("sasl.username", user),
            ("sasl.password", password),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
    }

    /// A deployment whose topics are made and read over the plain listener, and whose service speaks to
    /// another one with these properties.
    pub fn deployment(
        &self,
        name: &str,
        listener: &str,
        properties: Vec<(String, String)>,
    ) -> Deployment {
        let mut deployment = Deployment::at(&self.plain, name, 2, "");
        let property = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        deployment.consumer_properties = vec![
            property("session.timeout.ms", "6000"),
            property("topic.metadata.refresh.interval.ms", "1000"),
        ];
        self.lead(&mut deployment, listener, properties);
        deployment
    }

    /// Lets the service of a deployment speak to this listener with these properties, while its topics
    /// are made and read over the plain one.
    pub fn lead(
        &self,
        deployment: &mut Deployment,
        listener: &str,
        properties: Vec<(String, String)>,
    ) {
        for (name, value) in properties {
            let name = name.to_uppercase().replace('.', "_");
            let variable = format!("KAFKA_DEDUP__KAFKA__PROPERTIES__{name}");
            deployment.env.push((variable, value));
        }
        let address = format!("127.0.0.1:{}", self.ports(listener).1);
        let variable = "KAFKA_DEDUP__KAFKA__BOOTSTRAP_SERVERS".to_owned();
        deployment.env.push((variable, address));
    }

    /// New connections to this listener are shown this certificate from here on.
    pub fn show_certificate(&self, listener: &str, certificate: &str) {
        let property = format!(
            "listener.name.{}.ssl.keystore.location",
            listener.to_lowercase()
        );
        let file = self.dir.path().join(format!("{certificate}.pem"));
        let file = file.display().to_string();
        let change = AlterConfig::new(ResourceSpecifier::Broker(0)).set(&property, &file);
        let admin = self.plain.admin();
        let outcome = admin.alter_configs([&change], &AdminOptions::new());
        for broker in futures_executor::block_on(outcome).expect("an answer") {
            broker.expect("another certificate");
        }
    }

    /// Exactly what SECURITY.md lists, and nothing beyond.
    pub fn grant(&self, user: &str, deployment: &Deployment) {
        allow(&self.plain, user, &least_privilege(deployment, &[]));
    }
}

/// What SECURITY.md lists; topics beside the output need what the output needs.
pub fn least_privilege(deployment: &Deployment, beside: &[&str]) -> Vec<Grant> {
    use access::{CREATE, DELETE, DESCRIBE_CONFIGS, READ, WRITE};
    let journal = deployment.journal();
    let transactional = format!("{}-", deployment.group);
    let mut grants = Vec::new();
    for operation in [READ, DESCRIBE_CONFIGS] {
        grants.push(Grant::topic(&deployment.input, operation));
    }
    for output in [deployment.output.as_str()].iter().chain(beside) {
        for operation in [WRITE, CREATE, DESCRIBE_CONFIGS] {
            grants.push(Grant::topic(output, operation));
        }
    }
    for operation in [READ, WRITE, CREATE, DELETE, DESCRIBE_CONFIGS] {
        grants.push(Grant::topic(&journal, operation));
    }
    grants.push(Grant::group(&deployment.group, READ));
    grants.push(Grant::transactional_ids(&transactional, WRITE));
    grants
}
