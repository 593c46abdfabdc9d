//! The command line: flags become a command, the command's end becomes an exit status.
//!
//! Whatever ends the process other than success says so in one sentence, which is the last line on
//! standard error.

mod admin;
pub mod check;
mod clock;
pub mod colours;
mod describe;
pub mod logging;
mod manifest;
pub mod run;
mod signals;
mod supervisor;
mod watchdog;

use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::cli::admin::AdminArgs;
use crate::cli::check::CheckArgs;
use crate::cli::describe::{CompletionsArgs, ManArgs};
use crate::cli::manifest::ManifestArgs;
use crate::cli::run::RunArgs;
use crate::config;
use crate::demo::{self, DemoArgs};
use crate::exit::{Status, Stop};
use crate::inspect::{self, ExportArgs, InspectArgs};
use crate::plan::{self, PlanArgs};
use crate::preload::{self, PreloadArgs};
use crate::scan::{self, ScanArgs};
use crate::verify::{self, VerifyArgs};

const EXAMPLES: &str = "\
Examples:
  kafka-dedup demo                      see it work on this machine
  kafka-dedup scan orders -b broker:9092 --id header:message-id
                                        how many duplicates are there, and how old?
  kafka-dedup plan --rate 5000 --window 24h
                                        what it will take: memory, disk, journal, traffic
  kafka-dedup check -c dedup.yaml       what would be done, and what stands in the way
  kafka-dedup preload -c dedup.yaml --from-topic --start-at latest
                                        take over from what is there: remember its output
  kafka-dedup run -c dedup.yaml         do it, until SIGTERM or Ctrl-C
  kafka-dedup inspect -c dedup.yaml     what it remembers, and whether an id was seen (--id)
  kafka-dedup export -c dedup.yaml --output seen.csv
                                        the remembered ids as a table
  kafka-dedup verify -c dedup.yaml      is the output what it must be?
  kafka-dedup admin -c dedup.yaml seen --topic orders --id 4711
                                        ask and tell a running process

Every key of the file can also be set in the environment:
  KAFKA_DEDUP__KAFKA__BOOTSTRAP_SERVERS=broker-1:9092 kafka-dedup run -c dedup.yaml

Exit status: 0 done, 1 an audit found a difference, 64 bad usage or config, 69 Kafka unreachable at start, 70 defect,
75 a restart helps, 78 the environment contradicts the config, 130 ended before an answer.";

/// Removes duplicate messages from Kafka topics exactly once.
#[derive(Debug, Parser)]
#[command(name = "kafka-dedup", version, after_help = EXAMPLES, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Discard duplicates until told to stop
    Run(RunArgs),
    /// Check config, brokers, topics and permissions, and say what `run` would do
    Check(CheckArgs),
    /// Say how many duplicates a topic holds, and of what age, before anything is deployed
    Scan(Box<ScanArgs>),
    /// Say what memory, disk, journal and traffic a rate and a window take
    Plan(PlanArgs),
    /// Fill the seen window before the first start, from a topic or a file
    Preload(PreloadArgs),
    /// Show what the store and the journal hold, and whether an id was seen
    Inspect(InspectArgs),
    /// Write the seen window as CSV: fingerprint, time seen, first offset, expiry
    Export(ExportArgs),
    /// Audit the output against the input: each id once, in order, nothing missing, nothing altered
    Verify(VerifyArgs),
    /// Ask and tell a running process: is an id seen, forget it, pause, bypass, rebuild, log level
    Admin(AdminArgs),
    /// Show the whole thing on a real broker on this machine
    Demo(DemoArgs),
    /// Print the ConfigMap and the patch that put it beside the containers of a Deployment of Kubernetes
    SidecarManifest(ManifestArgs),
    /// Print what a shell needs to complete commands and flags
    Completions(CompletionsArgs),
    /// Print the manual page, or write one for each command
    Man(ManArgs),
}

