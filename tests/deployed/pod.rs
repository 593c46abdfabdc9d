//! A pod as a kubelet and a container runtime would make it of its manifest, in a mount namespace: a root file system with
//! the program and the libraries it asks for, read-only, its volumes, a user without rights. It takes root.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::kit::{BINARY, fetch, wait_for};

/// What the pod is called, which stays the same.
const NAME: &str = "kafka-dedup-0";
/// Where its config is mounted.
const CONFIG: &str = "/etc/kafka-dedup";

/// What is in every Secret, and in every ConfigMap but that of the config, by name.
pub type Files = Vec<(&'static str, Vec<u8>)>;

/// Root is mounted over itself, with what a runtime mounts into it; the container's user gets it.
const RUN: &str = r#"
set -e
root=$1 writable=$2 user=$3 groups=$4; shift 4
mount --make-rprivate /
mount --bind "$root" "$root"
mount --rbind /proc "$root/proc"
mount --rbind /dev "$root/dev"
for at in $writable; do mount --bind "$root$at" "$root$at"; done
mount -o remount,bind,ro "$root"
if touch "$root/written" 2>/dev/null; then exit 99; fi
exec setpriv --no-new-privs chroot --userspec="$user" --groups="$groups" "$root" "$@"
"#;

pub struct Pod<'a> {
    spec: &'a Value,
    container: &'a Value,
    root: TempDir,
    log: PathBuf,
    /// Places, within the root, that may be written.
    writable: Vec<String>,
    variables: Vec<(String, String)>,
}

impl<'a> Pod<'a> {
    pub fn new(member: &'a Value, broker: &str, files: &Files) -> Self {
        let (spec, container) = (&member["pod"], &member["container"]);
        let root = TempDir::new().expect("a directory");
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).expect("permissions");
        let inside = |at: &str| root.path().join(at.trim_start_matches('/'));
        for dir in ["/proc", "/dev", "/usr/bin", "/etc"] {
            fs::create_dir_all(inside(dir)).expect("a directory");
        }
        fs::copy(BINARY, inside("/usr/bin/kafka-dedup")).expect("the program");
        for library in libraries() {
            let to = inside(&library);
            fs::create_dir_all(to.parent().expect("a directory")).expect("a directory");
            fs::copy(&library, to).expect("a library");
        }

        let group = spec["securityContext"]["fsGroup"]
            .as_u64()
            .expect("fsGroup");
        let group = u32::try_from(group).expect("an id");
        let mut writable = Vec::new();
        for mount in container["volumeMounts"].as_array().expect("mounts") {
            let at = mount["mountPath"].as_str().expect("a path");
            fs::create_dir_all(inside(at)).expect("a directory");
            let volumes = spec["volumes"].as_array().expect("volumes");
            // Of a StatefulSet's claim there is none.
            let volume = volumes
                .iter()
                .find(|it| it["name"] == mount["name"])
                .unwrap_or(&Value::Null);
            if at == CONFIG && volume.get("configMap").is_some() {
                let config = member["config"].as_str().expect("a config");
                fs::write(inside(at).join("kafka-dedup.yaml"), config).expect("written");
            } else if volume.get("configMap").is_some() {
                for (name, content) in files {
                    fs::write(inside(at).join(name), content).expect("written");
                }
            } else if let Some(secret) = volume.get("secret") {
                for (name, content) in files {
                    let file = inside(at).join(name);
                    fs::write(&file, content).expect("written");
                    let mode = secret["defaultMode"].as_u64().unwrap_or(0o644);
                    let mode = fs::Permissions::from_mode(u32::try_from(mode).expect("a mode"));
                    fs::set_permissions(&file, mode).expect("permissions");
                    chown(&file, Some(0), Some(group)).expect("its group");
                }
            } else {
                // As fsGroup has it: root's, and the group may write.
                fs::set_permissions(inside(at), fs::Permissions::from_mode(0o2775))
                    .expect("permissions");
                chown(inside(at), Some(0), Some(group)).expect("its group");
            }
            if mount["readOnly"] != true {
                writable.push(at.to_owned());
            }
        }
        let given = container["env"].as_array().expect("variables").iter();
        let mut variables: Vec<(String, String)> = given
            .map(|it| {
                let name = it["name"].as_str().expect("a name").to_owned();
                let is_name = it["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name";
                let value = if is_name {
                    NAME
                } else {
                    it["value"].as_str().expect("a value")
                };
                (name, value.to_owned())
            })
            .collect();
        variables.push(("HOSTNAME".to_owned(), NAME.to_owned()));
        // Where Kafka is here.
        variables.push((
            "KAFKA_DEDUP__KAFKA__BOOTSTRAP_SERVERS".to_owned(),
            broker.to_owned(),
        ));
        let log = root.path().with_extension("log");
        fs::write(&log, "").expect("a log");
        Self {
            spec,
            container,
            root,
            log,
            writable,
            variables,
        }
    }

