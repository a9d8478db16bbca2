//! Questions to the person at the terminal: on stderr, answered on stdin.

use std::io::{self, BufRead, IsTerminal, Read, Write};

use rhaiway::Input;

use super::render;

/// Longest answer.
const ANSWER_BYTES: u64 = 64 << 10;

/// Whether somebody is there to be asked.
pub(super) fn is_possible() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// A question that is answered with yes or no; no where the answer is something else.
pub(super) fn yes(question: &str) -> Result<bool, String> {
    let answer = line(&format!("{question} [y/N] "))?;
    Ok(matches!(&*answer.trim().to_lowercase(), "y" | "yes"))
}

/// What a configuration needs. `None` where nothing was said.
pub(super) async fn input(input: Input) -> Result<Option<String>, String> {
    let asked = tokio::task::spawn_blocking(move || {
        let what = input.description.clone().unwrap_or_else(|| format!("the input `{}`", input.id));
        let options = if input.options.is_empty() { String::new() } else { format!(" ({})", input.options.join(", ")) };
        let default = input.default.as_ref().filter(|_| !input.is_password);
        let default = default.map(|default| format!(" [{default}]")).unwrap_or_default();
        let question = format!("{what}{options}{default}: ");
        let answer = if input.is_password { hidden(&question)? } else { line(&question)? };
        if !answer.is_empty() && !input.options.is_empty() && !input.options.contains(&answer) {
            return Err(format!("expected one of `{}`", input.options.join("`, `")));
        }
        Ok(Some(answer).filter(|answer| !answer.is_empty()))
    });
    asked.await.map_err(|error| error.to_string())?
}

fn line(question: &str) -> Result<String, String> {
    let mut stderr = io::stderr().lock();
    let _ = write!(stderr, "{}", render::without_controls(question));
    let _ = stderr.flush();
    let mut answer = String::new();
    let read = io::stdin().lock().take(ANSWER_BYTES).read_line(&mut answer);
    read.map_err(|error| format!("nothing can be read from the terminal: {error}"))?;
    Ok(answer.trim_end_matches(['\n', '\r']).into())
}

#[cfg(unix)]
mod echo {
    //! Whether the terminal shows what is typed.

    use std::sync::{Mutex, PoisonError};

    use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};

    /// How the terminal was, while it shows nothing.
    static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

    pub(super) fn hide() -> nix::Result<()> {
        let before = tcgetattr(std::io::stdin())?;
        let mut hidden = before.clone();
        hidden.local_flags.remove(LocalFlags::ECHO);
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
        tcsetattr(std::io::stdin(), SetArg::TCSAFLUSH, &hidden)
    }

    pub(super) fn show() {
        if let Some(before) = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = tcsetattr(std::io::stdin(), SetArg::TCSANOW, &before);
        }
    }
}

/// Lets the terminal show again what is typed, if the command ends in the middle of a question.
pub(super) fn leave_terminal() {
    #[cfg(unix)]
    echo::show();
}

#[cfg(unix)]
fn hidden(question: &str) -> Result<String, String> {
    echo::hide().map_err(|error| format!("the terminal can't be told to hide what is typed: {error}"))?;
    let answer = line(question);
    echo::show();
    render::note("");
    answer
}

#[cfg(not(unix))]
fn hidden(_question: &str) -> Result<String, String> {
    Err("what is typed can't be hidden on this system: set its variable".into())
}
