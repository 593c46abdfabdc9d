//! Which topics are inputs, which are the service's own, and what the own ones are called.
//!
//! Pure: works on names alone.

use crate::config::{Config, Mode, Scope, TopicPattern, TopicTemplate};

/// What stands around one input topic; `None` where no record is written to such a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    pub output: Option<String>,
    pub duplicates: Option<String>,
    pub rejected: Option<String>,
    /// Between the two hops of `scope: repartition`.
    pub repartition: Option<String>,
    /// Of the topic whose records are judged: the input, or the repartition topic.
    pub journal: String,
}

impl Names {
    /// The topics that records are written to.
    pub fn of_records(&self) -> impl Iterator<Item = &str> {
        let all = [&self.output, &self.duplicates, &self.rejected];
        all.into_iter().flatten().map(String::as_str)
    }
}

/// The name templates and input patterns of one deployment.
#[derive(Debug, Clone)]
pub struct OwnTopics {
    group: String,
    inputs: Vec<TopicPattern>,
    output: TopicTemplate,
    duplicates: Option<TopicTemplate>,
    rejected: Option<TopicTemplate>,
    repartition: TopicTemplate,
    journal: TopicTemplate,
    has_two_hops: bool,
    writes_records: bool,
}

impl OwnTopics {
    pub fn new(config: &Config) -> Self {
        Self {
            group: config.kafka.group_id.clone(),
            inputs: config.input.topics.clone(),
            output: config.output.topic.clone(),
            duplicates: config.duplicates.topic.clone(),
            rejected: config.rejected.topic.clone(),
            repartition: config.repartition.topic.clone(),
            journal: config.journal.topic.clone(),
            has_two_hops: config.scope == Scope::Repartition,
            writes_records: config.mode != Mode::Observe,
        }
    }

    /// The names of the topics around `topic`.
    pub fn for_input(&self, topic: &str) -> Names {
        let render = |template: &TopicTemplate| template.render(topic, &self.group);
        let written = |template| Some(template).filter(|_| self.writes_records).map(render);
        let repartition = self.has_two_hops.then(|| render(&self.repartition));
        let judged = repartition.as_deref().unwrap_or(topic);
        let journal = self.journal.render(judged, &self.group);
        Names {
            output: written(&self.output),
            duplicates: self.duplicates.as_ref().and_then(written),
            rejected: self.rejected.as_ref().and_then(written),
            repartition,
            journal,
        }
    }

    /// The topic whose records are judged as those of this input.
    pub fn judged(&self, input: &str) -> String {
        match self.has_two_hops {
            true => self.repartition.render(input, &self.group),
            false => input.to_owned(),
        }
    }

    /// The journal of a topic whose records are judged.
    pub fn journal_of(&self, judged: &str) -> String {
        self.journal.render(judged, &self.group)
    }

    /// The input that the records of a judged topic are of; `None` where there can be none.
    pub fn input_of(&self, judged: &str) -> Option<String> {
        let is_input = |name: &&str| !self.resolve(&[name]).is_empty();
        if !self.has_two_hops {
            return Some(judged).filter(is_input).map(str::to_owned);
        }
        match captured(&self.repartition.0, &self.group, judged)? {
            Captured::Name(name) => Some(name).filter(is_input).map(str::to_owned),
            // Then there is one input, by name.
            Captured::Nothing => self.inputs.first().map(|input| input.as_str().to_owned()),
        }
    }

    /// The topic that was between two hops, if `scope: repartition` was what this deployment once had.
    pub fn repartition_before(&self, topic: &str) -> Option<String> {
        let name = self.repartition.render(topic, &self.group);
        (!self.has_two_hops && is_topic_name(&name)).then_some(name)
    }

    /// Whether `topic` is what a template makes of any name that an input pattern stands for, be it
    /// there or not. An input that was configured by its full name is never ours.
    pub fn is_own(&self, topic: &str) -> bool {
        if self.is_named(topic) {
            return false;
        }
        let templates = [
            Some(&self.output),
            self.duplicates.as_ref(),
            self.rejected.as_ref(),
        ];
        let always = [&self.repartition, &self.journal];
        let mut templates = templates.into_iter().flatten().chain(always);
        templates.any(|template| match captured(&template.0, &self.group, topic) {
            Some(Captured::Name(name)) => {
                // The journal of a repartition topic is named after that.
                let of_ours = name.len() < topic.len() && self.is_own(name);
                self.is_named(name) || self.is_matched(name) || of_ours
            }
            Some(Captured::Nothing) => true,
            None => false,
        })
    }

    /// The input topics among all topics, in their order: those configured by name, and those that
    /// a regular expression matches and that are neither internal (`__...`) nor ours.
    pub fn resolve<S: AsRef<str>>(&self, all_topics: &[S]) -> Vec<String> {
        let is_input =
            |topic: &&str| self.is_named(topic) || (self.is_matched(topic) && !self.is_own(topic));
        all_topics
            .iter()
            .map(AsRef::as_ref)
            .filter(is_input)
            .map(str::to_owned)
            .collect()
    }

    fn is_named(&self, topic: &str) -> bool {
        let named = |pattern: &TopicPattern| matches!(pattern, TopicPattern::Name(n) if n == topic);
        self.inputs.iter().any(named)
    }

    fn is_matched(&self, topic: &str) -> bool {
        let is_regex = |pattern: &&TopicPattern| matches!(pattern, TopicPattern::Regex(_));
        !topic.starts_with("__")
            && self
                .inputs
                .iter()
                .filter(is_regex)
                .any(|pattern| pattern.matches(topic))
    }
}

fn is_topic_name(name: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    (1..=249).contains(&name.len()) && name.chars().all(legal)
}

/// What a template says of a name that it may have made.
enum Captured<'a> {
    /// It made it of this input topic.
    Name(&'a str),
    /// It makes this name whatever the input topic.
    Nothing,
}

/// Reads a template backwards; `None` when it cannot have made `name`.
fn captured<'a>(template: &str, group: &str, name: &'a str) -> Option<Captured<'a>> {
    let template = template.replace("{group}", group);
    let parts: Vec<&str> = template.split("{topic}").collect();
    let captures = parts.len() - 1;
    if captures == 0 {
        return (template == name).then_some(Captured::Nothing);
    }
    // Every occurrence of {topic} has the same length, so the name's length gives it.
    let fixed: usize = parts.iter().map(|part| part.len()).sum();
    let variable = name.len().checked_sub(fixed)?;
    let length = variable / captures;
    let topic = name.get(parts[0].len()..parts[0].len() + length)?;
    (!topic.is_empty() && template.replace("{topic}", topic) == name)
        .then_some(Captured::Name(topic))
}

#[cfg(test)]
#[path = "names_tests.rs"]
mod tests;
