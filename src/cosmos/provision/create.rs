//! Creates missing containers.

use azure_data_cosmos::{
    error::CosmosError,
    models::{ContainerProperties, ResponseHeaders, ThroughputProperties},
    options::CreateContainerOptions,
};

use azure_data_cosmos_driver::{
    CosmosResponse,
    models::{CosmosOperation, DatabaseReference},
    options::OperationOptions,
};

use super::{NotProvisioned, Provisioned, ResourceRole, Throughput};
use crate::cosmos::{Cosmos, Disposition, Failure, RETRY_TIMEOUT, Retry, container::answered};

pub(super) async fn ensure_database(cosmos: &Cosmos, name: &str) -> Result<Provisioned, NotProvisioned> {
    let made = |created| Provisioned {
        role: ResourceRole::Database,
        name: name.to_owned(),
        created,
        key: Vec::new(),
        differs: Vec::new(),
    };
    let retry = || Retry::for_at_most(RETRY_TIMEOUT);
    let read = || read(cosmos, name, CosmosOperation::read_database, format!("read database {name}"));
    if retry().run_answered(read).await?.is_some() {
        return Ok(made(false));
    }
    let create = async || match cosmos.client().await?.create_database(name, None).await {
        Ok(response) => {
            charge(cosmos, response.headers());
            Ok(())
        }
        Err(e) => Err(Failure::from_driver(&e, format!("create database {name}"))),
    };
    match retry().run_answered(&create).await {
        Ok(()) => Ok(made(true)),
        Err(failure) if failure.disposition == Disposition::Conflict => Ok(made(false)),
        Err(failure) => Err(NotProvisioned::Create(failure)),
    }
}

/// The container's definition, and whether it was created now.
pub(super) async fn ensure_container(
    cosmos: &Cosmos,
    database: &str,
    definition: ContainerProperties,
    throughput: Option<Throughput>,
) -> Result<(ContainerProperties, bool), NotProvisioned> {
    let name = definition.id.to_string();
    if let Some(found) = read_container(cosmos, database, &name).await? {
        return Ok((found, false));
    }
    let options = throughput.map(|throughput| {
        CreateContainerOptions::default().with_throughput(match throughput {
            Throughput::Manual(ru) => ThroughputProperties::manual(ru),
            Throughput::Autoscale(ru) => ThroughputProperties::autoscale(ru, None),
        })
    });
    let context = format!("create container {database}/{name}");
    let fail = |e: CosmosError| Failure::from_driver(&e, context.clone());
    let create = async || {
        let client = cosmos.client().await?.database_client(database.to_owned());
        let response = client.create_container(definition.clone(), options.clone()).await.map_err(fail)?;
        charge(cosmos, response.headers());
        response.into_model().map_err(fail)
    };
    match Retry::for_at_most(RETRY_TIMEOUT).run_answered(&create).await {
        Ok(made) => Ok((made, true)),
        // Someone else created it in the meantime, or an earlier attempt did.
        Err(failure) if failure.disposition == Disposition::Conflict => {
            let found = read_container(cosmos, database, &name).await?;
            found.map(|found| (found, false)).ok_or(NotProvisioned::Create(failure))
        }
        Err(failure) => Err(NotProvisioned::Create(failure)),
    }
}

/// The definition of a container, or `None` when there is none.
///
/// # Errors
/// When the account cannot be reached or refuses the caller.
pub async fn read_container(
    cosmos: &Cosmos,
    database: &str,
    name: &str,
) -> Result<Option<ContainerProperties>, Failure> {
    Retry::for_at_most(RETRY_TIMEOUT).run_answered(|| read_once(cosmos, database, name)).await
}

async fn read_once(cosmos: &Cosmos, database: &str, name: &str) -> Result<Option<ContainerProperties>, Failure> {
    let context = || format!("read container {database}/{name}");
    let operation = |database| CosmosOperation::read_container_by_name(database, name.to_owned());
    let Some(answer) = read(cosmos, database, operation, context()).await? else { return Ok(None) };
    answer.into_body().into_single().map(Some).map_err(|e| Failure::from_driver(&e, context()))
}

/// Reads a database, or what is in it; `None` when there is no such thing. Through the driver, which whoever reads a
/// definition has opened, or will: the official client is opened only to make something.
async fn read(
    cosmos: &Cosmos,
    database: &str,
    operation: impl FnOnce(DatabaseReference) -> CosmosOperation,
    context: String,
) -> Result<Option<CosmosResponse>, Failure> {
    let driver = cosmos.driver().await?;
    let operation = operation(DatabaseReference::from_name(driver.account().clone(), database.to_owned()));
    match answered(cosmos, driver, context, operation, OperationOptions::default()).await {
        Ok(answer) => Ok(Some(answer)),
        Err(failure) if failure.disposition == Disposition::NotFound => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// The definition of a container as JSON, with everything that the service says about it, or `None` when there is none.
///
/// # Errors
/// As [`read_container`].
pub async fn read_definition(
    cosmos: &Cosmos,
    database: &str,
    name: &str,
) -> Result<Option<serde_json::Value>, Failure> {
    let invalid = |e: serde_json::Error| Failure::invalid(format!("read container {database}/{name}"), e.to_string());
    let found = read_container(cosmos, database, name).await?;
    found.map(|found| serde_json::to_value(found).map_err(invalid)).transpose()
}

fn charge(cosmos: &Cosmos, headers: &ResponseHeaders) {
    cosmos.meter().add(headers.request_charge().map_or(0.0, |c| c.value()));
}
