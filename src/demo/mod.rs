//! `kafka-dedup demo`: the whole thing on a real broker on this machine.
//!
//! A broker is started, a fleet of trucks sends to it with the duplicates that real producers make,
//! the service runs beside them and is killed with -9 more than once, and in the end the output is
//! audited from outside. Touches loopback ports, one directory, and the cache of the broker's jars.
//!
//! What is public here is for scenes of the same kind: the tests, and `examples/`.

pub mod audit;
pub mod broker;
pub mod dir;
mod fleet;
pub mod interrupt;
mod jars;
mod judgement;
pub mod ports;
pub mod process;
pub mod program;
mod reports;
mod service;
mod show;
pub mod watch;

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;

pub use jars::{java, kafka_version, last_lines};
pub use judgement::Record;
pub use show::table;

use crate::exit::{Status, Stop};
use broker::Cluster;
use fleet::{Fleet, Sent};
use interrupt::Interrupt;
use judgement::Findings;
use program::Program;
use reports::Plan;
use service::Service;
use show::{Moment, Show};
use watch::Watch;

const INPUT: &str = "truck_position";
const OUTPUT: &str = "truck_position_dedup";
/// The consumer group of the service under demonstration.
const GROUP: &str = "truck-demo";
const PARTITIONS: i32 = 8;

const TICK: Duration = Duration::from_millis(100);
/// A supervisor's pause before it starts a dead process again.
const DOWN_FOR: Duration = Duration::from_secs(1);
/// A service that gets nowhere for so long is stuck.
const PATIENCE: Duration = Duration::from_secs(60);

const NOTES: &str = "\
What it does: it starts a Kafka broker (Java 17; Maven fetches its jars once), trucks that send some
records again, and the service; kills the service with -9 now and then, and audits the output. All
of it listens on loopback ports, and ends with the demo.

Examples:
  kafka-dedup demo
  kafka-dedup demo --records 20000 --kills 1 --seconds 5
  kafka-dedup demo --keep --dir /tmp/demo    # look around afterwards

Exit status: 0 the audit passed, 1 it did not, 64 bad usage, or no Java or Maven, 70 defect,
130 stopped before the audit.";

/// `kafka-dedup demo`
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = NOTES)]
pub struct DemoArgs {
    /// Records with an id of their own that the trucks send
    #[arg(long, value_name = "N", default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub records: u64,
    /// Trucks, each a record key
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub trucks: u64,
    /// How often the service is killed with -9
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub kills: u32,
    /// Duplicates for each hundred records
    #[arg(long, value_name = "PERCENT", default_value_t = 10, value_parser = clap::value_parser!(u64).range(0..=1000))]
    pub duplicates: u64,
    /// Seconds over which the sending is spread
    #[arg(long, value_name = "SECONDS", default_value_t = 25)]
    pub seconds: u32,
    /// Repeat the trucks of an earlier run [default: a new seed each time, printed]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Leave the broker and the service running after the audit, until Ctrl-C
    #[arg(long)]
    pub keep: bool,
    /// An empty or new directory for all data and logs; it is left there [default: a temporary one,
    /// left there only when the demo fails]
    #[arg(long)]
    pub dir: Option<PathBuf>,
}

/// Runs the demo. Takes about 40 s with the defaults, once the broker's jars are in the cache.
///
/// # Errors
/// `AuditFailed` (1) when the output is not what it must be; interrupted (130) when the demo was
/// stopped before the audit; usage (64) when Java, Maven or the directory is not as needed; else internal (70).
pub fn run(args: DemoArgs) -> Result<(), Stop> {
    let interrupt = Interrupt::listen()?;
    dir::within(args.dir.as_deref(), "kafka-dedup-demo", &interrupt, |dir| {
        play(&args, dir, &interrupt)
    })
}

fn play(args: &DemoArgs, dir: &Path, interrupt: &Interrupt) -> Result<(), Stop> {
    let plan = Plan {
        unique: args.records,
        duplicates: u64::try_from(u128::from(args.records) * u128::from(args.duplicates) / 100)
            .map_err(|_| Stop::usage("--records times --duplicates is too much to count"))?,
        trucks: args.trucks,
        seed: args.seed.unwrap_or_else(rand::random),
        drive: Duration::from_secs(args.seconds.into()),
    };
    let mut show = Show::new(plan.unique + plan.duplicates);
    // Before a long download: what good are the jars without it?
    jars::java()?;
    broker::jars(&|line| show.say(line))?;
    interrupt.check()?;
    let kafka = kafka_version()?;
    show.say(&format!("starting Apache Kafka {kafka} (KRaft, one node)"));
    let cluster = Cluster::start(1, dir)?;
    let bootstrap = cluster.bootstrap();
    create_topic(&bootstrap, INPUT, PARTITIONS)?;
    let mut service = Service::configure(dir, &bootstrap)?;
    show.say(&format!(
        "broker {bootstrap}, metrics http://{}/metrics, seed {}",
        service.http, plan.seed
    ));
    let sent = drive(
        args,
        plan,
        &bootstrap,
        &mut service.program,
        &mut show,
        interrupt,
    )?;
    if !args.keep {
        service.program.stop()?;
    }
    show.say("auditing: each id once, first record, in order, nothing missing");
    let mut findings = audit::audit(&bootstrap, INPUT, OUTPUT, PARTITIONS)?;
    findings.must_have_received(sent.reported);
    show.clear();
    report(&sent, args.kills, &findings);
    if args.keep {
        show.say(&format!(
            "still running until Ctrl-C:\n  broker   {bootstrap}\n  metrics  http://{}/metrics\n  \
             ready    http://{}/readyz\n  admin    http://{}\n  files    {}",
            service.http,
            service.http,
            service.admin,
            dir.display()
        ));
        while !interrupt.is_asked() {
            service.program.must_run()?;
            thread::sleep(TICK);
        }
        service.program.stop()?;
    }
    cluster.stop();
    findings.verdict()
}

