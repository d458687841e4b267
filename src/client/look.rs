//! What a route says, whatever it says.

use super::http::Request;
use super::{Client, ClientError};

impl Client {
    /// The status and the body that `path` is answered with.
    ///
    /// # Errors
    /// If nothing answers there.
    pub fn look(&self, path: &str) -> Result<(u16, Vec<u8>), ClientError> {
        match self.ask(&Request::get(path)) {
            Ok(answer) => Ok((200, answer.body)),
            Err(ClientError::Refused { status, body, .. }) => Ok((status, body)),
            Err(error) => Err(error),
        }
    }
}