/// Runs the command that the arguments name (the first is the program), to its end. Returns a
/// status of [`Status`]; only a second signal leaves the process from within.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(answer) => {
            let answer = with_suggestion(answer);
            // Help that cannot be printed (a closed pipe) leaves nobody to tell.
            let _ = answer.print();
            return exit_code(usage_status(&answer));
        }
    };
    // The panic hook has said where; AssertUnwindSafe: nothing is used after it but the status.
    let ended = catch_unwind(AssertUnwindSafe(|| cli.command.execute()));
    match ended.unwrap_or_else(|_| Err(Stop::internal(DEFECT))) {
        Ok(()) => {
            logging::finish();
            exit_code(Status::Done)
        }
        Err(stop) => {
            logging::last_line(stop.status as u8, &stop.sentence);
            exit_code(stop.status)
        }
    }
}

const DEFECT: &str =
    "a defect of this program ended it (the panic is logged above); please report it";

impl Command {
    fn execute(self) -> Result<(), Stop> {
        match self {
            Self::Run(arguments) => run::run(&arguments.config),
            Self::Check(arguments) => check::run(&arguments),
            Self::Scan(arguments) => scan::run(*arguments),
            Self::Plan(arguments) => plan::run(&arguments),
            Self::Preload(arguments) => preload::run(&arguments),
            Self::Inspect(arguments) => inspect::run(&arguments),
            Self::Export(arguments) => inspect::export(&arguments),
            Self::Verify(arguments) => verify::run(&arguments),
            Self::Admin(arguments) => admin::run(&arguments),
            Self::Demo(arguments) => demo::run(arguments),
            Self::SidecarManifest(arguments) => manifest::run(&arguments),
            Self::Completions(arguments) => describe::completions(&arguments),
            Self::Man(arguments) => describe::man(&arguments),
        }
    }
}

/// clap compares words by their beginnings, and knows no slips of short ones: `rnu`.
fn with_suggestion(mut answer: clap::Error) -> clap::Error {
    use clap::error::ContextKind::{InvalidSubcommand, SuggestedSubcommand};
    use clap::error::ContextValue::{String as Word, Strings as Words};
    if let Some(Word(typed)) = answer.get(InvalidSubcommand)
        && answer.get(SuggestedSubcommand).is_none()
    {
        let program = Cli::command();
        let names = program.get_subcommands().map(clap::Command::get_name);
        if let Some(near) = config::nearest(typed, names) {
            let near = Words(vec![near.to_owned()]);
            answer.insert(SuggestedSubcommand, near);
        }
    }
    answer
}

/// Help and version are answers; everything else that clap returns is bad usage.
fn usage_status(answer: &clap::Error) -> Status {
    use clap::error::ErrorKind::{DisplayHelp, DisplayVersion};
    match answer.kind() {
        DisplayHelp | DisplayVersion => Status::Done,
        _ => Status::Usage,
    }
}

