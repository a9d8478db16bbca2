//! A small in-memory issue tracker as an MCP server: what rhaiway's first command talks to.

mod model;
mod seed;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

#[cfg(not(target_family = "wasm"))]
use rmcp::ServiceExt;
use rmcp::handler::server::wrapper::Parameters;
use rmcp::{Json, ServerHandler, tool, tool_handler, tool_router};

use model::{
    AddComment, CloseIssue, Comment, CommentCount, CreateIssue, Deploy, Deployment, GetIssue, Issue, IssueList,
    IssueSummary, LONGEST_DELAY_MS, ListIssues, ProjectReport, Report, SearchIssues, State, UserList,
};

/// An issue tracker filled with the same issues every time; clones share them.
#[derive(Clone)]
pub struct IssueTracker {
    issues: Arc<Mutex<Vec<Issue>>>,
}

impl Default for IssueTracker {
    fn default() -> Self {
        Self { issues: Arc::new(Mutex::new(seed::issues())) }
    }
}

impl IssueTracker {
    fn issues(&self) -> MutexGuard<'_, Vec<Issue>> {
        self.issues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves a fresh tracker on this process's standard input and output until the client closes them.
///
/// # Errors
/// Says why the client could not be served.
#[cfg(not(target_family = "wasm"))]
pub async fn serve_stdio() -> Result<(), String> {
    let service = IssueTracker::default().serve(rmcp::transport::stdio()).await.map_err(|error| error.to_string())?;
    service.waiting().await.map(drop).map_err(|error| error.to_string())
}

#[tool_router]
impl IssueTracker {
    /// Lists issues, lowest number first, without their bodies and comments. Only open ones unless `state` says otherwise.
    #[tool(title = "List issues", annotations(read_only_hint = true, open_world_hint = false))]
    fn list_issues(&self, Parameters(wanted): Parameters<ListIssues>) -> Result<Json<IssueList>, String> {
        if let Some(login) = &wanted.assignee {
            check_user(login)?;
        }
        let issues = self.issues();
        let mut list: IssueList = issues.iter().filter(|issue| wanted.includes(&issue.summary)).collect();
        list.issues.truncate(wanted.limit);
        Ok(Json(list))
    }

    /// Gets one issue with its body and comments.
    #[tool(title = "Get an issue", annotations(read_only_hint = true, open_world_hint = false))]
    fn get_issue(&self, Parameters(GetIssue { number }): Parameters<GetIssue>) -> Result<Json<Issue>, String> {
        find(&mut self.issues(), number).map(|issue| Json(issue.clone()))
    }

    /// Finds the issues, open and closed, whose title or body contain every word of the query, in upper or lower case.
    #[tool(title = "Search issues", annotations(read_only_hint = true, open_world_hint = false))]
    fn search_issues(
        &self,
        Parameters(SearchIssues { query }): Parameters<SearchIssues>,
    ) -> Result<Json<IssueList>, String> {
        check_not_blank("query", &query)?;
        Ok(Json(self.issues().iter().filter(|issue| issue.mentions(&query)).collect()))
    }

