//! Leases: the delivered position of each feed range, stored in the lease container in the format of the .NET change
//! feed processor.

use std::sync::Arc;

use axum::http::Method;
use serde_json::{Value, json};

use super::binding::{FunctionBinding, TriggerMode};
use crate::clock::{Clock as _, SystemClock};
use crate::local::LocalError;
use crate::local::container::LocalContainer;
use crate::local::feed::Start;
use crate::local::gateway::Gateway;
use crate::local::keys::{Epk, EpkRange};
use crate::local::log::PageLimit;
use crate::local::message::{Ask, ContainerName, header};

/// Reads and writes the lease documents of one function.
#[derive(Debug)]
pub(super) struct LeaseStore {
    gateway: Arc<Gateway>,
    container: Arc<LocalContainer>,
    /// The prefix of the ids of this function's leases on this container.
    prefix: String,
    /// The feed's name in the lease documents.
    mode: &'static str,
    owner: String,
}

/// One lease.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct LocalLease {
    /// The id of the partition key range, which is the lease's token.
    pub token: String,
    pub range: EpkRange,
    /// The feed position from which to continue.
    pub position: Start,
}

impl LeaseStore {
    /// Opens the lease container; creates it if the function asks for that.
    pub async fn open(
        gateway: Arc<Gateway>,
        binding: &FunctionBinding,
        source: &LocalContainer,
    ) -> Result<Self, LocalError> {
        let name = ContainerName::new(&binding.lease_database, &binding.lease_container);
        if binding.create_lease_container && gateway.container(&name).await.is_err_and(|answer| answer.status == 404) {
            let containers = format!("{}/colls", name.path().rsplit_once("/colls").map_or("", |(path, _)| path));
            let description = json!({ "id": name.container, "defaultTtl": -1,
                "partitionKey": { "paths": ["/id"], "kind": "Hash", "version": 2 } });
            let made = gateway.handle(Ask::new(Method::POST, containers).with_body(description.to_string())).await;
            if made.status != 201 && made.status != 409 {
                return Err(LocalError::refused(format!("create the lease container {name}"), &made));
            }
        }
        let container = gateway.container(&name).await.map_err(|answer| {
            LocalError::refused(format!("open the lease container {name} (create it with partition key /id)"), &answer)
        })?;
        if container.partitioning().paths != ["/id"] {
            let paths = container.partitioning().paths.join(", ");
            return Err(LocalError::Option(format!(
                "the lease container {name} has partition key {paths}: it needs /id"
            )));
        }
        let prefix = format!("{}127.0.0.1_{}_{}", binding.lease_prefix, source.database_rid(), source.rid());
        let mode = match binding.mode {
            TriggerMode::Latest => "Incremental Feed",
            TriggerMode::AllVersions => "Full-Fidelity Feed",
        };
        Ok(Self { gateway, container, prefix, mode, owner: crate::local::guid() })
    }

    /// Writes the document that marks the leases as initialized. The change feed processor does that once, and makes no
    /// leases from nothing while that document is there: whoever wants them anew deletes it first.
    async fn initialised(&self) -> Result<(), LocalError> {
        self.write(&format!("{}.info", self.prefix), json!({})).await
    }

    async fn write(&self, id: &str, mut document: Value) -> Result<(), LocalError> {
        document["id"] = id.into();
        let ask = Ask::new(Method::POST, self.container.name().documents())
            .with_header(header::IS_UPSERT, "True")
            .with_header(header::PARTITION_KEY, json!([id]).to_string())
            .with_header(header::CONTENT_ON_WRITE, "false")
            .with_body(document.to_string());
        let answer = self.gateway.handle(ask).await;
        if answer.is_success() { Ok(()) } else { Err(LocalError::refused("write a lease", &answer)) }
    }

    fn id(&self, token: &str) -> String {
        format!("{}..{token}", self.prefix)
    }

