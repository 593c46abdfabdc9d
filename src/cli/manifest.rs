//! `sidecar-manifest`: what puts the service beside the containers of a Deployment that is there. The patch is the one of
//! `deploy/kustomize/overlays/sidecar`, which is part of the program; the config goes into a ConfigMap. Touches the file and
//! the environment alone.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use regex::{NoExpand, Regex};
use xxhash_rust::xxh3::xxh3_64;

use crate::config::{self, Config};
use crate::exit::Stop;

const PATCH: &str = include_str!("../../deploy/kustomize/overlays/sidecar/sidecar.yaml");
const STORE: &str = "/var/lib/kafka-dedup";
const SECRETS: &str = "/run/secrets/kafka-dedup";
/// In which the process leaves, beside `transaction.timeout`, in seconds.
const LEAVES_WITHIN: u64 = 35;
/// What a ConfigMap may hold.
const LARGEST: usize = 1_000_000;

/// Stands for the content of a file; as long as a token must be, and as free of blanks.
const LOOKED_UP: &str = "content-of-a-secret";

const NOTES: &str = "\
It makes a ConfigMap with the file, and a patch of the Deployment: a native sidecar (Kubernetes 1.29), restricted, with
probes and a volume for the store. For the pods it also sets terminationGracePeriodSeconds (--grace and what the
sidecar takes after that), fsGroup, progressDeadlineSeconds and the label and the spread of members; the rest of the
Deployment stays as it is. Nothing is asked of Kubernetes or Kafka. Secrets are not looked up:
${file:/run/secrets/kafka-dedup/NAME} is NAME of the Secret kafka-dedup in the same namespace.

Examples:
  kafka-dedup sidecar-manifest -c dedup.yaml --image registry.example/kafka-dedup:0.1.0 \\
      --deployment orders -n shop --dir .
  kubectl apply -f configmap.yaml
  kubectl -n shop patch deployment orders --patch-file patch.yaml --dry-run=server -o yaml
                                   what it would be; without --dry-run it is done

Exit status: 0 done, 64 bad usage or config, 70 a file cannot be written.";

/// `kafka-dedup sidecar-manifest`
#[derive(Debug, clap::Args)]
#[command(after_help = NOTES)]
pub struct ManifestArgs {
    /// Configuration file (YAML) that the sidecar is to have
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// Where the cluster gets the image, with its tag or digest
    #[arg(long, value_name = "IMAGE", value_parser = image)]
    image: String,
    /// The Deployment whose pods get it
    #[arg(long, value_name = "NAME", value_parser = label)]
    deployment: String,
    /// How long the containers that are there may take to end, in seconds: what the Deployment has now
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(..=86_400))]
    grace: u64,
    /// Its namespace
    #[arg(short, long, value_name = "NAME", value_parser = label)]
    namespace: Option<String>,
    /// Where to write configmap.yaml and patch.yaml [default: both are printed]
    #[arg(long, value_name = "DIRECTORY")]
    dir: Option<PathBuf>,
}

fn image(text: &str) -> Result<String, String> {
    let fits = Regex::new(r"^[A-Za-z0-9][A-Za-z0-9_./:@-]*$").map_err(|error| error.to_string())?;
    match fits.is_match(text)
        && text
            .rsplit('/')
            .next()
            .is_some_and(|name| name.contains([':', '@']))
    {
        true => Ok(text.to_owned()),
        false => Err(
            "expected an image with a tag or digest, such as registry.example/kafka-dedup:0.1.0"
                .to_owned(),
        ),
    }
}

fn label(text: &str) -> Result<String, String> {
    let fits = Regex::new("^[a-z0-9]([-a-z0-9]*[a-z0-9])?$").map_err(|error| error.to_string())?;
    match fits.is_match(text) && text.len() <= 63 {
        true => Ok(text.to_owned()),
        false => Err("expected small letters, digits and -, at most 63".to_owned()),
    }
}

/// Prints the manifest.
///
/// # Errors
/// The file is wrong, or what it says does not fit into the pod.
pub fn run(arguments: &ManifestArgs) -> Result<(), Stop> {
    let file = &arguments.config;
    let text = fs::read_to_string(file)
        .map_err(|error| Stop::usage(format!("{} cannot be read: {error}", file.display())))?;
    let (config_map, patch) = manifest(arguments, &text)?;
    if let Some(dir) = &arguments.dir {
        for (name, text) in [("configmap.yaml", config_map), ("patch.yaml", patch)] {
            let file = dir.join(name);
            fs::write(&file, text).map_err(|error| {
                Stop::internal(format!("{} cannot be written: {error}", file.display()))
            })?;
        }
        return Ok(());
    }
    let both = format!("{config_map}---\n{patch}");
    match std::io::stdout().write_all(both.as_bytes()) {
        // Nobody reads on.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        done => {
            done.map_err(|error| Stop::internal(format!("the manifest cannot be printed: {error}")))
        }
    }
}

