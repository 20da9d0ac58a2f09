// Everything that cosmos-rewind needs on Azure, in its own resource group. There are no keys: every connection uses an
// identity.
// Deployed by `azd up`, or by: az deployment sub create --location <region> --template-file infra/main.bicep
targetScope = 'subscription'

@minLength(1)
@maxLength(40)
@description('Name of the environment; part of the names of all resources.')
param environmentName string

@minLength(1)
@description('Region of all resources.')
param location string

@allowed(['latest', 'all-versions'])
@description('The change feed mode. all-versions includes deletes and every intermediate version; infra/enable-all-versions.sh enables it after the account exists, because the service refuses it at creation.')
param mode string = 'latest'

@allowed(['Continuous7Days', 'Continuous30Days'])
@description('Retention of the continuous backup. In all-versions mode it is also how long capture may be down without losing changes. Chosen once: the service refuses to change it together with other properties of an account.')
param backupRetention string = 'Continuous7Days'

@minValue(30)
@maxValue(730)
@description('Retention of logs in days.')
param logRetentionDays int = 30

@minValue(40)
@maxValue(1000)
@description('Maximum number of instances of the function app. More instances than physical partitions of the source container stay idle.')
param maximumInstances int = 40

@description('Whether the account is serverless. Chosen once: the service does not change it.')
param serverless bool = true

@minValue(1000)
@description('Highest RU/s of the database, shared by its containers (autoscale, in steps of 1000). Used when serverless is false.')
param maximumThroughput int = 1000

@description('Database of all containers.')
param databaseName string = 'dev'

@description('Live container whose change feed is captured.')
param sourceContainerName string = 'events'

@description('Whether to create the live container. false: it exists, and its time to live and indexing are not changed.')
param createSource bool = true

@description('History container.')
param changesContainerName string = 'changes'

@description('Lease container of the trigger.')
param leaseContainerName string = 'leases'

@description('Partition key path of the live container: one path, not /id. Other shapes need a change in modules/cosmos.bicep.')
param sourcePartitionKey string = '/pk'

@description('What a timer function of the app removes from the history, as flags of prune (docs/operate/prune.md). Empty: nothing, and the app has no permission to delete from it.')
param pruneFlags string = ''

@description('Object id of the principal that may restore, prune and erase with the command line. Empty: none yet.')
param operatorPrincipalId string = ''

@allowed(['User', 'Group', 'ServicePrincipal'])
@description('The kind of principal of operatorPrincipalId.')
param operatorPrincipalType string = 'User'

var tags = { 'azd-env-name': environmentName }
// Names of storage and Cosmos accounts are globally unique.
var suffix = toLower(uniqueString(subscription().id, environmentName, location))

resource group 'Microsoft.Resources/resourceGroups@2024-03-01' = {
  name: 'rg-${environmentName}'
  location: location
  tags: tags
}

module identity 'modules/identity.bicep' = {
  scope: group
  name: 'identity'
  params: {
    location: location
    name: 'id-rewind-${suffix}'
    tags: tags
  }
}

module cosmos 'modules/cosmos.bicep' = {
  scope: group
  name: 'cosmos'
  params: {
    location: location
    name: 'cosmos-rewind-${suffix}'
    tags: tags
    backupRetention: backupRetention
    serverless: serverless
    maximumThroughput: maximumThroughput
    createSource: createSource
    databaseName: databaseName
    sourceContainerName: sourceContainerName
    changesContainerName: changesContainerName
    leaseContainerName: leaseContainerName
    sourcePartitionKey: sourcePartitionKey
    capturePrincipalId: identity.outputs.principalId
    operatorPrincipalId: operatorPrincipalId
    prunes: !empty(pruneFlags)
  }
}

module storage 'modules/storage.bicep' = {
  scope: group
  name: 'storage'
  params: {
    location: location
    hostName: 'sthost${suffix}'
    deadLetterName: 'stdead${suffix}'
    tags: tags
    capturePrincipalId: identity.outputs.principalId
    operatorPrincipalId: operatorPrincipalId
    operatorPrincipalType: operatorPrincipalType
  }
}

module monitoring 'modules/monitoring.bicep' = {
  scope: group
  name: 'monitoring'
  params: {
    location: location
    workspaceName: 'log-rewind-${suffix}'
    componentName: 'appi-rewind-${suffix}'
    tags: tags
    logRetentionDays: logRetentionDays
    capturePrincipalId: identity.outputs.principalId
  }
}

module app 'modules/app.bicep' = {
  scope: group
  name: 'app'
  params: {
    location: location
    planName: 'plan-rewind-${suffix}'
    name: 'func-rewind-${suffix}'
    // azd finds the service's app by this tag.
    tags: union(tags, { 'azd-service-name': 'capture' })
    identityId: identity.outputs.id
    identityClientId: identity.outputs.clientId
    maximumInstances: maximumInstances
    hostStorageName: storage.outputs.hostName
    packageContainerUrl: storage.outputs.packageContainerUrl
    deadLetterContainerUrl: storage.outputs.deadLetterContainerUrl
    insightsConnectionString: monitoring.outputs.connectionString
    cosmosEndpoint: cosmos.outputs.endpoint
    databaseName: databaseName
    sourceContainerName: sourceContainerName
    changesContainerName: changesContainerName
    leaseContainerName: leaseContainerName
    pruneFlags: pruneFlags
  }
}

// azd stores these as environment values, for its hooks and for the command line.
output AZURE_RESOURCE_GROUP string = group.name
output REWIND_MODE string = mode
output REWIND_FUNCTION_APP string = app.outputs.name
output REWIND_COSMOS_ACCOUNT string = cosmos.outputs.name
output CosmosDB__accountEndpoint string = cosmos.outputs.endpoint
output COSMOS_DATABASE string = databaseName
output COSMOS_SOURCE_CONTAINER string = sourceContainerName
output COSMOS_CHANGES_CONTAINER string = changesContainerName
output COSMOS_LEASE_CONTAINER string = leaseContainerName
output REWIND_DEAD_LETTERS string = storage.outputs.deadLetterContainerUrl
