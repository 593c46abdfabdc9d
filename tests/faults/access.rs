//! Access is taken away while records flow, and given back: permissions, the password, the certificate.

use std::time::Duration;

use crate::campaign::Rounds;
use crate::kit::{Instance, now_ms, wait_for};
use crate::proxy::{Proxy, Weather};
use crate::rig::{Holdings, Plan, Rig};
use crate::secured::access::{
    CREATE, DELETE, DESCRIBE, DESCRIBE_CONFIGS, Grant, READ, WRITE, allow, forbid, set_password,
};
use crate::secured::{PASSWORD, Secured, Way, least_privilege};

const LISTENER: &str = "SECURED";
const USER: &str = "service";
/// A start that cannot be goes on for half a minute.
const PATIENCE: Duration = Duration::from_secs(120);

/// What is taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lack {
    ReadInput,
    /// The same, of an input that may still be seen.
    ReadSeenInput,
    WriteOutput,
    WriteDuplicates,
    ReadJournal,
    WriteJournal,
    TrimJournal,
    ReadGroup,
    WriteTransactions,
    /// What is needed to make topics, and to warn of their settings: nothing is to be felt of it.
    MakeTopics,
    /// All permissions.
    All,
    Password,
    /// The listener shows a certificate that has expired.
    Expired,
    /// The listener shows a certificate that is for another host.
    Elsewhere,
}

use Lack::{
    All, Elsewhere, Expired, MakeTopics, Password, ReadGroup, ReadInput, ReadJournal,
    ReadSeenInput, TrimJournal, WriteDuplicates, WriteJournal, WriteOutput, WriteTransactions,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    Running,
    /// A member is killed and starts again meanwhile.
    AtStart,
    /// The same, and it is left alone until it has ended.
    UntilItEnds,
}

use When::{AtStart, Running, UntilItEnds};

/// What is away at once, and when.
const TURNS: [(&[Lack], When); 20] = [
    // The short form has the first 5.
    (&[WriteOutput, Elsewhere], Running),
    (&[Password, WriteJournal], Running),
    (&[Expired, ReadInput], Running),
    (&[WriteTransactions, Password], AtStart),
    (&[ReadGroup, TrimJournal], Running),
    // What is left, in the long form.
    (&[ReadJournal], AtStart),
    (&[WriteDuplicates, ReadSeenInput], Running),
    (&[Expired], UntilItEnds),
    (&[All], Running),
    (&[ReadGroup], AtStart),
    (&[MakeTopics], AtStart),
    (&[WriteTransactions], Running),
    (&[ReadInput, WriteOutput], AtStart),
    (&[Elsewhere], AtStart),
    (&[Password, Expired], Running),
    (&[All], AtStart),
    (&[WriteJournal, ReadJournal], AtStart),
    (&[ReadGroup, WriteTransactions], Running),
    (&[WriteDuplicates, Elsewhere], AtStart),
    (&[Password, ReadJournal], UntilItEnds),
];

/// A broker, and all that stands between it and the service.
struct Access {
    secured: Secured,
    proxy: Proxy,
}

