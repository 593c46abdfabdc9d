//! Texts and variables that nobody would write: a fault or a configuration, never a panic.

use proptest::prelude::*;

use super::*;

/// Loading ends, and a refusal says something; what loads is rendered and loads again.
fn survives(text: &str, env: &BTreeMap<String, String>) -> Result<(), TestCaseError> {
    match from_str(text, "c.yaml", env) {
        Err(faults) => prop_assert!(faults.lines().next().is_some()),
        Ok(config) => {
            let yaml = config.to_yaml_redacted();
            prop_assert!(
                from_str(&yaml, "c.yaml", &BTreeMap::new()).is_ok(),
                "{}",
                yaml
            );
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_text(text in any::<String>()) {
        survives(&text, &BTreeMap::new())?;
    }

    #[test]
    fn any_arrangement_of_what_yaml_is_made_of(
        parts in prop::collection::vec(
            prop_oneof![
                Just("kafka:"), Just("id: "), Just("from: "), Just("all"), Just("topics"),
                Just(": "), Just("- "), Just("\n"), Just("\n  "), Just("\n    "), Just("{"),
                Just("}"), Just("["), Just("]"), Just(", "), Just("\""), Just("'"), Just("|"),
                Just(">"), Just("#"), Just("&a "), Just("*a "), Just("!t "), Just("? "),
                Just("---"), Just("..."), Just("%"), Just("\t"), Just("\r\n"), Just("null"),
                Just("${"), Just("$"), Just("\\"), Just("\\x"), Just("é"), Just("\u{2028}"),
                Just("<<"), Just("~"), Just("0"), Just("@"), Just("`"), Just("\u{FEFF}"),
            ],
            0..40,
        )
    ) {
        survives(&parts.concat(), &BTreeMap::new())?;
    }

    #[test]
    fn a_sample_with_a_hole_and_something_else_in_it(
        at in 0..SAMPLE.len(), length in 0..40_usize, other in "\\PC{0,8}",
    ) {
        let cut = |at: usize| (0..=at.min(SAMPLE.len())).rev()
            .find(|at| SAMPLE.is_char_boundary(*at)).unwrap_or(0);
        let text = format!("{}{other}{}", &SAMPLE[..cut(at)], &SAMPLE[cut(at + length)..]);
        survives(&text, &BTreeMap::new())?;
    }

    #[test]
    fn any_value_in_a_variable(
        key in 0..keys::KEYS.len(), value in prop_oneof![any::<String>(), "[\\[{].{0,20}[\\]}]"],
    ) {
        let name = keys::variable(keys::KEYS[key].0);
        survives(LEAST, &env(&[(&name, &value)]))?;
    }

    #[test]
    fn any_value_of_a_property_is_rendered_as_it_is(value in "[^\0\u{FFFD}]*") {
        let pairs = [("KAFKA_DEDUP__KAFKA__PROPERTIES__CLIENT_ID", value.as_str())];
        let config = with_env("", &pairs).map_err(|faults| TestCaseError::fail(faults.to_string()))?;
        let again = from_str(&config.to_yaml_redacted(), "c.yaml", &BTreeMap::new());
        prop_assert_eq!(again.unwrap(), config);
    }
}
