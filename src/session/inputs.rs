//! What the user is asked for when a server is connected: the `inputs` of its configuration, each once for a client.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::Variables;
use crate::config::{Input, ServerConfig};
use crate::error::Error;
use crate::tool::BoxFuture;

/// Asks the user. `None` where there is no answer, `Err` where nobody can be asked any more.
type Ask = Arc<dyn Fn(Input) -> BoxFuture<'static, Result<Option<String>, String>> + Send + Sync>;

/// Who is asked, and what was answered.
#[derive(Clone, Default)]
pub(crate) struct Inputs {
    pub(crate) ask: Option<Ask>,
    answers: Arc<Mutex<BTreeMap<String, String>>>,
    /// One question at a time, whoever wants to know.
    asking: Arc<tokio::sync::Mutex<()>>,
}

impl Inputs {
    /// The answers so far, by the input's `id`.
    pub(super) fn answers(&self) -> BTreeMap<String, String> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks for what the entry needs and no variable gives.
    pub(super) async fn resolve(&self, entry: &ServerConfig, variables: &Variables) -> Result<(), Error> {
        let Some(ask) = &self.ask else { return Ok(()) };
        for input in &entry.surroundings.inputs {
            if variables(&input.variable()).is_some() {
                continue;
            }
            let _one_at_a_time = self.asking.lock().await;
            if self.answers().contains_key(&input.id) {
                continue;
            }
            let answer = ask(input.clone()).await.map_err(|message| Error::Config {
                path: entry.path.clone(),
                message: format!("the input `{}` could not be asked for: {message}", input.id),
            })?;
            let answer = answer.filter(|answer| !answer.is_empty()).or_else(|| input.default.clone());
            if let Some(answer) = answer {
                self.answers.lock().unwrap_or_else(PoisonError::into_inner).insert(input.id.clone(), answer);
            }
        }
        Ok(())
    }
}
