//! The broker of these tests: every listener a service may be asked to speak to, an authorizer, and
//! Kafka's own tools to change users and ACLs while it runs.

use std::process::Command;
use std::sync::OnceLock;

use kafka_dedup::demo::broker::{Cluster, Layout, Listener, jars};
use kafka_dedup::demo::ports::free_ports;
use tempfile::TempDir;

use crate::certificates::Authority;
use crate::kit::{Deployment, Kafka, unique};

pub const PASSWORD: &str = "open-sesame-marker-4711";

pub struct Secured {
    _cluster: Cluster,
    pub dir: TempDir,
    /// The plain listener, on which everybody is a super user.
    pub plain: Kafka,
    pub authority: Authority,
    pub stranger: Authority,
    ports: Vec<u16>,
}

/// Listener, protocol, certificate.
const LISTENERS: [(&str, &str, &str); 4] = [
    ("SECURED", "SASL_SSL", "good"),
    ("MUTUAL", "SSL", "good"),
    ("EXPIRED", "SSL", "expired"),
    ("ELSEWHERE", "SSL", "elsewhere"),
];

pub fn secured() -> &'static Secured {
    static SECURED: OnceLock<Secured> = OnceLock::new();
    SECURED.get_or_init(start)
}

fn start() -> Secured {
    let dir = TempDir::new().expect("a directory");
    let authority = Authority::new(dir.path(), "authority");
    let stranger = Authority::new(dir.path(), "stranger");
    authority.sign("good", &["127.0.0.1"], false);
    authority.sign("expired", &["127.0.0.1"], true);
    authority.sign("elsewhere", &["elsewhere.example"], false);
    authority.sign("mutual", &[], false);
    let ports = free_ports(LISTENERS.len()).expect("free ports");
    let mut layout = Layout::of(1);
    let scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;";
    let plain = format!(
        "org.apache.kafka.common.security.plain.PlainLoginModule required user_service=\"{PASSWORD}\";"
    );
    let mut properties = vec![
        (
            "authorizer.class.name",
            "org.apache.kafka.metadata.authorizer.StandardAuthorizer".to_owned(),
        ),
        ("super.users", "User:ANONYMOUS;User:CN=mutual".to_owned()),
        ("sasl.enabled.mechanisms", "SCRAM-SHA-512,PLAIN".to_owned()),
        (
            "listener.name.secured.scram-sha-512.sasl.jaas.config",
            scram.to_owned(),
        ),
        ("listener.name.secured.plain.sasl.jaas.config", plain),
        // A changed password shows within seconds.
        (
            "listener.name.secured.scram-sha-512.connections.max.reauth.ms",
            "3000".to_owned(),
        ),
        (
            "listener.name.mutual.ssl.client.auth",
            "required".to_owned(),
        ),
        ("ssl.keystore.type", "PEM".to_owned()),
        ("ssl.truststore.type", "PEM".to_owned()),
        (
            "ssl.truststore.location",
            authority.certificate.display().to_string(),
        ),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect::<Vec<_>>();
    for ((name, protocol, certificate), port) in LISTENERS.iter().zip(&ports) {
        layout.listeners.push(Listener {
            name: (*name).to_owned(),
            protocol: (*protocol).to_owned(),
            ports: vec![*port],
            advertised: vec![*port],
        });
        let file = dir.path().join(format!("{certificate}.pem"));
        properties.push((
            format!(
                "listener.name.{}.ssl.keystore.location",
                name.to_lowercase()
            ),
            file.display().to_string(),
        ));
    }
    layout.properties = properties;
    for user in ["service", "changed", "watched"] {
        layout.format.push("--add-scram".to_owned());
        layout
            .format
            .push(format!("SCRAM-SHA-512=[name={user},password={PASSWORD}]"));
    }
    let cluster = Cluster::start_as(&layout, dir.path()).expect("a Kafka broker");
    Secured {
        plain: Kafka::at(cluster.bootstrap()),
        _cluster: cluster,
        dir,
        authority,
        stranger,
        ports,
    }
}

impl Secured {
    pub fn address(&self, listener: &str) -> String {
        let at = LISTENERS
            .iter()
            .position(|(name, ..)| *name == listener)
            .expect("a listener");
        format!("127.0.0.1:{}", self.ports[at])
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

    /// A deployment whose topics are made and read over the plain listener, and whose service speaks
    /// to another one with these properties.
    pub fn deployment(
        &self,
        name: &str,
        listener: &str,
        properties: Vec<(String, String)>,
    ) -> Deployment {
        let input = unique(name);
        self.plain.create_topic(&input, 2, &[]);
        let mut env: Vec<(String, String)> = properties
            .into_iter()
            .map(|(name, value)| {
                let name = name.to_uppercase().replace('.', "_");
                (format!("KAFKA_DEDUP__KAFKA__PROPERTIES__{name}"), value)
            })
            .collect();
        env.push((
            "KAFKA_DEDUP__KAFKA__BOOTSTRAP_SERVERS".to_owned(),
            self.address(listener),
        ));
        Deployment {
            kafka: self.plain.clone(),
            dir: TempDir::new().expect("a directory"),
            output: format!("{input}_dedup"),
            group: format!("{input}-group"),
            input,
            partitions: 2,
            extra: String::new(),
            consumer_properties: vec![
                ("session.timeout.ms".to_owned(), "6000".to_owned()),
                (
                    "topic.metadata.refresh.interval.ms".to_owned(),
                    "1000".to_owned(),
                ),
            ],
            env,
        }
    }

    /// One of Kafka's own command line tools.
    fn tool(&self, class: &str, arguments: &[&str]) {
        let java =
            std::env::var("JAVA_HOME").map_or("java".to_owned(), |home| format!("{home}/bin/java"));
        let output = Command::new(java)
            .args(["-Xmx128m", "-XX:TieredStopAtLevel=1", "-cp"])
            .arg(jars(&|_| ()).expect("the jars").join("*"))
            .args([class, "--bootstrap-server", self.plain.bootstrap()])
            .args(arguments)
            .output()
            .expect("Java");
        assert!(
            output.status.success(),
            "{class} {arguments:?}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }

    pub fn acls(&self, arguments: &[&str]) {
        self.tool("org.apache.kafka.tools.AclCommand", arguments);
    }

    pub fn set_password(&self, user: &str, password: &str) {
        let scram = format!("SCRAM-SHA-512=[password={password}]");
        self.tool(
            "kafka.admin.ConfigCommand",
            &[
                "--alter",
                "--add-config",
                &scram,
                "--entity-type",
                "users",
                "--entity-name",
                user,
            ],
        );
    }

    /// Exactly what SECURITY.md lists, and nothing beyond.
    pub fn grant(&self, user: &str, deployment: &Deployment) {
        for (resource, operations) in least_privilege(deployment) {
            let mut arguments = vec![
                "--add".to_owned(),
                "--allow-principal".to_owned(),
                format!("User:{user}"),
            ];
            for operation in operations {
                arguments.extend(["--operation".to_owned(), (*operation).to_owned()]);
            }
            arguments.extend(resource);
            self.acls(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        }
    }
}

/// Resource, as kafka-acls takes it, and the operations.
fn least_privilege(deployment: &Deployment) -> Vec<(Vec<String>, &'static [&'static str])> {
    let topic = |name: &str| vec!["--topic".to_owned(), name.to_owned()];
    vec![
        (topic(&deployment.input), &["Read", "DescribeConfigs"]),
        (
            topic(&deployment.output),
            &["Write", "Create", "DescribeConfigs"],
        ),
        (
            topic(&deployment.journal()),
            &["Read", "Write", "Create", "Delete", "DescribeConfigs"],
        ),
        (
            vec!["--group".to_owned(), deployment.group.clone()],
            &["Read"],
        ),
        (
            vec![
                "--transactional-id".to_owned(),
                format!("{}-", deployment.group),
                "--resource-pattern-type".to_owned(),
                "prefixed".to_owned(),
            ],
            &["Write", "Describe"],
        ),
    ]
}
