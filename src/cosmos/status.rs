//! The status of an answer, in numbers.

use std::fmt;

/// Status and sub-status of an answer. Decisions are made by these, never by a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Status {
    /// The HTTP status; 0 when nothing was sent.
    pub code: u16,
    /// The service's sub-status (`x-ms-substatus`), or one of the client library's own; 0 when there is none.
    pub sub: u16,
}

impl Status {
    /// This program refused the operation before anything was sent.
    pub const NOT_SENT: Self = Self::new(0, 0);
    /// The client library planned a query, and found that nothing it asks about lies in the range.
    pub const NOTHING_TO_ASK: Self = Self::new(500, 20302);
    /// The client library cannot set up its connections.
    pub const NO_HTTP_CLIENT: Self = Self::new(400, 20153);
    /// The client library got no token for the account from any identity.
    pub const NO_TOKEN: Self = Self::new(401, 20402);
    /// No such item; a sub-status says that something larger is missing, or that a session is behind.
    pub const NO_ITEM: Self = Self::new(404, 0);
    /// The logical partition has reached its maximum size (20 GB).
    pub const PARTITION_FULL: Self = Self::new(403, 1014);
    /// The key in the request does not match the document: the cached container definition is out of date.
    pub const KEY_MISMATCH: Self = Self::new(400, 1001);

    /// The account shows a moment of another one (`at`), and takes no changes.
    pub const OF_A_MOMENT: Self = Self::new(403, 9_001);

    /// No such container or database.
    pub const NO_OWNER: Self = Self::new(404, 1003);
    /// A replica does not have the session's writes yet.
    pub const SESSION_BEHIND: Self = Self::new(404, 1002);
    /// The results of a batch are larger than an answer can be.
    pub const ANSWER_TOO_LARGE: Self = Self::new(413, 3402);

    /// A status with its sub-status.
    pub const fn new(code: u16, sub: u16) -> Self {
        Self { code, sub }
    }

    /// The prefix of a message; empty when nothing was sent, since there is no status to show.
    pub(super) fn before_message(self) -> String {
        if self == Self::NOT_SENT { String::new() } else { format!("{self}: ") }
    }

    /// The request is refused as it is, whatever the account holds.
    pub const fn is_bad_request(self) -> bool {
        self.code == 400
    }

    /// The endpoint does not have such an operation: asking again changes nothing.
    pub const fn is_not_implemented(self) -> bool {
        self.code == 501
    }

    /// A refusal of a request with several operations says that such requests are not taken. Answers that any request
    /// would get from a container that is gone, recreated or lagging behind do not count, and neither do those about an
    /// item, nor what the client library says itself.
    pub fn is_of_the_request(self) -> bool {
        /// The first of the client library's own sub-statuses.
        const OWN: u16 = 20_000;
        let others = [Self::KEY_MISMATCH, Self::NO_OWNER, Self::SESSION_BEHIND];
        let is_of_an_item = matches!(self.code, 403 | 409 | 412);
        self != Self::NOT_SENT && self.sub < OWN && !is_of_an_item && !others.contains(&self)
    }

    /// Nobody answered: the client library's sub-statuses for connections and timeouts.
    pub const fn is_out_of_reach(self) -> bool {
        matches!(self.sub, 20_000..=20_099)
    }

    /// No connection came about: nothing listens at the address, it speaks another protocol, or its name is not known.
    pub const fn is_without_connection(self) -> bool {
        self.code == 503 && matches!(self.sub, 20_010 | 20_012)
    }

    /// The account does not know the caller's key or identity.
    pub const fn is_unauthorized(self) -> bool {
        self.code == 401
    }

    /// More request units were requested than the container provides.
    pub const fn is_throttled(self) -> bool {
        self.code == 429
    }

    /// The physical partition was replaced by another one (410 with any of its reasons).
    pub const fn is_gone(self) -> bool {
        self.code == 410
    }

    /// The request, or the item, has more bytes than the service accepts.
    pub const fn is_too_large(self) -> bool {
        self.code == 413
    }
}

/// In the service's notation: `403/1014`, `404`; `-` when nothing was sent.
impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code, self.sub) {
            (0, 0) => f.pad("-"),
            (code, 0) => f.pad(&code.to_string()),
            (code, sub) => f.pad(&format!("{code}/{sub}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_reads_as_the_service_writes_it() {
        let shown = [Status::NOT_SENT, Status::NO_ITEM, Status::PARTITION_FULL].map(|status| status.to_string());
        assert_eq!(shown, ["-", "404", "403/1014"]);
        assert_eq!([Status::NOT_SENT, Status::NO_ITEM].map(Status::before_message), ["", "404: "]);
    }
}