/// In turn. What is told of is given back, and the rest is told of then: so each is, once.
pub fn taken_away(rounds: &mut Rounds) {
    let access = Access::start(rounds.seed);
    let mut rig = Rig::of(Plan {
        extra: "transaction: {interval: 25ms, timeout: 4s}\n",
        ..Plan::on(&access.secured.plain, "access", rounds.seed)
    });
    let sasl = access.secured.sasl("SCRAM-SHA-512", USER, PASSWORD);
    access.secured.lead(&mut rig.deployment, LISTENER, sasl);
    let duplicates = format!("{}_dups", rig.deployment.input);
    let least = least_privilege(&rig.deployment, &[&duplicates]);
    allow(&access.secured.plain, USER, &least);
    let mut pair = ["first", "second"].map(|name| Member::start(&rig, name));
    rig.flow();
    rig.let_flow(5_000);
    let [first, second] = &mut pair;
    rig.settle(&mut [&mut first.instance, &mut second.instance]);
    let held = Holdings::of(&pair[0].instance).or(Holdings::of(&pair[1].instance));
    while let Some(round) = rounds.next() {
        let place = usize::try_from(round).expect("small") % TURNS.len();
        let (lacks, when) = TURNS[place];
        eprintln!("access: round {round}: {lacks:?}, {when:?}");
        rig.flow();
        rig.let_flow(300);
        access.withhold(lacks, when, &least, &rig, rounds, &mut pair);
        rig.let_flow(300);
        let [first, second] = &mut pair;
        let tally = rig.settle(&mut [&mut first.instance, &mut second.instance]);
        rounds.compared(tally.received);
        for member in &pair {
            held.assert_given_back(&member.instance);
        }
    }
    for mut member in pair {
        let status = member.instance.terminate();
        assert!(status.success(), "{}", member.instance.log_tail());
    }
}

impl Access {
    fn start(seed: u64) -> Self {
        let way = Way {
            listener: LISTENER,
            protocol: "SASL_SSL",
            certificate: "good",
            proxied: true,
        };
        // A transaction that is given up is ended soon after its time-out.
        let soon = (
            "transaction.abort.timed.out.transaction.cleanup.interval.ms",
            "1000",
        );
        let secured = Secured::start(&[way], &[soon], &[USER]);
        let (listens, told) = secured.ports(LISTENER);
        Self {
            proxy: Proxy::start_for_tls(told, listens, seed),
            secured,
        }
    }

    /// Takes away what is to lack, and gives back one after the other, each when it has been told of.
    /// Returns when both members have committed since.
    fn withhold(
        &self,
        lacks: &[Lack],
        when: When,
        least: &[Grant],
        rig: &Rig,
        rounds: &mut Rounds,
        pair: &mut [Member; 2],
    ) {
        for member in pair.iter_mut() {
            member.mark = member.instance.log_text().len();
        }
        for lack in lacks {
            pause(rounds, 400);
            self.take_away(*lack, least, rig);
        }
        let tellers = if when == Running { 2 } else { 1 };
        if when != Running {
            pause(rounds, 2_000);
            pair[0].instance.end();
            pair[0].start_again(rig);
        }
        if when == UntilItEnds {
            let first = &mut pair[0].instance;
            wait_for("its end", PATIENCE, || first.has_ended());
        }
        let mut left = lacks.to_vec();
        while !left.is_empty() {
            let told = self.wait_until_told(&left, rig, &mut pair[..tellers]);
            let long = rounds.dice.roll(4) == 0;
            pause(rounds, if long { 12_000 } else { 2_000 });
            left.retain(|lack| *lack != told);
            self.give_back(told, least, rig);
            for member in pair.iter_mut() {
                member.start_again_if_ended(lacks, rig);
            }
        }
        if lacks.contains(&TrimJournal) {
            let it = &rig.deployment;
            let low = || it.kafka.low_watermark(&it.journal(), 0);
            let before = low();
            wait_for("the journal to be trimmed again", PATIENCE, || {
                low() > before
            });
        }
        let since = now_ms();
        wait_for("both to commit again", PATIENCE, || {
            pair.iter_mut().all(|member| {
                member.start_again_if_ended(lacks, rig);
                member.has_committed_since(since)
            })
        });
    }

    fn take_away(&self, lack: Lack, least: &[Grant], rig: &Rig) {
        match lack {
            Password => set_password(&self.secured.plain, USER, "another"),
            Expired => self.show_certificate("expired"),
            Elsewhere => self.show_certificate("elsewhere"),
            ReadSeenInput => {
                let seen = Grant::topic(&rig.deployment.input, DESCRIBE);
                allow(&self.secured.plain, USER, &[seen]);
                self.take_away(ReadInput, least, rig);
            }
            grants => forbid(&self.secured.plain, USER, &grants.among(least, rig)),
        }
    }

