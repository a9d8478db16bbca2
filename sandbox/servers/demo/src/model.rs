//! What goes in and out of the tools: the doc comments here are the descriptions in their schemas.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(crate) const LONGEST_DELAY_MS: u64 = 5000;

#[derive(Clone, Copy, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(crate) enum State {
    Open,
    Closed,
}

#[derive(Clone, Copy, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(crate) enum StateFilter {
    #[default]
    Open,
    Closed,
    All,
}

#[derive(Clone, Copy, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(crate) enum Priority {
    Low,
    #[default]
    Normal,
    High,
    Urgent,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListIssues {
    /// Which issues to list.
    #[serde(default)]
    state: StateFilter,
    /// Only issues with this label, such as `bug`.
    label: Option<String>,
    /// Only issues assigned to the user with this login.
    pub(crate) assignee: Option<String>,
    /// The most issues to return; `total` counts them all.
    #[serde(default = "default_limit")]
    pub(crate) limit: usize,
}

fn default_limit() -> usize {
    50
}

impl ListIssues {
    pub(crate) fn includes(&self, issue: &IssueSummary) -> bool {
        let state = match self.state {
            StateFilter::Open => issue.state == State::Open,
            StateFilter::Closed => issue.state == State::Closed,
            StateFilter::All => true,
        };
        state
            && self.label.as_ref().is_none_or(|label| issue.labels.contains(label))
            && (self.assignee.is_none() || self.assignee == issue.assignee)
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GetIssue {
    /// The number of the issue.
    pub(crate) number: usize,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SearchIssues {
    /// Words to look for, such as `battery overnight`.
    pub(crate) query: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateIssue {
    /// What is wrong or wanted, in one line.
    pub(crate) title: String,
    /// The details, in Markdown.
    #[serde(default)]
    pub(crate) body: String,
    /// Labels to file it under; new ones are fine.
    #[serde(default)]
    pub(crate) labels: Vec<String>,
    /// How soon it should be looked at.
    #[serde(default)]
    pub(crate) priority: Priority,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AddComment {
    /// The number of the issue.
    pub(crate) number: usize,
    /// Who is commenting: a login or any other name.
    pub(crate) author: String,
    /// The comment, in Markdown.
    pub(crate) body: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CloseIssue {
    /// The number of the issue.
    pub(crate) number: usize,
    /// Why it is closed, such as `fixed in 2.5`.
    pub(crate) reason: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProjectReport {
    /// How long the report takes, in milliseconds.
    #[serde(default = "default_delay_ms")]
    #[schemars(range(max = LONGEST_DELAY_MS))]
    pub(crate) delay_ms: u64,
}

fn default_delay_ms() -> u64 {
    300
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Deploy {
    /// Where to deploy to, such as `production`.
    pub(crate) environment: String,
}

#[derive(Clone, Serialize, JsonSchema)]
pub(crate) struct IssueSummary {
    /// The number that names the issue.
    pub(crate) number: usize,
    /// What is wrong or wanted, in one line.
    pub(crate) title: String,
    /// Whether there is still work to do.
    pub(crate) state: State,
    /// The labels it is filed under.
    pub(crate) labels: Vec<String>,
    /// The login of the user working on it; null if nobody is.
    pub(crate) assignee: Option<String>,
    /// How soon it should be looked at.
    pub(crate) priority: Priority,
}

#[derive(Clone, Serialize, JsonSchema)]
pub(crate) struct Issue {
    #[serde(flatten)]
    pub(crate) summary: IssueSummary,
    /// The details, in Markdown.
    pub(crate) body: String,
    /// When it was opened, in ISO 8601.
    pub(crate) created_at: String,
    /// Why it was closed; null if it is open or nobody said.
    pub(crate) close_reason: Option<String>,
    /// The comments, oldest first.
    pub(crate) comments: Vec<Comment>,
}

impl Issue {
    pub(crate) fn mentions(&self, query: &str) -> bool {
        let text = format!("{} {}", self.summary.title, self.body).to_lowercase();
        query.to_lowercase().split_whitespace().all(|word| text.contains(word))
    }
}

#[derive(Clone, Serialize, JsonSchema)]
pub(crate) struct Comment {
    /// Who wrote it.
    pub(crate) author: String,
    /// The comment, in Markdown.
    pub(crate) body: String,
    /// When it was written, in ISO 8601.
    pub(crate) created_at: String,
}

#[derive(Serialize, JsonSchema)]
pub(crate) struct IssueList {
    /// The issues, lowest number first.
    pub(crate) issues: Vec<IssueSummary>,
    /// How many issues matched, even if fewer are returned.
    total: usize,
}

impl<'a> FromIterator<&'a Issue> for IssueList {
    fn from_iter<I: IntoIterator<Item = &'a Issue>>(matching: I) -> Self {
        let issues: Vec<_> = matching.into_iter().map(|issue| issue.summary.clone()).collect();
        Self { total: issues.len(), issues }
    }
}

#[derive(Serialize, JsonSchema)]
pub(crate) struct CommentCount {
    /// The number of the issue.
    pub(crate) number: usize,
    /// How many comments it now has.
    pub(crate) comments: usize,
}

#[derive(Clone, Copy, Serialize, JsonSchema)]
pub(crate) struct User {
    /// The name issues are assigned by.
    pub(crate) login: &'static str,
    /// The full name.
    pub(crate) name: &'static str,
    /// The team the user works in.
    pub(crate) team: &'static str,
}

#[derive(Serialize, JsonSchema)]
pub(crate) struct UserList {
    /// All users.
    pub(crate) users: Vec<User>,
}

#[derive(Default, Serialize, JsonSchema)]
pub(crate) struct Report {
    /// How many issues there are.
    total: usize,
    /// How many issues are in each state.
    by_state: StateCounts,
    /// How many issues carry each label; an issue counts once for each of its labels.
    by_label: BTreeMap<String, usize>,
    /// How many issues each user is assigned, by login; `unassigned` counts those nobody is.
    by_assignee: BTreeMap<String, usize>,
}

#[derive(Default, Serialize, JsonSchema)]
#[schemars(inline)]
struct StateCounts {
    open: usize,
    closed: usize,
}

impl<'a> FromIterator<&'a Issue> for Report {
    fn from_iter<I: IntoIterator<Item = &'a Issue>>(issues: I) -> Self {
        let mut report = Self::default();
        for IssueSummary { state, labels, assignee, .. } in issues.into_iter().map(|issue| &issue.summary) {
            report.total += 1;
            match state {
                State::Open => report.by_state.open += 1,
                State::Closed => report.by_state.closed += 1,
            }
            for label in labels {
                *report.by_label.entry(label.clone()).or_default() += 1;
            }
            let assignee = assignee.as_deref().unwrap_or("unassigned");
            *report.by_assignee.entry(assignee.into()).or_default() += 1;
        }
        report
    }
}

#[derive(Serialize, JsonSchema)]
pub(crate) struct Deployment {
    /// Where the project now runs.
    environment: String,
}