    /// Reads the existing leases.
    async fn load(&self) -> Vec<LocalLease> {
        let log = self.container.read().await;
        let all = PageLimit { items: usize::MAX, bytes: usize::MAX };
        let documents = log.latest_after(0, &EpkRange::full(), all).items;
        documents.iter().filter_map(|document| self.parse(&serde_json::from_slice(&document.text).ok()?)).collect()
    }

    fn parse(&self, document: &Value) -> Option<LocalLease> {
        let token = document["id"].as_str()?.strip_prefix(&self.prefix)?.strip_prefix("..")?;
        let range = &document["FeedRange"]["Range"];
        let range = EpkRange { min: Epk::parse(range["min"].as_str()?)?, max: Epk::parse(range["max"].as_str()?)? };
        let position = match document["ContinuationToken"].as_str() {
            Some(text) => Start::After(text.trim_matches('"').parse().ok()?),
            None => Start::Beginning,
        };
        Some(LocalLease { token: token.to_owned(), range, position })
    }

    /// Aligns the leases with the source's current partitions: one for each. Leases of split or merged partitions pass
    /// to their children, with the earliest position of the parents; new leases start at `start`.
    pub async fn reconcile(&self, source: &LocalContainer, start: FirstStart) -> Result<Vec<LocalLease>, LocalError> {
        let known = self.load().await;
        let mut leases = Vec::new();
        let mut made = Vec::new();
        for range in source.ranges() {
            if let Some(lease) = known.iter().find(|lease| lease.token == range.id) {
                leases.push(lease.clone());
                continue;
            }
            let parents = known.iter().filter(|lease| overlap(&lease.range, &range.range));
            let position = parents.map(|lease| lease.position).min_by_key(|position| match position {
                Start::After(lsn) => *lsn,
                _ => 0,
            });
            let position = match (position, start) {
                (Some(position), _) => position,
                (None, FirstStart::Beginning) => Start::Beginning,
                (None, FirstStart::Now) => Start::After(source.read().await.lsn()),
            };
            made.push(LocalLease { token: range.id, range: range.range, position });
        }
        for lease in &made {
            self.save(lease).await?;
        }
        if made.iter().any(|lease| !known.iter().any(|parent| overlap(&parent.range, &lease.range))) {
            self.initialised().await?;
        }
        leases.append(&mut made);
        for old in known.iter().filter(|old| !leases.iter().any(|lease| lease.token == old.token)) {
            let id = self.id(&old.token);
            let gone = Ask::new(Method::DELETE, self.container.name().document(&id))
                .with_header(header::PARTITION_KEY, json!([id]).to_string());
            self.gateway.handle(gone).await;
        }
        Ok(leases)
    }

    /// Saves the lease: the position that was delivered and acknowledged.
    pub async fn save(&self, lease: &LocalLease) -> Result<(), LocalError> {
        let id = self.id(&lease.token);
        let continuation = match lease.position {
            Start::After(lsn) => Some(format!("\"{lsn}\"")),
            _ => None,
        };
        let document = json!({
            "id": id,
            "version": 0,
            "LeaseToken": lease.token,
            "FeedRange": { "Range": { "min": lease.range.min.padded(), "max": lease.range.max.padded() } },
            "Owner": self.owner,
            "ContinuationToken": continuation,
            "properties": {},
            "timestamp": super::invoke::dotnet_time(SystemClock.now()),
            "Mode": self.mode,
        });
        self.write(&id, document).await
    }
}

/// Where a lease without a predecessor starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FirstStart {
    Beginning,
    Now,
}

impl FirstStart {
    /// The all-versions feed starts now, whatever the function asks for.
    pub fn of(binding: &FunctionBinding) -> Self {
        if binding.start_from_beginning && binding.mode == TriggerMode::Latest { Self::Beginning } else { Self::Now }
    }
}

pub(super) fn overlap(left: &EpkRange, right: &EpkRange) -> bool {
    left.min < right.max && right.min < left.max
}