/// The ConfigMap, and the patch.
fn manifest(arguments: &ManifestArgs, text: &str) -> Result<(String, String), Stop> {
    let files =
        Regex::new(r"\$\{file:([^}]*)\}").map_err(|error| Stop::internal(error.to_string()))?;
    let readable = files.replace_all(text, NoExpand(LOOKED_UP));
    let name = arguments.config.display().to_string();
    // The pod's, and not that of this machine.
    let environment =
        ["HOSTNAME", "KAFKA_DEDUP__KAFKA__INSTANCE_ID"].map(|it| (it.to_owned(), "pod".to_owned()));
    let config = config::from_str(&readable, &name, &environment.into())
        .map_err(|faults| Stop::usage(faults.to_string()))?;
    fits(&config, text, &files)?;

    let config_map = format!("kafka-dedup-{:010x}", xxh3_64(text.as_bytes()) >> 24);
    let timeout = config.transaction.timeout.as_secs();
    let grace = timeout
        .saturating_add(LEAVES_WITHIN + arguments.grace)
        .max(105);
    let mut patch = PATCH.to_owned();
    let mut put = |from: &str, to: &str| {
        debug_assert!(patch.contains(from), "{from:?} is no part of the patch");
        patch = patch.replace(from, to);
    };
    put(
        "  name: truck-producer\n",
        &format!("  name: \"{}\"\n", arguments.deployment),
    );
    put(
        "image: kafka-dedup\n",
        &format!("image: {}\n", arguments.image),
    );
    put(
        "configMap: {name: kafka-dedup}",
        &format!("configMap: {{name: {config_map}}}"),
    );
    put(
        "terminationGracePeriodSeconds: 105",
        &format!("terminationGracePeriodSeconds: {grace}"),
    );
    if !text.contains(SECRETS) {
        put(
            "            - {name: kafka-dedup-secret, mountPath: /run/secrets/kafka-dedup, readOnly: true}\n",
            "",
        );
        put(SECRET_VOLUME, "");
    }
    let namespace = arguments.namespace.as_ref();
    let namespace = namespace.map_or_else(String::new, |name| format!("  namespace: \"{name}\"\n"));
    let metadata = format!("  name: \"{}\"\n", arguments.deployment);
    let patch = patch.replacen(&metadata, &format!("{metadata}{namespace}"), 1);
    let lines = text.lines().map(|line| match line.trim_end() {
        "" => "\n".to_owned(),
        line => format!("    {line}\n"),
    });
    let data: String = lines.collect();
    let config_map = format!(
        "# Another file is another name, so that a change rolls the pods.\n\
         apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {config_map}\n{namespace}data:\n  kafka-dedup.yaml: |2\n{data}"
    );
    Ok((config_map, patch))
}

const SECRET_VOLUME: &str = "        - name: kafka-dedup-secret
          # Made by you: `kubectl create secret generic kafka-dedup --from-file=password --from-file=ca.crt`.
          secret:
            secretName: kafka-dedup
            # For owner and group alone, which fsGroup makes the service's.
            defaultMode: 0440
";

/// What the pod has a place for. `files` finds those that the text asks for.
fn fits(config: &Config, text: &str, files: &Regex) -> Result<(), Stop> {
    let refuse = |sentence: String| Err(Stop::usage(sentence));
    if text.len() > LARGEST {
        return refuse(format!(
            "the file has more than the {LARGEST} bytes that a ConfigMap holds"
        ));
    }
    if text.contains(|c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) {
        return refuse(
            "the file holds control characters, which a ConfigMap does not: take them out"
                .to_owned(),
        );
    }
    if config.store.path != std::path::Path::new(STORE) {
        return refuse(format!(
            "store.path is {}: leave it out, as the volume is at {STORE}",
            config.store.path.display()
        ));
    }
    if config.http.listen.port() != 9464 || config.http.listen.ip().is_loopback() {
        return refuse(format!(
            "http.listen is {}: leave it out, as probes ask port 9464",
            config.http.listen
        ));
    }
    if !config.http.admin.ip().is_loopback() {
        return refuse(format!(
            "http.admin is {}: leave it out; kubectl port-forward reaches the pod's loopback address",
            config.http.admin
        ));
    }
    for found in files.captures_iter(text) {
        if !is_mounted(&found[1]) {
            return refuse(format!(
                "{} is a file that the pod does not have: put it into the Secret kafka-dedup, and name it {SECRETS}/NAME",
                &found[0]
            ));
        }
    }
    let kafka = &config.kafka;
    let properties = [
        &kafka.properties,
        &kafka.consumer_properties,
        &kafka.producer_properties,
    ];
    let mut written = properties
        .into_iter()
        .flatten()
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect::<Vec<_>>();
    if let Some(password) = config.schemas.as_ref().and_then(|it| it.password.clone()) {
        written.push(("schemas.password".to_owned(), password));
    }
    if let Some(token) = &config.http.admin_token {
        written.push(("http.admin_token".to_owned(), token.clone()));
    }
    for (name, value) in written {
        if config::is_secret(&name) && !value.contains(LOOKED_UP) {
            return refuse(format!(
                "{name} is written out, and a ConfigMap is for all to read: put it into the Secret kafka-dedup, and write \
                 ${{file:{SECRETS}/NAME}}"
            ));
        }
        if name.ends_with(".location") && !is_mounted(&value) && !value.starts_with("/etc/ssl/") {
            return refuse(format!(
                "{name} is {value}, a file that the pod does not have: put it into the Secret kafka-dedup, and name it {SECRETS}/NAME"
            ));
        }
    }
    if config.kafka.static_membership {
        return refuse(
            "kafka.static_membership is true: pods of a Deployment have new names each time, and the group would wait for the \
             old ones. Leave it out"
                .to_owned(),
        );
    }
    Ok(())
}