    fn command(&self, container: &Value) -> Command {
        let security = &container["securityContext"];
        assert_eq!(security["readOnlyRootFilesystem"], true);
        let user = format!("{}:{}", security["runAsUser"], security["runAsGroup"]);
        let log = fs::OpenOptions::new()
            .append(true)
            .open(&self.log)
            .expect("a log");
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c", RUN, "sh"])
            .arg(self.root.path())
            .args([&self.writable.join(" "), &user])
            .arg(self.spec["securityContext"]["fsGroup"].to_string())
            .arg("/usr/bin/kafka-dedup")
            .args(
                container["args"]
                    .as_array()
                    .expect("arguments")
                    .iter()
                    .filter_map(Value::as_str),
            )
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdout(Stdio::null())
            .stderr(log);
        command
    }

    /// The init containers before it, to their ends.
    pub fn check_config(&self) {
        let before = self.spec["initContainers"].as_array().into_iter().flatten();
        for container in before.filter(|it| it["restartPolicy"] != "Always") {
            let status = self.command(container).status().expect("unshare");
            assert!(
                status.success(),
                "{}: {status}\n{}",
                container["name"],
                self.log_text()
            );
        }
    }

    pub fn start(&self) -> Running<'_> {
        let child = self
            .command(self.container)
            .spawn()
            .expect("unshare, which takes root");
        let running = Running { child, pod: self };
        let probe = &self.container["startupProbe"];
        let tries = probe["failureThreshold"].as_u64().expect("how many");
        let period = Duration::from_secs(probe["periodSeconds"].as_u64().expect("how often"));
        let answered = (0..tries).any(|_| {
            let ok = self.answers("startupProbe");
            if !ok {
                std::thread::sleep(period);
            }
            ok
        });
        assert!(
            answered,
            "its startup probe gives it up:\n{}",
            self.log_text()
        );
        running
    }

    fn answers(&self, probe: &str) -> bool {
        let get = &self.container[probe]["httpGet"];
        let ports = self.container["ports"].as_array().expect("ports");
        let port = ports
            .iter()
            .find(|it| it["name"] == get["port"])
            .expect("the port of the probe");
        let port =
            u16::try_from(port["containerPort"].as_u64().expect("a number")).expect("a port");
        let path = get["path"].as_str().expect("a path");
        fetch(port, path).is_some_and(|(status, _)| status == 200)
    }

    pub fn wait_until_ready(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        while !self.answers("readinessProbe") {
            assert!(Instant::now() < deadline, "not ready:\n{}", self.log_text());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    pub fn assert_alive_and_not_degraded(&self) {
        assert!(self.answers("livenessProbe"));
        let (_, says) = fetch(9464, "/readyz?verbose").expect("an answer");
        assert!(
            says.contains("store: ready") && !says.contains("degraded"),
            "{says}"
        );
    }

    fn log_text(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Pod<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.log);
    }
}

pub struct Running<'a> {
    child: Child,
    pod: &'a Pod<'a>,
}

impl Running<'_> {
    /// SIGTERM, and gone before it would be killed.
    pub fn end_in_time(&mut self) {
        let pid = i32::try_from(self.child.id()).expect("a process id");
        // SAFETY: kill takes two plain integers; the child has not been waited for, so the id is its.
        unsafe { libc::kill(pid, libc::SIGTERM) };
        let grace = self.pod.spec["terminationGracePeriodSeconds"]
            .as_u64()
            .expect("a number");
        let mut status = None;
        wait_for("its end", Duration::from_secs(grace), || {
            status = self.child.try_wait().expect("its state");
            status.is_some()
        });
        assert!(
            status.is_some_and(|it| it.success()),
            "{status:?}\n{}",
            self.pod.log_text()
        );
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// That the program is linked against, and what links it.
fn libraries() -> Vec<String> {
    let said = Command::new("ldd").arg(BINARY).output().expect("ldd");
    let text = String::from_utf8(said.stdout).expect("text");
    let words = text.split_whitespace().filter(|word| word.starts_with('/'));
    words.map(str::to_owned).collect()
}
