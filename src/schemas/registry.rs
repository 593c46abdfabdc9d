//! A schema registry over HTTP: schemas by id, and what they refer to.
//!
//! Touches the registry and nothing else. Every answer is bounded, and what is not an answer of a
//! registry (a proxy's page, a redirect) is never taken for one.

use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::plan::Schema;
use crate::config;
use crate::exit::Stop;

/// The texts of a schema and of all that it refers to, in bytes.
const TEXT_MAX_BYTES: usize = 1 << 20;
/// As JSON, where each line end and quote takes two.
const ANSWER_MAX_BYTES: u64 = 4 << 20;
/// Schemas that one schema refers to, all in all, and how deep.
const REFERENCES_MAX: usize = 128;
const REFERENCES_DEPTH_MAX: usize = 16;

/// Why there is no schema.
#[derive(Debug)]
pub enum Trouble {
    /// The registry says that it has no such schema.
    Unknown,
    /// No answer, or none of a registry: ask again.
    Failed(String),
    /// It will never be of use; a part of a sentence that says why.
    Refused(String),
}

/// A schema, and where it was asked for by its subject, which version that is, and its id.
#[derive(Debug, Deserialize)]
struct Answer {
    version: Option<i64>,
    id: Option<i64>,
    schema: String,
    /// Not there: `AVRO`.
    #[serde(rename = "schemaType")]
    format: Option<String>,
    references: Option<Vec<Reference>>,
}

#[derive(Debug, Deserialize)]
struct Reference {
    name: String,
    subject: String,
    version: i64,
}

/// How a registry says what is wrong.
#[derive(Debug, Deserialize)]
struct Fault {
    error_code: u32,
}

const SCHEMA_NOT_FOUND: u32 = 40403;
const SUBJECT_NOT_FOUND: u32 = 40401;
const VERSION_NOT_FOUND: u32 = 40402;

/// Where a registry is, and how to speak to it.
pub struct Registry {
    agent: ureq::Agent,
    url: String,
    authorization: Option<String>,
}

impl Registry {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// Usage (64): certificates that cannot be read.
    pub fn new(config: &config::Schemas) -> Result<Self, Stop> {
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(config.timeout))
            .http_status_as_error(false)
            // A password goes where the config says, and nowhere else.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .user_agent(concat!("kafka-dedup/", env!("CARGO_PKG_VERSION")))
            .max_idle_age(Duration::from_secs(60));
        #[cfg(feature = "tls")]
        let agent = agent.tls_config(tls(config)?);
        let credentials = config.username.as_ref().zip(config.password.as_ref());
        Ok(Self {
            agent: agent.build().into(),
            url: config.registry.trim_end_matches('/').to_owned(),
            authorization: credentials.map(|(user, password)| {
                use base64::Engine as _;
                let both = format!("{user}:{password}");
                let engine = base64::engine::general_purpose::STANDARD;
                format!("Basic {}", engine.encode(both))
            }),
        })
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// The schema of an id, with all that it refers to.
    pub fn schema(&self, id: u32) -> Result<Schema, Trouble> {
        let answer = self.get(&format!("/schemas/ids/{id}"), &[SCHEMA_NOT_FOUND])?;
        self.with_references(answer)
    }

    /// The latest version of a subject: its name for a person, and its schema with all that it refers
    /// to.
    pub fn latest(&self, subject: &str) -> Result<(String, Schema), Trouble> {
        let path = format!("/subjects/{}/versions/latest", encoded(subject));
        let absent = [SUBJECT_NOT_FOUND, VERSION_NOT_FOUND];
        let answer: Answer = self.get(&path, &absent)?;
        let number = |number: Option<i64>| number.map_or("?".to_owned(), |it| it.to_string());
        let (version, id) = (number(answer.version), number(answer.id));
        let name = format!("{subject} version {version}, schema id {id}");
        Ok((name, self.with_references(answer)?))
    }

    fn with_references(&self, answer: Answer) -> Result<Schema, Trouble> {
        let mut gathering = Gathering {
            registry: self,
            seen: Vec::new(),
            found: Vec::new(),
            bytes: answer.schema.len(),
        };
        gathering.add(answer.references.unwrap_or_default(), 0)?;
        Ok(Schema {
            format: answer.format.unwrap_or_else(|| "AVRO".to_owned()),
            text: answer.schema,
            references: gathering.found,
        })
    }