fn is_mounted(path: &str) -> bool {
    let name = path
        .trim()
        .strip_prefix(SECRETS)
        .and_then(|it| it.strip_prefix('/'));
    name.is_some_and(|name| !name.is_empty() && !name.contains('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str =
        "kafka: {bootstrap_servers: \"b:1\", group_id: g}\ninput: {topics: [t]}\nid: {from: key}\n";

    fn of(text: &str) -> Result<String, Stop> {
        let arguments = ManifestArgs {
            config: "dedup.yaml".into(),
            image: "registry.example/kafka-dedup:1".to_owned(),
            deployment: "orders".to_owned(),
            namespace: Some("shop".to_owned()),
            grace: 90,
            dir: None,
        };
        manifest(&arguments, text).map(|(config_map, patch)| config_map + &patch)
    }

    #[test]
    fn the_patch_is_of_that_deployment_with_that_config() {
        let plain = of(CONFIG).expect("fits");
        for words in [
            "  name: \"orders\"\n  namespace: \"shop\"\n",
            "          image: registry.example/kafka-dedup:1\n",
            "  kafka-dedup.yaml: |2\n    kafka: {bootstrap_servers",
            "terminationGracePeriodSeconds: 155",
        ] {
            assert!(plain.contains(words), "{words} in {plain}");
        }
        assert!(
            !plain.contains("truck") && !plain.contains("secret"),
            "{plain}"
        );
        let name = |text: &str| {
            text.split("  name: kafka-dedup-").nth(1).expect("a name")[..10].to_owned()
        };
        assert!(plain.contains(&format!(
            "configMap: {{name: kafka-dedup-{}}}",
            name(&plain)
        )));
        let other = of(&format!("{CONFIG}# other\ntransaction: {{timeout: 2m}}\n")).expect("fits");
        assert_ne!(name(&plain), name(&other));
        assert!(
            other.contains("terminationGracePeriodSeconds: 245"),
            "{other}"
        );
        let secret = CONFIG.replace(
            "group_id: g",
            "group_id: g, properties: {sasl.password: \"${file:/run/secrets/kafka-dedup/password}\"}",
        );
        let secret = of(&secret).expect("fits");
        assert!(
            secret.contains("secretName: kafka-dedup")
                && secret.contains("mountPath: /run/secrets")
        );
        let token = "http: {admin_token: \"${file:/run/secrets/kafka-dedup/token}\"}\n";
        let token = of(&format!("{CONFIG}{token}")).expect("fits");
        assert!(token.contains("${file:/run/secrets/kafka-dedup/token}"));
    }

    #[test]
    fn what_the_pod_has_no_place_for_is_refused() {
        for (more, words) in [
            (
                "store: {path: /data}\n",
                "store.path is /data: leave it out",
            ),
            ("http: {listen: \"0.0.0.0:80\"}\n", "probes ask port 9464"),
            (
                "http: {admin: \"0.0.0.0:9465\", admin_token: a-long-token-of-many-letters}\n",
                "loopback",
            ),
            ("wokers: 2\n", "wokers"),
            ("journal: {topic: \"${PATH}\"}\n", "PATH"),
            ("# \u{7}\n", "control characters"),
        ] {
            let refused = of(&format!("{CONFIG}{more}"))
                .expect_err("refused")
                .sentence;
            assert!(refused.contains(words), "{words}: {refused}");
        }
        for (property, words) in [
            ("sasl.password: hunter2", "sasl.password is written out"),
            (
                "sasl.password: \"${file:/run/secrets/other/password}\"",
                "does not have",
            ),
            (
                "ssl.ca.location: /etc/kafka-ca/ca.pem",
                "ssl.ca.location is /etc/kafka-ca/ca.pem",
            ),
        ] {
            let text = CONFIG.replace(
                "group_id: g",
                &format!("group_id: g, properties: {{{property}}}"),
            );
            let refused = of(&text).expect_err("refused").sentence;
            assert!(
                refused.contains(words) && !refused.contains("hunter2"),
                "{refused}"
            );
        }
        let is_static = CONFIG.replace("group_id: g", "group_id: g, static_membership: true");
        let refused = of(&is_static).expect_err("refused").sentence;
        assert!(refused.contains("static_membership"), "{refused}");
        assert!(image("kafka-dedup").is_err() && image("a/b@sha256:00").is_ok());
        assert!(label("Orders").is_err() && label("orders-1").is_ok());
    }
}