/// Sends everything while the service works and is killed again and again; returns when the
/// service has committed a verdict for every record.
fn drive(
    args: &DemoArgs,
    plan: Plan,
    bootstrap: &str,
    service: &mut Program,
    show: &mut Show,
    interrupt: &Interrupt,
) -> Result<Sent, Stop> {
    let mut watch = Watch::new(bootstrap, GROUP, INPUT, PARTITIONS)?;
    let fleet = Fleet::start(bootstrap, INPUT, plan)?;
    service.start()?;
    let total = plan.unique + plan.duplicates;
    let mut kills = 0;
    let mut killed_at = Instant::now();
    // Where the service stood when it was started, and the last sign of progress.
    let mut judged_at_start = 0;
    let mut progress = (0, Instant::now());
    loop {
        interrupt.check()?;
        service.must_run()?;
        let (sent, judged) = (fleet.sent().total(), watch.judged());
        show.update(&Moment {
            sent,
            judged,
            kills,
            service_up: service.is_up(),
        });
        if judged > progress.0 || judged >= sent {
            progress = (judged, Instant::now());
        }
        // A kill must interrupt work: first it has to get somewhere since it was started.
        let got_somewhere = judged > judged_at_start || judged >= total;
        let next_kill = u128::from(total) * u128::from(kills + 1) / u128::from(args.kills + 1);
        if !service.is_up() {
            if killed_at.elapsed() >= DOWN_FOR {
                service.start()?;
                (judged_at_start, progress.1) = (judged, Instant::now());
            }
        } else if kills < args.kills && u128::from(sent) >= next_kill && got_somewhere {
            // Some other moment of its work each time.
            thread::sleep(TICK.mul_f64(rand::random::<f64>()));
            service.kill();
            (kills, killed_at) = (kills + 1, Instant::now());
            show.say(&format!(
                "kill -9 number {kills}, with {sent} sent and {judged} judged"
            ));
        } else if fleet.has_ended() && judged >= total && kills == args.kills {
            break;
        } else if progress.1.elapsed() >= PATIENCE {
            let seconds = PATIENCE.as_secs();
            let what = format!("committed nothing for {seconds} s, with {judged} of {sent} judged");
            return Err(service.complain(&what));
        }
        thread::sleep(TICK);
    }
    fleet.finish()
}

impl Findings {
    /// The input must hold what the fleet sent: else the audit compared the wrong things.
    fn must_have_received(&mut self, reported: u64) {
        if self.unique != reported {
            self.differences += 1;
            let unique = self.unique;
            self.described.push(format!(
                "the input holds {unique} ids, but {reported} were sent"
            ));
        }
    }

    /// # Errors
    /// `AuditFailed` (1) with the first differences.
    fn verdict(&self) -> Result<(), Stop> {
        if self.differences == 0 {
            return Ok(());
        }
        let sentence = format!(
            "the output is not what it must be, {} differences, the first of them:\n  {}",
            self.differences,
            self.described.join("\n  ")
        );
        Err(Stop {
            status: Status::AuditFailed,
            sentence,
        })
    }
}

fn report(sent: &Sent, kills: u32, findings: &Findings) {
    let audit = match findings.differences {
        0 => "passed".to_owned(),
        differences => format!("FAILED, {differences} differences"),
    };
    show::table(&[
        ("sent", sent.total().to_string()),
        ("unique", sent.reported.to_string()),
        (
            "duplicates: acknowledgement lost, batch sent again",
            sent.resent.to_string(),
        ),
        (
            "duplicates: offset commit lost, batch read again",
            sent.reread.to_string(),
        ),
        ("forwarded", findings.forwarded.to_string()),
        ("kill -9 survived", kills.to_string()),
        ("audit", audit),
    ]);
}

/// Makes a topic with one replica and the broker's own settings.
///
/// # Errors
/// Internal (70) when the broker does not make it; it may be there already.
pub fn create_topic(bootstrap: &str, name: &str, partitions: i32) -> Result<(), Stop> {
    let failed = |what: String| Stop::internal(format!("cannot create topic {name}: {what}"));
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .create()
        .map_err(|error| failed(error.to_string()))?;
    let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
    let created = admin.create_topics([&topic], &AdminOptions::new());
    let results = futures_executor::block_on(created).map_err(|error| failed(error.to_string()))?;
    match results.first() {
        Some(Ok(_)) => Ok(()),
        Some(Err((_, code))) => Err(failed(code.to_string())),
        None => Err(failed("the broker did not answer for it".to_owned())),
    }
}
