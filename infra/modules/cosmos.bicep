// The account, its three containers, and the permissions. The containers match those of `cosmos-rewind provision`;
// tests/infra/ compares the two.
param location string
param name string
param tags object
param backupRetention string
param serverless bool
param maximumThroughput int
param createSource bool
param databaseName string
param sourceContainerName string
param changesContainerName string
param leaseContainerName string
param sourcePartitionKey string
param capturePrincipalId string
param operatorPrincipalId string
param prunes bool

resource account 'Microsoft.DocumentDB/databaseAccounts@2024-11-15' = {
  name: name
  location: location
  tags: tags
  kind: 'GlobalDocumentDB'
  properties: {
    databaseAccountOfferType: 'Standard'
    locations: [
      {
        locationName: location
        failoverPriority: 0
        isZoneRedundant: false
      }
    ]
    consistencyPolicy: {
      defaultConsistencyLevel: 'Session'
    }
    capabilities: serverless ? [{ name: 'EnableServerless' }] : []
    // The all-versions feed requires it.
    backupPolicy: {
      type: 'Continuous'
      continuousModeProperties: {
        tier: backupRetention
      }
    }
    // Account keys are disabled.
    disableLocalAuth: true
    disableKeyBasedMetadataWriteAccess: true
    minimalTlsVersion: 'Tls12'
  }
}

resource database 'Microsoft.DocumentDB/databaseAccounts/sqlDatabases@2024-11-15' = {
  parent: account
  name: databaseName
  properties: {
    resource: {
      id: databaseName
    }
    options: serverless ? {} : { autoscaleSettings: { maxThroughput: maximumThroughput } }
  }
}

// An existing container has its own settings (time to live, indexing); createSource false leaves it alone.
resource source 'Microsoft.DocumentDB/databaseAccounts/sqlDatabases/containers@2024-11-15' = if (createSource) {
  parent: database
  name: sourceContainerName
  properties: {
    resource: {
      id: sourceContainerName
      partitionKey: {
        paths: [sourcePartitionKey]
        kind: 'Hash'
        version: 2
      }
    }
  }
}

resource changes 'Microsoft.DocumentDB/databaseAccounts/sqlDatabases/containers@2024-11-15' = {
  parent: database
  name: changesContainerName
  properties: {
    resource: {
      id: changesContainerName
      // Hierarchical, because the history of a busy key would exceed the 20 GB limit of a logical partition.
      partitionKey: {
        paths: [sourcePartitionKey, '/_originalId']
        kind: 'MultiHash'
        version: 2
      }
      // Little is indexed: a record costs about half the RU of the default policy.
      indexingPolicy: {
        automatic: true
        indexingMode: 'consistent'
        includedPaths: [
          { path: '/_change/*' }
          { path: '/_originalId/?' }
          { path: '${sourcePartitionKey}/?' }
        ]
        excludedPaths: [
          { path: '/*' }
        ]
        compositeIndexes: [
          [
            { path: '/_change/ts', order: 'descending' }
            { path: '/_change/lsn', order: 'descending' }
          ]
        ]
      }
    }
  }
}

resource leases 'Microsoft.DocumentDB/databaseAccounts/sqlDatabases/containers@2024-11-15' = {
  parent: database
  name: leaseContainerName
  properties: {
    resource: {
      id: leaseContainerName
      partitionKey: {
        paths: ['/id']
        kind: 'Hash'
        version: 2
      }
      // Enabled, but nothing expires by default: the trigger sets the ttl of documents that may expire.
      defaultTtl: -1
    }
  }
}

// Custom roles, because the built-in contributor could delete history and live documents.
//
// Role definitions and assignments are created one after the other, and after the containers. The account accepts one
// such operation at a time and refuses others with 412 ("requires an exclusive lock").
var item = 'Microsoft.DocumentDB/databaseAccounts/sqlDatabases/containers/items'
var container = 'Microsoft.DocumentDB/databaseAccounts/sqlDatabases/containers'

// Clients read the account first; this includes no data.
resource metadataRole 'Microsoft.DocumentDB/databaseAccounts/sqlRoleDefinitions@2024-11-15' = {
  parent: account
  name: guid(account.id, 'rewind-metadata')
  dependsOn: [
    source
    changes
    leases
  ]
  properties: {
    roleName: 'cosmos-rewind metadata'
    type: 'CustomRole'
    assignableScopes: [account.id]
    permissions: [
      {
        dataActions: ['Microsoft.DocumentDB/databaseAccounts/readMetadata']
      }
    ]
  }
}

resource captureSourceRole 'Microsoft.DocumentDB/databaseAccounts/sqlRoleDefinitions@2024-11-15' = {
  parent: account
  name: guid(account.id, 'rewind-capture-source')
  dependsOn: [metadataRole]
  properties: {
    roleName: 'cosmos-rewind capture: read the source'
    type: 'CustomRole'
    assignableScopes: [account.id]
    permissions: [
      {
        dataActions: ['${container}/readChangeFeed', '${container}/executeQuery', '${item}/read']
      }
    ]
  }
}

resource captureChangesRole 'Microsoft.DocumentDB/databaseAccounts/sqlRoleDefinitions@2024-11-15' = {
  parent: account
  name: guid(account.id, 'rewind-capture-changes')
  dependsOn: [captureSourceRole]
  properties: {
    roleName: 'cosmos-rewind capture: add to the history'
    type: 'CustomRole'
    assignableScopes: [account.id]
    permissions: [
      {
        dataActions: ['${item}/create', '${item}/upsert', '${item}/replace', '${item}/read']
      }
    ]
  }
}