fn exit_code(status: Status) -> ExitCode {
    ExitCode::from(status as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from([&["kafka-dedup"], arguments].concat())
    }

    #[test]
    fn bad_usage_exits_64() {
        for arguments in [
            &[][..],
            &["run"],
            &["run", "-c"],
            &["run", "-c", "f.yaml", "--offline"],
            &["inspect", "-c", "f.yaml", "--id", "a", "--id-hex", "61"],
            &["inspect", "-c", "f.yaml", "--partition", "-1"],
            &["export", "-c", "f.yaml", "--json"],
            &["preload", "-c", "f.yaml", "--start-at", "latest"],
            &["preload", "-c", "f.yaml", "--from-topic", "t"],
            &[
                "preload",
                "-c",
                "f.yaml",
                "--from-topic",
                "--from-file",
                "f",
                "--start-at",
                "latest",
            ],
            &["verify"],
            &["plan"],
            &["plan", "--rate", "-1"],
            &["plan", "--rate", "5", "--duplicates", "101%"],
            &["plan", "--rate", "5", "--instances", "0"],
            &["verify", "-c", "f.yaml", "--from", "yesterday"],
            &["admin", "-c", "f.yaml"],
            &["admin", "-c", "f.yaml", "bypass"],
            &["admin", "-c", "f.yaml", "seen", "--topic", "t"],
            &["walk"],
            &["--frobnicate"],
        ] {
            let answer = parse(arguments).expect_err("bad usage");
            assert_eq!(usage_status(&answer), Status::Usage, "{arguments:?}");
        }
        assert_eq!(
            main(["kafka-dedup".into(), "walk".into()]),
            ExitCode::from(64)
        );
    }

    #[test]
    fn a_slip_in_a_command_or_flag_is_told_with_what_was_meant() {
        for (arguments, meant) in [
            (&["rnu"][..], "'run'"),
            (&["chekc"], "'check'"),
            (&["verfiy", "-c", "f"], "'verify'"),
            (&["check", "--ofline"], "'--offline'"),
            (&["scan", "t", "--memroy", "1GB"], "'--memory'"),
        ] {
            let answer = with_suggestion(parse(arguments).expect_err("a slip")).to_string();
            assert!(
                answer.contains("similar") && answer.contains(meant),
                "{answer}"
            );
        }
        let far = with_suggestion(parse(&["frobnicate"]).expect_err("unknown"));
        assert!(!far.to_string().contains("similar"), "{far}");
    }

    #[test]
    fn every_command_has_examples_and_every_flag_a_help_of_one_sentence() {
        fn look(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            assert!(command.get_about().is_some(), "{path}");
            for argument in command.get_arguments() {
                let help = argument.get_help().map(ToString::to_string);
                let help = help.unwrap_or_default();
                let name = argument.get_id();
                assert!(
                    !help.is_empty() && !help.ends_with('.'),
                    "{path} {name}: {help:?}"
                );
            }
            if command.get_subcommands().next().is_none() || command.get_name() == "admin" {
                let notes = command.get_after_help().map(ToString::to_string);
                let notes = notes.unwrap_or_default();
                assert!(notes.contains("Example"), "{path}");
                assert!(notes.contains(command.get_name()), "{path}");
            }
            for under in command.get_subcommands() {
                look(under, &path);
            }
        }
        look(&Cli::command(), "");
    }

    #[test]
    fn help_and_version_exit_0() {
        for arguments in [&["--help"][..], &["--version"], &["run", "--help"]] {
            let answer = parse(arguments).expect_err("an answer");
            assert_eq!(usage_status(&answer), Status::Done, "{arguments:?}");
        }
    }

    #[test]
    fn help_names_commands_examples_and_statuses() {
        let help = parse(&["--help"]).expect_err("help").to_string();
        // Names and sentences stand in two columns.
        let words: Vec<&str> = help.split_whitespace().collect();
        let help = words.join(" ");
        for words in [
            "Removes duplicate messages from Kafka topics exactly once",
            "run Discard duplicates until told to stop",
            "check Check config, brokers",
            "scan Say how many duplicates",
            "plan Say what memory",
            "preload Fill the seen window before the first start",
            "inspect Show what the store and the journal hold",
            "export Write the seen window as CSV",
            "verify Audit the output against the input",
            "admin Ask and tell a running process",
            "demo Show the whole thing",
            "kafka-dedup check -c dedup.yaml",
            "KAFKA_DEDUP__KAFKA__BOOTSTRAP_SERVERS",
            "64 bad usage or config",
        ] {
            assert!(help.contains(words), "no {words:?} in\n{help}");
        }
    }

    #[test]
    fn check_takes_a_file_and_offline() {
        let cli = parse(&["check", "-c", "f.yaml", "--offline"]).expect("good usage");
        let Command::Check(check) = cli.command else {
            panic!("another command")
        };
        assert!(check.offline && !check.json && check.config.ends_with("f.yaml"));
    }
}
