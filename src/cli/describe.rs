//! The command line described for others: completions for shells, pages for `man`. Both follow from the
//! same flags as the help does.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::CommandFactory;
use clap_complete::Shell;
use clap_mangen::Man;

use super::Cli;
use crate::exit::Stop;

const COMPLETIONS: &str = "\
Examples:
  kafka-dedup completions bash > /etc/bash_completion.d/kafka-dedup
  kafka-dedup completions zsh > \"${fpath[1]}/_kafka-dedup\"
  kafka-dedup completions fish > ~/.config/fish/completions/kafka-dedup.fish
  source <(kafka-dedup completions bash)   # in this shell alone

Exit status: 0 done, 64 bad usage.";

/// `kafka-dedup completions`
#[derive(Debug, clap::Args)]
#[command(after_help = COMPLETIONS)]
pub struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

const PAGES: &str = "\
Examples:
  kafka-dedup man | man -l -
  kafka-dedup man --dir /usr/local/share/man/man1   # then: man kafka-dedup-scan

Exit status: 0 done, 64 bad usage, 70 a page cannot be written.";

/// `kafka-dedup man`
#[derive(Debug, clap::Args)]
#[command(after_help = PAGES)]
pub struct ManArgs {
    /// Write kafka-dedup.1 and a page for each command to this directory [default: one page, to standard output]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Prints the completions.
pub fn completions(arguments: &CompletionsArgs) -> Result<(), Stop> {
    let mut script = Vec::new();
    clap_complete::generate(
        arguments.shell,
        &mut Cli::command(),
        "kafka-dedup",
        &mut script,
    );
    if arguments.shell == Shell::Bash {
        // clap_complete 4.6.11 spells a program's name with a hyphen in two ways, so that no command's
        // flags would be completed.
        let text = String::from_utf8_lossy(&script);
        script = text
            .replace("kafka__subcmd__dedup", "kafka__dedup")
            .into_bytes();
    }
    print(&script);
    Ok(())
}

/// Prints or writes the pages.
///
/// # Errors
/// 70 where a page cannot be written.
pub fn man(arguments: &ManArgs) -> Result<(), Stop> {
    // A page of its own for the command `help` would say nothing.
    let program = Cli::command().disable_help_subcommand(true);
    let Some(dir) = &arguments.dir else {
        let page = page(program).map_err(|error| unwritten(Path::new("-"), &error))?;
        print(&page);
        return Ok(());
    };
    fs::create_dir_all(dir)
        .and_then(|()| clap_mangen::generate_to(program, dir))
        .map_err(|error| unwritten(dir, &error))
}

fn page(program: clap::Command) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    // Nothing in it says when it was made: the same build makes the same page.
    Man::new(program).render(&mut page)?;
    Ok(page)
}

fn print(bytes: &[u8]) {
    // A reader that has seen enough is no failure.
    let _ = io::stdout().write_all(bytes);
}

fn unwritten(path: &Path, error: &io::Error) -> Stop {
    Stop::internal(format!("{} cannot be written: {error}", path.display()))
}