resource captureLeasesRole 'Microsoft.DocumentDB/databaseAccounts/sqlRoleDefinitions@2024-11-15' = {
  parent: account
  name: guid(account.id, 'rewind-capture-leases')
  dependsOn: [captureChangesRole]
  properties: {
    roleName: 'cosmos-rewind capture: leases'
    type: 'CustomRole'
    assignableScopes: [account.id]
    permissions: [
      {
        dataActions: [
          '${container}/readChangeFeed'
          '${container}/executeQuery'
          '${item}/create'
          '${item}/read'
          '${item}/replace'
          '${item}/upsert'
          '${item}/delete'
        ]
      }
    ]
  }
}

resource pruneRole 'Microsoft.DocumentDB/databaseAccounts/sqlRoleDefinitions@2024-11-15' = {
  parent: account
  name: guid(account.id, 'rewind-prune')
  dependsOn: [captureLeasesRole]
  properties: {
    roleName: 'cosmos-rewind prune: remove old versions'
    type: 'CustomRole'
    assignableScopes: [account.id]
    permissions: [
      {
        dataActions: ['${container}/executeQuery', '${item}/delete']
      }
    ]
  }
}

resource operatorRole 'Microsoft.DocumentDB/databaseAccounts/sqlRoleDefinitions@2024-11-15' = {
  parent: account
  name: guid(account.id, 'rewind-operator')
  dependsOn: [pruneRole]
  properties: {
    roleName: 'cosmos-rewind operator: restore, undo, prune, erase'
    type: 'CustomRole'
    assignableScopes: [account.id]
    permissions: [
      {
        dataActions: [
          '${container}/readChangeFeed'
          '${container}/executeQuery'
          '${item}/create'
          '${item}/read'
          '${item}/replace'
          '${item}/upsert'
          '${item}/delete'
        ]
      }
    ]
  }
}

resource captureMetadata 'Microsoft.DocumentDB/databaseAccounts/sqlRoleAssignments@2024-11-15' = {
  parent: account
  name: guid(account.id, capturePrincipalId, 'rewind-metadata')
  dependsOn: [operatorRole]
  properties: {
    principalId: capturePrincipalId
    roleDefinitionId: metadataRole.id
    scope: account.id
  }
}

resource captureSource 'Microsoft.DocumentDB/databaseAccounts/sqlRoleAssignments@2024-11-15' = {
  parent: account
  name: guid(account.id, capturePrincipalId, 'rewind-capture-source', sourceContainerName)
  dependsOn: [captureMetadata]
  properties: {
    principalId: capturePrincipalId
    roleDefinitionId: captureSourceRole.id
    scope: '${account.id}/dbs/${databaseName}/colls/${sourceContainerName}'
  }
}

resource captureChanges 'Microsoft.DocumentDB/databaseAccounts/sqlRoleAssignments@2024-11-15' = {
  parent: account
  name: guid(account.id, capturePrincipalId, 'rewind-capture-changes', changesContainerName)
  dependsOn: [captureSource]
  properties: {
    principalId: capturePrincipalId
    roleDefinitionId: captureChangesRole.id
    scope: '${account.id}/dbs/${databaseName}/colls/${changes.name}'
  }
}

resource captureLeases 'Microsoft.DocumentDB/databaseAccounts/sqlRoleAssignments@2024-11-15' = {
  parent: account
  name: guid(account.id, capturePrincipalId, 'rewind-capture-leases', leaseContainerName)
  dependsOn: [captureChanges]
  properties: {
    principalId: capturePrincipalId
    roleDefinitionId: captureLeasesRole.id
    scope: '${account.id}/dbs/${databaseName}/colls/${leases.name}'
  }
}

// Only when the app prunes on a schedule: capture alone must not be able to delete history.
resource appPrunes 'Microsoft.DocumentDB/databaseAccounts/sqlRoleAssignments@2024-11-15' = if (prunes) {
  parent: account
  name: guid(account.id, capturePrincipalId, 'rewind-prune', changesContainerName)
  dependsOn: [captureLeases]
  properties: {
    principalId: capturePrincipalId
    roleDefinitionId: pruneRole.id
    scope: '${account.id}/dbs/${databaseName}/colls/${changes.name}'
  }
}

resource operatorMetadata 'Microsoft.DocumentDB/databaseAccounts/sqlRoleAssignments@2024-11-15' = if (!empty(operatorPrincipalId)) {
  parent: account
  name: guid(account.id, operatorPrincipalId, 'rewind-metadata')
  dependsOn: [
    captureLeases
    appPrunes
  ]
  properties: {
    principalId: operatorPrincipalId
    roleDefinitionId: metadataRole.id
    scope: account.id
  }
}

resource operator 'Microsoft.DocumentDB/databaseAccounts/sqlRoleAssignments@2024-11-15' = if (!empty(operatorPrincipalId)) {
  parent: account
  name: guid(account.id, operatorPrincipalId, 'rewind-operator', databaseName)
  dependsOn: [operatorMetadata]
  properties: {
    principalId: operatorPrincipalId
    roleDefinitionId: operatorRole.id
    scope: '${account.id}/dbs/${database.name}'
  }
}

output name string = account.name
output endpoint string = account.properties.documentEndpoint