    /// `absent` are the codes with which the registry itself says that there is no such thing: a 404
    /// without one of them may be a proxy's, or of a wrong URL.
    fn get<T: DeserializeOwned>(&self, path: &str, absent: &[u32]) -> Result<T, Trouble> {
        let failed = |what: String| Trouble::Failed(format!("{}{path}: {what}", self.url));
        let mut request = self
            .agent
            .get(format!("{}{path}", self.url))
            .header("accept", "application/vnd.schemaregistry.v1+json");
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        let mut response = request.call().map_err(|error| failed(error.to_string()))?;
        let status = response.status().as_u16();
        let body = response.body_mut().with_config().limit(ANSWER_MAX_BYTES);
        let body = body.read_to_vec().map_err(|error| match error {
            ureq::Error::BodyExceedsLimit(bytes) => {
                Trouble::Refused(format!("is larger than {bytes} bytes as JSON"))
            }
            error => failed(error.to_string()),
        })?;
        if status == 200 {
            return serde_json::from_slice(&body)
                .map_err(|error| failed(format!("its answer is not a registry's: {error}")));
        }
        let code = serde_json::from_slice(&body).map(|Fault { error_code }| error_code);
        match (status, code) {
            (404, Ok(code)) if absent.contains(&code) => Err(Trouble::Unknown),
            (404, Err(_)) => Err(failed(
                "404, and not a registry's; is the path of schemas.registry right?".to_owned(),
            )),
            (401 | 403, _) => Err(failed(format!(
                "{status}; check schemas.username and schemas.password"
            ))),
            (300..=399, _) => Err(failed(format!(
                "{status}, a redirect, which is not followed; set schemas.registry to where it leads"
            ))),
            (status, Ok(code)) => Err(failed(format!("{status} (error code {code})"))),
            (status, Err(_)) => Err(failed(status.to_string())),
        }
    }
}

/// All that a schema refers to, each after what it refers to itself.
struct Gathering<'r> {
    registry: &'r Registry,
    seen: Vec<(String, i64)>,
    found: Vec<(String, String)>,
    bytes: usize,
}

impl Gathering<'_> {
    /// As deep as [`REFERENCES_DEPTH_MAX`].
    fn add(&mut self, references: Vec<Reference>, depth: usize) -> Result<(), Trouble> {
        let refused = |why: String| Err(Trouble::Refused(why));
        if self.bytes > TEXT_MAX_BYTES {
            return refused(format!(
                "is larger than {TEXT_MAX_BYTES} bytes, with what it refers to"
            ));
        }
        for reference in references {
            let Reference {
                name,
                subject,
                version,
            } = reference;
            if self.seen.contains(&(subject.clone(), version)) {
                continue;
            }
            if self.seen.len() == REFERENCES_MAX || depth == REFERENCES_DEPTH_MAX {
                return refused(format!(
                    "refers to more than {REFERENCES_MAX} schemas, or deeper than {REFERENCES_DEPTH_MAX}"
                ));
            }
            self.seen.push((subject.clone(), version));
            let path = format!("/subjects/{}/versions/{version}", encoded(&subject));
            // Absent is no answer here: what refers to it is there.
            let answer: Answer = self.registry.get(&path, &[])?;
            self.bytes += answer.schema.len();
            self.add(answer.references.unwrap_or_default(), depth + 1)?;
            self.found.push((name, answer.schema));
        }
        Ok(())
    }
}

/// For one segment of a path.
fn encoded(segment: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    segment.bytes().fold(String::new(), |mut encoded, byte| {
        match plain(byte) {
            true => encoded.push(char::from(byte)),
            false => encoded.push_str(&format!("%{byte:02X}")),
        }
        encoded
    })
}

