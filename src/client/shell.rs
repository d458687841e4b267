//! The person at the shell, or the script: answers on standard output, everything else on standard error.

use std::io::{self, ErrorKind, IsTerminal, Write};

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::http::{Answer, Client, Request};
use super::table::{Column, Members, escape, escape_json, pairs, table};
use super::{ClientError, Outcome};

/// What every verb is given.
pub struct Shell {
    pub client: Client,
    /// Answers are printed as the API gave them.
    pub json: bool,
}

/// A line on standard error. Nobody may be there to read it, which is no fault.
pub fn say(line: &str) {
    writeln!(io::stderr(), "{line}").ok();
}

impl Shell {
    /// Prints a list of the API's, and says where it goes on.
    pub(super) fn list(&self, request: &Request, columns: &[Column]) -> Result<Outcome, ClientError> {
        let answer = self.client.ask(request)?;
        self.print(&answer, |rows: Vec<Value>| table(columns, &rows))?;
        if let Some(cursor) = &answer.cursor {
            say(&format!("There are more: --cursor {}", escape(cursor)));
        }
        Ok(Outcome::Done)
    }

    /// Prints an object of the API's, member by member.
    pub(super) fn show(&self, request: &Request) -> Result<Outcome, ClientError> {
        let answer = self.client.ask(request)?;
        self.print(&answer, |members: Members| pairs(members.pairs()))?;
        Ok(Outcome::Done)
    }

    /// Prints an answer: the text that `human` makes of it, or its JSON.
    pub(super) fn print<T: DeserializeOwned>(
        &self,
        answer: &Answer,
        human: impl FnOnce(T) -> String,
    ) -> Result<(), ClientError> {
        self.put(&answer.body, &human(answer.read()?))
    }

    /// Prints one of the two.
    pub(super) fn put(&self, json: &[u8], text: &str) -> Result<(), ClientError> {
        if self.json { print_json(json) } else { write(text.as_bytes()) }
    }

    /// Says what went wrong; for scripts also what the API said of it.
    pub fn failed(&self, error: &ClientError) {
        say(&format!("crm-events-sink: {}", escape(&error.to_string())));
        if let (true, ClientError::Refused { body, .. }) = (self.json, error) {
            print_json(body).ok();
        }
    }

    /// Asks whether to go on. `yes` is the answer that was given on the command line.
    pub(super) fn confirm(&self, question: &str, yes: bool) -> Result<(), ClientError> {
        if yes {
            return Ok(());
        }
        if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
            return Err(ClientError::NotConfirmed(": there is no terminal to ask at, and no --yes"));
        }
        write!(io::stderr(), "{question} [y/N] ").and_then(|()| io::stderr().flush())?;
        let mut line = String::new();
        io::stdin().read_line(&mut line)?;
        match line.trim() {
            "y" | "Y" | "yes" => Ok(()),
            _ => Err(ClientError::NotConfirmed("")),
        }
    }
}

fn print_json(body: &[u8]) -> Result<(), ClientError> {
    let mut line = match std::str::from_utf8(body) {
        Ok(json) if io::stdout().is_terminal() => escape_json(json).into_bytes(),
        _ => body.to_vec(),
    };
    line.push(b'\n');
    write(&line)
}

fn write(text: &[u8]) -> Result<(), ClientError> {
    let mut out = io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        // A reader that has seen enough (`| head`).
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}
