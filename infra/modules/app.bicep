// The function app: Flex Consumption with a custom handler. Its code is deployed later as a package.
param location string
param planName string
param name string
param tags object
param identityId string
param identityClientId string
param maximumInstances int
param hostStorageName string
param packageContainerUrl string
param deadLetterContainerUrl string
param insightsConnectionString string
param cosmosEndpoint string
param databaseName string
param sourceContainerName string
param changesContainerName string
param leaseContainerName string
param pruneFlags string

resource plan 'Microsoft.Web/serverfarms@2024-04-01' = {
  name: planName
  location: location
  tags: tags
  kind: 'functionapp'
  sku: {
    tier: 'FlexConsumption'
    name: 'FC1'
  }
  properties: {
    // Linux.
    reserved: true
  }
}

resource app 'Microsoft.Web/sites@2024-04-01' = {
  name: name
  location: location
  tags: tags
  kind: 'functionapp,linux'
  identity: {
    type: 'UserAssigned'
    userAssignedIdentities: {
      '${identityId}': {}
    }
  }
  properties: {
    serverFarmId: plan.id
    httpsOnly: true
    functionAppConfig: {
      deployment: {
        storage: {
          type: 'blobContainer'
          value: packageContainerUrl
          authentication: {
            type: 'UserAssignedIdentity'
            userAssignedIdentityResourceId: identityId
          }
        }
      }
      // This plan reads the runtime from here; FUNCTIONS_WORKER_RUNTIME is for other plans.
      runtime: {
        name: 'custom'
        version: '1.0'
      }
      scaleAndConcurrency: {
        maximumInstanceCount: maximumInstances
        instanceMemoryMB: 2048
      }
    }
    siteConfig: {
      minTlsVersion: '1.2'
    }
  }
}

// tests/infra/ compares these names with those that the handler reads.
resource settings 'Microsoft.Web/sites/config@2024-04-01' = {
  parent: app
  name: 'appsettings'
  properties: {
    AzureWebJobsStorage__accountName: hostStorageName
    AzureWebJobsStorage__credential: 'managedidentity'
    AzureWebJobsStorage__clientId: identityClientId
    APPLICATIONINSIGHTS_CONNECTION_STRING: insightsConnectionString
    APPLICATIONINSIGHTS_AUTHENTICATION_STRING: 'ClientId=${identityClientId};Authorization=AAD'
    CosmosDB__accountEndpoint: cosmosEndpoint
    CosmosDB__credential: 'managedidentity'
    CosmosDB__clientId: identityClientId
    COSMOS_DATABASE: databaseName
    COSMOS_SOURCE_CONTAINER: sourceContainerName
    COSMOS_CHANGES_CONTAINER: changesContainerName
    COSMOS_LEASE_CONTAINER: leaseContainerName
    REWIND_DEAD_LETTERS: deadLetterContainerUrl
    // The queries and alerts of docs/operate/alerts.md expect the log as JSON.
    REWIND_LOG_FORMAT: 'json'
    REWIND_PRUNE: pruneFlags
    // Without this, the client library captures a backtrace for every operation.
    RUST_BACKTRACE: '0'
  }
}

// Deployment by identity only: no user name and password for the site. One after the other, because the site refuses
// concurrent changes with 409. The types do not include `location`, but deployments without it were refused.
resource noScmPassword 'Microsoft.Web/sites/basicPublishingCredentialsPolicies@2024-04-01' = {
  parent: app
  name: 'scm'
  dependsOn: [settings]
  #disable-next-line BCP187
  location: location
  properties: {
    allow: false
  }
}

resource noFtpPassword 'Microsoft.Web/sites/basicPublishingCredentialsPolicies@2024-04-01' = {
  parent: app
  name: 'ftp'
  dependsOn: [noScmPassword]
  #disable-next-line BCP187
  location: location
  properties: {
    allow: false
  }
}

output name string = app.name