    fn give_back(&self, lack: Lack, least: &[Grant], rig: &Rig) {
        match lack {
            Password => set_password(&self.secured.plain, USER, PASSWORD),
            Expired | Elsewhere => self.show_certificate("good"),
            ReadSeenInput => {
                self.give_back(ReadInput, least, rig);
                let seen = Grant::topic(&rig.deployment.input, DESCRIBE);
                forbid(&self.secured.plain, USER, &[seen]);
            }
            grants => allow(&self.secured.plain, USER, &grants.among(least, rig)),
        }
    }

    fn show_certificate(&self, name: &str) {
        self.secured.show_certificate(LISTENER, name);
        self.close_connections();
    }

    /// A certificate is looked at when a connection is made.
    fn close_connections(&self) {
        self.proxy.set(Weather::Cut);
        self.proxy.heal();
    }

    /// Waits until one of these members has told of one of these lacks: that one.
    fn wait_until_told(&self, lacks: &[Lack], rig: &Rig, members: &mut [Member]) -> Lack {
        if lacks.contains(&MakeTopics) {
            rig.let_flow(600);
            return MakeTopics;
        }
        let (mut looks, mut told) = (0, None);
        wait_for(&format!("a word about {lacks:?}"), PATIENCE, || {
            looks += 1;
            // The broker may have shown the old certificate for a moment.
            if looks % 20 == 0 && (lacks.contains(&Expired) || lacks.contains(&Elsewhere)) {
                self.close_connections();
            }
            told = members.iter_mut().find_map(|it| it.tells_of(lacks, rig));
            told.is_some()
        });
        told.expect("one of them")
    }
}

fn pause(rounds: &mut Rounds, most_ms: u64) {
    std::thread::sleep(Duration::from_millis(rounds.dice.roll(most_ms)));
}

impl Lack {
    /// The grants that are taken away.
    fn among(self, least: &[Grant], rig: &Rig) -> Vec<Grant> {
        let it = &rig.deployment;
        let (duplicates, transactional) = (format!("{}_dups", it.input), format!("{}-", it.group));
        let chosen = |grant: &Grant| match self {
            ReadInput | ReadSeenInput => *grant == Grant::topic(&it.input, READ),
            WriteOutput => *grant == Grant::topic(&it.output, WRITE),
            WriteDuplicates => *grant == Grant::topic(&duplicates, WRITE),
            ReadJournal => *grant == Grant::topic(&it.journal(), READ),
            WriteJournal => *grant == Grant::topic(&it.journal(), WRITE),
            TrimJournal => *grant == Grant::topic(&it.journal(), DELETE),
            ReadGroup => *grant == Grant::group(&it.group, READ),
            WriteTransactions => [WRITE, DESCRIBE]
                .iter()
                .any(|operation| *grant == Grant::transactional_ids(&transactional, *operation)),
            MakeTopics => [CREATE, DESCRIBE_CONFIGS].contains(&grant.operation),
            All => true,
            Password | Expired | Elsewhere => false,
        };
        let chosen: Vec<Grant> = least.iter().filter(|it| chosen(it)).cloned().collect();
        assert!(!chosen.is_empty(), "{self:?} is among the grants");
        chosen
    }