/// By the OpenSSL that librdkafka brings: one stack to keep up to date.
#[cfg(feature = "tls")]
fn tls(config: &config::Schemas) -> Result<ureq::tls::TlsConfig, Stop> {
    use ureq::tls::{PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};
    let roots = match &config.ca {
        None => RootCerts::PlatformVerifier,
        Some(path) => {
            let wrong = |what: String| {
                let path = path.display();
                Stop::usage(format!(
                    "schemas.ca {path}: {what}; expected certificates in PEM"
                ))
            };
            let pem = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
            let items = parse_pem(&pem).filter_map(|item| match item {
                Ok(PemItem::Certificate(certificate)) => Some(Ok(certificate)),
                Ok(_) => None,
                Err(error) => Some(Err(wrong(error.to_string()))),
            });
            let certificates: Vec<_> = items.collect::<Result<_, _>>()?;
            if certificates.is_empty() {
                return Err(wrong("holds no certificate".to_owned()));
            }
            RootCerts::from(certificates)
        }
    };
    Ok(TlsConfig::builder()
        .provider(TlsProvider::NativeTls)
        .root_certs(roots)
        .build())
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::sync::mpsc::{Receiver, channel};

    /// A server of one answer for each path, and what it was asked.
    fn serve(
        answers: &'static [(&'static str, &'static str, String)],
    ) -> (String, Receiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/api/", listener.local_addr().expect("an address"));
        let (asked, was_asked) = channel();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("a connection");
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    if stream.read(&mut byte).unwrap_or(0) == 0 {
                        break;
                    }
                    request.push(byte[0]);
                }
                let request = String::from_utf8(request).expect("text");
                let path = request.split(' ').nth(1).unwrap_or_default();
                let answer = answers.iter().find(|(of, ..)| path == format!("/api{of}"));
                let (_, status, body) = answer.expect("a path that has an answer");
                let length = body.len();
                let head = format!(
                    "HTTP/1.1 {status}\r\nlocation: http://127.0.0.1:9/\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
                );
                // One that has heard enough may hang up.
                let _ = stream.write_all(head.as_bytes());
                let _ = stream.write_all(body.as_bytes());
                if asked.send(request).is_err() {
                    return;
                }
            }
        });
        (url, was_asked)
    }

    fn registry(url: &str, credentials: Option<(&str, &str)>) -> Registry {
        let text = |text: &str| Some(text.to_owned());
        Registry::new(&config::Schemas {
            registry: url.to_owned(),
            username: credentials.and_then(|(name, _)| text(name)),
            password: credentials.and_then(|(_, password)| text(password)),
            ca: None,
            timeout: Duration::from_secs(5),
            unknown: config::UnknownSchema::Fail,
        })
        .expect("a registry")
    }

    fn answers(
        answers: &[(&'static str, &'static str, String)],
    ) -> &'static [(&'static str, &'static str, String)] {
        Box::leak(answers.to_vec().into_boxed_slice())
    }

    #[test]
    fn a_schema_comes_with_all_that_it_refers_to_and_the_password_goes_along() {
        let refers = |name: &str| {
            format!(
                r#"{{"schema":"s-{name}","references":[{{"name":"n-{name}","subject":"{name}","version":3}}]}}"#
            )
        };
        let (url, was_asked) = serve(answers(&[
            ("/schemas/ids/7", "200 OK", refers("a")),
            ("/subjects/a/versions/3", "200 OK", refers("b")),
            ("/subjects/b/versions/3", "200 OK", refers("a")),
        ]));
        let schema = registry(&url, Some(("me", "p:w")))
            .schema(7)
            .expect("a schema");
        assert_eq!(
            (schema.format.as_str(), schema.text.as_str()),
            ("AVRO", "s-a")
        );
        let texts = [("n-b", "s-a"), ("n-a", "s-b")];
        let expected = texts.map(|(name, text)| (name.to_owned(), text.to_owned()));
        assert_eq!(schema.references, expected);
        for _ in 0..3 {
            let request = was_asked.recv().expect("a request").to_lowercase();
            assert!(
                request.contains("authorization: basic bwu6cdp3\r\n"),
                "{request}"
            );
        }
    }

    #[test]
    fn what_is_no_registrys_answer_is_not_taken_for_one() {
        let absent = |code: u32| format!(r#"{{"error_code":{code},"message":"no\nsuch"}}"#);
        let page = || "<html>not found</html>".to_owned();
        let large = format!(r#"{{"schema":"{}"}}"#, "x".repeat(5 << 20));
        let long = format!(r#"{{"schema":"{}"}}"#, "x".repeat(2 << 20));
        let (url, _asked) = serve(answers(&[
            ("/schemas/ids/1", "404 Not Found", absent(SCHEMA_NOT_FOUND)),
            ("/schemas/ids/2", "404 Not Found", page()),
            ("/schemas/ids/3", "404 Not Found", absent(SUBJECT_NOT_FOUND)),
            ("/schemas/ids/4", "200 OK", page()),
            ("/schemas/ids/5", "302 Found", page()),
            ("/schemas/ids/6", "401 Unauthorized", page()),
            ("/schemas/ids/7", "500 Oh", absent(50001)),
            ("/schemas/ids/8", "200 OK", large),
            ("/schemas/ids/9", "200 OK", long),
        ]));
        let registry = registry(&url, None);
        let why = |id: u32| match registry.schema(id).expect_err("no schema") {
            Trouble::Unknown => "unknown".to_owned(),
            Trouble::Failed(why) => format!("failed: {why}"),
            Trouble::Refused(why) => format!("refused: {why}"),
        };
        assert_eq!(why(1), "unknown");
        for (id, part) in [
            (2, "failed: "),
            (2, "is the path of schemas.registry right?"),
            (3, "failed: "),
            (4, "is not a registry's"),
            (5, "a redirect, which is not followed"),
            (6, "check schemas.username"),
            (7, "500 (error code 50001)"),
            (8, "refused: is larger than"),
            (9, "refused: is larger than"),
        ] {
            let why = why(id);
            assert!(why.contains(part) && !why.contains('\n'), "{id}: {why}");
        }
        let nobody = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", nobody.local_addr().expect("an address"));
        drop(nobody);
        let trouble = self::registry(&url, None).schema(1).expect_err("nobody");
        assert!(matches!(trouble, Trouble::Failed(_)), "{trouble:?}");
    }

    #[test]
    fn a_subject_is_one_segment_of_a_path() {
        assert_eq!(encoded("orders-value"), "orders-value");
        assert_eq!(encoded("a/../b?c d%ü"), "a%2F..%2Fb%3Fc%20d%25%C3%BC");
    }
}