    /// Opens a new issue, assigned to nobody, and returns it with its number.
    #[tool(
        title = "Create an issue",
        annotations(
            read_only_hint = false,
            destructive_hint = false,
            idempotent_hint = false,
            open_world_hint = false
        )
    )]
    fn create_issue(&self, Parameters(wanted): Parameters<CreateIssue>) -> Result<Json<Issue>, String> {
        check_not_blank("title", &wanted.title)?;
        let mut issues = self.issues();
        let issue = Issue {
            summary: IssueSummary {
                number: issues.len() + 1,
                title: wanted.title,
                state: State::Open,
                labels: wanted.labels,
                assignee: None,
                priority: wanted.priority,
            },
            body: wanted.body,
            created_at: seed::NOW.into(),
            close_reason: None,
            comments: Vec::new(),
        };
        issues.push(issue.clone());
        Ok(Json(issue))
    }

    /// Adds a comment to an issue, open or closed, and returns how many it now has.
    #[tool(
        title = "Add a comment",
        annotations(
            read_only_hint = false,
            destructive_hint = false,
            idempotent_hint = false,
            open_world_hint = false
        )
    )]
    fn add_comment(
        &self,
        Parameters(AddComment { number, author, body }): Parameters<AddComment>,
    ) -> Result<Json<CommentCount>, String> {
        check_not_blank("author", &author)?;
        check_not_blank("body", &body)?;
        let mut issues = self.issues();
        let comments = &mut find(&mut issues, number)?.comments;
        comments.push(Comment { author, body, created_at: seed::NOW.into() });
        Ok(Json(CommentCount { number, comments: comments.len() }))
    }

    /// Closes an open issue and returns it. There is no way to open it again.
    #[tool(
        title = "Close an issue",
        annotations(read_only_hint = false, destructive_hint = true, idempotent_hint = true, open_world_hint = false)
    )]
    fn close_issue(
        &self,
        Parameters(CloseIssue { number, reason }): Parameters<CloseIssue>,
    ) -> Result<Json<Issue>, String> {
        let mut issues = self.issues();
        let issue = find(&mut issues, number)?;
        if issue.summary.state == State::Closed {
            return Err(format!("issue #{number} is already closed"));
        }
        issue.summary.state = State::Closed;
        issue.close_reason = reason;
        Ok(Json(issue.clone()))
    }

    /// Lists the people issues can be assigned to.
    #[tool(title = "List users", annotations(read_only_hint = true, open_world_hint = false))]
    fn list_users() -> Json<UserList> {
        Json(UserList { users: seed::USERS.to_vec() })
    }

    /// Counts all issues by state, label and assignee. Slow on purpose, as reports tend to be.
    #[tool(title = "Project report", annotations(read_only_hint = true, open_world_hint = false))]
    async fn project_report(
        &self,
        Parameters(ProjectReport { delay_ms }): Parameters<ProjectReport>,
    ) -> Result<Json<Report>, String> {
        if delay_ms > LONGEST_DELAY_MS {
            return Err(format!("`delay_ms` is {delay_ms}, but can be at most {LONGEST_DELAY_MS}"));
        }
        rhaiway_guest_stdio::sleep(Duration::from_millis(delay_ms)).await;
        Ok(Json(self.issues().iter().collect()))
    }

    /// Deploys the project to an environment. Always refused, to show what a failing tool looks like.
    #[tool(
        title = "Deploy",
        annotations(read_only_hint = false, destructive_hint = true, idempotent_hint = false, open_world_hint = true)
    )]
    fn deploy(Parameters(Deploy { environment }): Parameters<Deploy>) -> Result<Json<Deployment>, String> {
        check_not_blank("environment", &environment)?;
        Err(format!("deploying to `{environment}` needs a second approval"))
    }
}

#[tool_handler(
    name = "rhaiway-demo",
    instructions = "The issue tracker of Waymark, a made-up app for hiking maps. Everything is kept in memory and starts afresh with the server."
)]
impl ServerHandler for IssueTracker {}

fn find(issues: &mut [Issue], number: usize) -> Result<&mut Issue, String> {
    let last = issues.len();
    issues
        .iter_mut()
        .find(|issue| issue.summary.number == number)
        .ok_or_else(|| format!("there is no issue #{number}; numbers run from 1 to {last}"))
}

fn check_user(login: &str) -> Result<(), String> {
    let logins = seed::USERS.map(|user| user.login);
    if logins.contains(&login) {
        return Ok(());
    }
    Err(format!("there is no user `{login}`; there are {}", logins.join(", ")))
}

fn check_not_blank(argument: &str, value: &str) -> Result<(), String> {
    if value.trim().is_empty() {
        return Err(format!("`{argument}` is empty"));
    }
    Ok(())
}
