//! Remedies for failures that have nothing to do with Cosmos DB.

/// The remedy for a caller whom a MongoDB server refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// Another name or password.
    User,
    /// More rights.
    Roles,
    /// One of the two.
    UserOrRoles,
}

impl Remedy {
    /// The next step for a person.
    pub(super) fn hint(self) -> &'static str {
        match self {
            Self::User => "look at the user, the password and the authSource of the address",
            Self::Roles => {
                "the address needs a user with the role read on what is followed (readAnyDatabase for a whole \
                 deployment), and readWrite on a collection that is restored"
            }
            Self::UserOrRoles => {
                "look at the user, the password and the roles: read on what is followed (readAnyDatabase for a whole \
                 deployment), and readWrite on a collection that is restored"
            }
        }
    }
}
