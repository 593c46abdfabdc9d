//! What the schema registry has for the inputs, and where the id is in it.

use super::report::Report;
use crate::config::Config;
use crate::exit::Stop;
use crate::schemas::{Plan, Prospect, Registry, Trouble, places};

/// Reports the latest schema of each input's subject, by the naming that is the default everywhere.
pub fn report(out: &mut Report, config: &Config, inputs: &[String]) -> Result<(), Stop> {
    let Some(schemas) = &config.schemas else {
        return Ok(());
    };
    let registry = Registry::new(schemas)?;
    out.heading(&format!("schema registry {}", registry.url()));
    let places = places(&config.id.from);
    if places.is_empty() {
        out.ok("id.from needs no schema: it would not be asked");
    }
    for input in inputs {
        let subject = format!("{input}-value");
        match registry.latest(&subject) {
            Ok((name, schema)) => {
                out.ok(&format!("{name}, {}", schema.format));
                for place in &places {
                    let plan = Plan::new(place, &schema);
                    match plan.prospect() {
                        Prospect::Ids => out.ok(&format!("{subject}: {}", plan.sentence())),
                        Prospect::Absent => out.warn(&format!("{subject}: {}", plan.sentence())),
                        Prospect::Refused => out.fail(&format!("{subject}: {}", plan.sentence())),
                    }
                }
            }
            Err(Trouble::Unknown) => out.warn(&format!(
                "there is no subject {subject}: either nothing was registered for {input} yet, or its \
                 schemas are named otherwise, which is no hindrance: records name them by id"
            )),
            Err(Trouble::Refused(why)) => {
                out.fail(&format!("{subject} {why}: its records count as unparsable"));
            }
            Err(Trouble::Failed(why)) => {
                out.fail(&format!(
                    "the registry cannot be asked, and run would wait for it: {why}"
                ));
                // The others would only take as long.
                break;
            }
        }
    }
    Ok(())
}
