//! `docs/runbook.md` as a page of its own, so that it is there when the network is not. Made once, of a text that is part
//! of the program.

use std::collections::HashMap;
use std::sync::LazyLock;

use maud::{DOCTYPE, PreEscaped, html};
use pulldown_cmark::{CowStr, Event, Options, Parser, Tag, TagEnd};

const TEXT: &str = include_str!("../../../docs/runbook.md");

static PAGE: LazyLock<String> = LazyLock::new(|| {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "kafka-dedup: runbook" }
                link rel="icon" href="data:,";
                link rel="stylesheet" href="/page.css";
            }
            body {
                header { p { a href="/" { "Back to the status page" } } }
                main.text { (PreEscaped(rendered(TEXT))) }
            }
        }
    };
    page.into_string()
});

pub fn page() -> &'static str {
    &PAGE
}

/// Headings can be led to as on GitHub; other documents are not here, so that only what they are called is left.
fn rendered(text: &str) -> String {
    let mut events: Vec<Event<'_>> = Parser::new_ext(text, Options::ENABLE_TABLES).collect();
    let mut taken: HashMap<String, usize> = HashMap::new();
    for at in 0..events.len() {
        if !matches!(events[at], Event::Start(Tag::Heading { .. })) {
            continue;
        }
        let rest = events[at..].iter();
        let inside = rest.take_while(|it| !matches!(it, Event::End(TagEnd::Heading(_))));
        let title: String = inside
            .filter_map(|event| match event {
                Event::Text(text) | Event::Code(text) => Some(text.as_ref()),
                _ => None,
            })
            .collect();
        let name = anchor(&title);
        let times = taken.entry(name.clone()).or_default();
        let unique = match *times {
            0 => name,
            before => format!("{name}-{before}"),
        };
        *times += 1;
        if let Event::Start(Tag::Heading { id, .. }) = &mut events[at] {
            *id = Some(CowStr::from(unique));
        }
    }
    let mut leads_away = false;
    events.retain(|event| match event {
        Event::Start(Tag::Link { dest_url, .. }) => {
            leads_away = !dest_url.starts_with('#');
            !leads_away
        }
        Event::End(TagEnd::Link) => !leads_away,
        _ => true,
    });
    let mut page = String::with_capacity(2 * text.len());
    pulldown_cmark::html::push_html(&mut page, events.into_iter());
    page
}

/// As GitHub makes them.
fn anchor(title: &str) -> String {
    let kept = title
        .chars()
        .filter(|it| it.is_alphanumeric() || matches!(it, ' ' | '-' | '_'));
    kept.map(|it| match it {
        ' ' => '-',
        other => other.to_ascii_lowercase(),
    })
    .collect()
}

/// Whether the runbook has such a section.
#[cfg(test)]
pub fn has(section: &str) -> bool {
    page().contains(&format!("id=\"{}\"", anchor(section)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_can_be_led_to_and_nothing_leads_away() {
        assert!(has("KafkaDedupLagGrowing") && has("/readyz?verbose") && has("Fenced"));
        assert!(!has("KafkaDedupNothing"));
        assert_eq!(anchor("/readyz?verbose"), "readyzverbose");
        let text = rendered("# A `b`\n\n# A b\n\n[here](#a-b) and [there](moving.md#x) | <b>\n");
        assert!(
            text.contains("<h1 id=\"a-b\">") && text.contains("<h1 id=\"a-b-1\">"),
            "{text}"
        );
        assert!(
            text.contains("<a href=\"#a-b\">here</a> and there |"),
            "{text}"
        );
        for link in page().split("href=\"#").skip(1) {
            let wanted = link.split('"').next().unwrap_or_default();
            assert!(page().contains(&format!("id=\"{wanted}\"")), "{wanted}");
        }
        assert!(page().contains("<table>"));
    }
}