    /// What a sentence must say that is about it; one of these, whole.
    fn words(self, rig: &Rig) -> Vec<String> {
        let it = &rig.deployment;
        let topic = |permission: &str, name: &str| {
            // At a start nothing is known of a topic that may not be seen.
            let unseen = format!("Describe on topic {name}");
            vec![format!("{permission} on topic {name}"), unseen]
        };
        match self {
            ReadInput => {
                let unseen = format!("no topic yet for {}", it.input);
                [topic("Read", &it.input), vec![unseen]].concat()
            }
            ReadSeenInput => vec![format!("Read on topic {}", it.input)],
            WriteOutput => topic("Write", &it.output),
            WriteDuplicates => topic("Write", &format!("{}_dups", it.input)),
            ReadJournal => vec![format!("Read on topic {}", it.journal())],
            WriteJournal => topic("Write", &it.journal()),
            ReadGroup => vec![format!("Read on group {}", it.group)],
            WriteTransactions => ["first", "second"]
                .map(|member| format!("Describe on the transactional id {}-{member}-0", it.group))
                .to_vec(),
            All => [
                ReadInput,
                WriteOutput,
                WriteJournal,
                ReadGroup,
                WriteTransactions,
            ]
            .iter()
            .flat_map(|lack| lack.words(rig))
            .collect(),
            Password => vec!["check sasl.mechanism, sasl.username and sasl.password".to_owned()],
            Expired | Elsewhere => {
                vec!["certificate is expired, not for this host name".to_owned()]
            }
            TrimJournal => vec![format!("grant Delete on topic {}", it.journal())],
            // Nothing tells of it.
            MakeTopics => Vec::new(),
        }
    }

    fn is_told_in(self, text: &str, rig: &Rig) -> bool {
        let goes_on =
            |rest: &str| rest.starts_with(|c: char| c.is_alphanumeric() || "-_".contains(c));
        self.words(rig).iter().any(|words| {
            let mut places = text.match_indices(words.as_str());
            places.any(|(at, _)| !goes_on(&text[at + words.len()..]))
        })
    }
}

/// One of the group's members.
struct Member {
    name: &'static str,
    instance: Instance,
    /// How long its log was when the round began.
    mark: usize,
}

impl Member {
    fn start(rig: &Rig, name: &'static str) -> Self {
        let mut instance = rig.deployment.start(name);
        instance.wait_until_ready();
        Self {
            name,
            instance,
            mark: 0,
        }
    }

    /// Which of these it tells of now: in its last line when it has ended, else as the reason why it is
    /// not ready. That the journal is not trimmed is no reason, and only in the log.
    fn tells_of(&mut self, lacks: &[Lack], rig: &Rig) -> Option<Lack> {
        let text = if self.instance.has_ended() {
            self.last_line()
        } else {
            match self.instance.get("/readyz") {
                Some((503, text)) => text,
                _ => String::new(),
            }
        };
        let log = self.instance.log_text();
        let told = lacks.iter().copied().find(|lack| match lack {
            TrimJournal => log
                .get(self.mark..)
                .is_some_and(|new| lack.is_told_in(new, rig)),
            lack => lack.is_told_in(&text, rig),
        })?;
        eprintln!(
            "access: {} tells of {told:?}: {}",
            self.name,
            text.trim_end()
        );
        Some(told)
    }

    fn last_line(&self) -> String {
        let log = self.instance.log_text();
        log.trim_end().lines().last().unwrap_or_default().to_owned()
    }

    /// It may end where it says what is missing, and goes on when it is started again.
    fn start_again_if_ended(&mut self, lacks: &[Lack], rig: &Rig) {
        if !self.instance.has_ended() {
            return;
        }
        let status = self.instance.wait(Duration::ZERO);
        let last = self.last_line();
        assert!(
            matches!(status.code(), Some(69 | 78)),
            "{}",
            self.instance.log_tail()
        );
        assert!(
            lacks.iter().any(|lack| lack.is_told_in(&last, rig)),
            "nothing of {lacks:?} in: {last}"
        );
        eprintln!("access: {} ended: {last}", self.name);
        self.start_again(rig);
    }

    fn start_again(&mut self, rig: &Rig) {
        self.instance = rig.deployment.start(self.name);
        self.mark = 0;
    }

    fn has_committed_since(&self, since_ms: i64) -> bool {
        let metric = "kafka_dedup_last_commit_timestamp_seconds";
        let seconds = self.instance.try_metric(metric).unwrap_or_default();
        seconds * 1000.0 > since_ms as f64
    }
}
