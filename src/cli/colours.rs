//! Whether colours are wanted: on a terminal, unless `NO_COLOR` is set or `TERM` is `dumb`; elsewhere
//! only where `CLICOLOR_FORCE` asks for them. As clap has it of its help and errors.

use anstream::ColorChoice;
use anstream::stream::RawStream;

/// Of what is written there.
pub fn wanted_on(stream: &impl RawStream) -> bool {
    anstream::AutoStream::choice(stream) != ColorChoice::Never
}
